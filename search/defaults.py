"""Names and numbers that the flags need before anything heavy is imported."""

TRIALS = 12
"""Settings of a search that names no number."""

METRICS = ("val_map", "val_map_50", "val_number_accuracy")
"""What `--metric` takes; larger is better in each."""

SAMPLERS = ("tpe", "random", "grid", "gp")
SCHEDULERS = ("asha", "median", "none")
