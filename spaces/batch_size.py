"""Batch size and the scaling of the learning rate."""

import optuna

from digits_core.config.train_config import LR_BATCH
from spaces.registry import Baseline, Overrides, space


@space(
    "batch_size",
    summary="batch size; learning rate unscaled, scaled linearly or by the square root",
    baselines=(
        Baseline(name="report B 4", overrides={"optim.batch_size": 4}, source="course report B, Table 3"),
        Baseline(name="report B 8", overrides={"optim.batch_size": 8}, source="course report B, Table 3"),
        Baseline(name="report A 16", overrides={"optim.batch_size": 16}, source="course report A"),
        Baseline(name="report A 32", overrides={"optim.batch_size": 32}, source="course report A"),
    ),
    comparison=True,
)
def batch_size(trial: optuna.Trial) -> Overrides:
    """A batch size, and a scaling rule if it is not the one that the learning rate is defined for."""
    size = trial.suggest_categorical("batch_size", [4, 8, 16, 32])
    overrides: Overrides = {"optim.batch_size": size}
    if size != LR_BATCH:
        overrides["optim.lr_scaling"] = trial.suggest_categorical("lr_scaling", ["none", "linear", "sqrt"])
    return overrides
