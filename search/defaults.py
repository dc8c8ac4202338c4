"""Names and numbers that the flags need before anything heavy is imported."""

TRIALS = 12
"""Settings of a search that names no number."""

COMPARISON_REPLICATES = 3
"""Trainings of each setting of a space that is a comparison, unless `--replicates` says otherwise."""

REPLICATE_TOP = 3
"""Settings that `--replicates` trains again, unless another number is named."""

CONFIRM_SEEDS = 3
"""Fresh seeds of each confirmed setting, unless `--replicates` asks for more."""

CONFIRM_FRACTION = 0.3
"""Share of valid that `--confirm` sets apart."""

SCREEN = True
"""Whether settings whose anchors miss the digits are left untrained."""

METRICS = ("val_map", "val_map_50", "val_digit_accuracy", "val_number_accuracy")
"""What `--metric` takes; larger is better in each."""

SAMPLERS = ("tpe", "random", "grid", "gp")
SCHEDULERS = ("asha", "median", "none")

MAX_FAILURES = 2
"""Starts after a fault that a trial has."""

KEEP = 5
"""Best settings whose checkpoints stay."""

LOOPBACK = "127.0.0.1"
"""Only this machine reaches what listens there."""

LOOPBACK_NAMES = (LOOPBACK, "localhost", "::1")

GRACE_EPOCHS = 2
"""Epochs before ASHA first decides."""

REDUCTION_FACTOR = 2
"""ASHA lets the better half of a rung go on, and the next rung lies at twice the epochs."""


def is_rung(epoch: int, grace: int = GRACE_EPOCHS, factor: int = REDUCTION_FACTOR) -> bool:
    """Whether ASHA decides after an epoch: 2, 4, 8, ..."""
    rung = grace
    while rung < epoch:
        rung *= factor
    return rung == epoch


def rungs(scheduler: str, epochs: int, grace: int = GRACE_EPOCHS, factor: int = REDUCTION_FACTOR) -> list[int]:
    """The epochs after which the scheduler of that name may stop a trial, where those are few."""
    return [epoch for epoch in range(1, epochs) if is_rung(epoch, grace, factor)] if scheduler == "asha" else []
