"""Default values and names for the flags, in a module without slow imports."""

TRIALS = 12
"""Default of `--trials`: configurations that are sampled in addition to the baselines."""

COMPARISON_REPLICATES = 3
"""Default of `--replicates` for a comparison."""

REPLICATE_TOP = 3
"""Default of `--replicate-top`."""

CONFIRM_SEEDS = 3
"""Minimum number of trainings of each confirmed configuration."""

CONFIRM_FRACTION = 0.3
"""Default of `--confirm-fraction`."""

SCREEN = True
"""Default of `--screen`."""

METRICS = ("val_map", "val_map_50", "val_digit_accuracy", "val_number_accuracy")
"""Values of `--metric`; larger is better for all of them."""

COSTS = ("latency", "latency_32", "megabytes")
"""What `--metric` can name after the metric: costs that a search makes small; their columns are in `schema.AIMS`."""

AIM_SAMPLERS = ("tpe", "random")
"""Samplers for several aims."""

SAMPLERS = ("tpe", "random", "grid", "gp")
SCHEDULERS = ("asha", "median", "none")

MAX_FAILURES = 2
"""Default of `--max-failures`."""

GAIN = 0.005
"""Default of the gain of `--until settled`: about half of the difference that two equal trainings can have."""

DEFAULT_IOU = 0.55
"""Default of `digit-search ensemble --iou` for models without `detect.box_fusion`: that of weighted boxes fusion."""

KEEP = 5
"""Default of `--keep`."""

LOOPBACK = "127.0.0.1"
"""Address that only this machine can connect to."""

LOOPBACK_NAMES = (LOOPBACK, "localhost", "::1")

GRACE_EPOCHS = 2
"""The first rung of ASHA, in epochs."""

REDUCTION_FACTOR = 2
"""The better half of the trials in a rung continues, and the next rung is at twice the epochs."""

MEDIAN_MIN_TRIALS = 3
"""The median rule stops a trial only if it has so many others to compare with."""


def is_rung(epoch: int, grace: int = GRACE_EPOCHS, factor: int = REDUCTION_FACTOR) -> bool:
    """Whether ASHA has a rung at an epoch: 2, 4, 8, ..."""
    rung = grace
    while rung < epoch:
        rung *= factor
    return rung == epoch


def rungs(scheduler: str, epochs: int, grace: int = GRACE_EPOCHS, factor: int = REDUCTION_FACTOR) -> list[int]:
    """The epochs after which a scheduler may stop a trial; empty if it is not ASHA."""
    return [epoch for epoch in range(1, epochs) if is_rung(epoch, grace, factor)] if scheduler == "asha" else []
