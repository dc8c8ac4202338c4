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
