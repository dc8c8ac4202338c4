"""NMS and score thresholds. They act after training, so they are swept on each trained model."""

import optuna

from digits_core.evaluation.sweep import NMS_VALUES, SCORE_VALUES
from spaces.registry import Overrides, space


@space("thresholds", summary="kind of NMS, its IoU and the score threshold, swept on each trained model")
def thresholds(trial: optuna.Trial) -> Overrides:
    """The grid of the sweep; each task has its own best values."""
    class_agnostic = trial.suggest_categorical("class_agnostic", [False, True])
    nms = trial.suggest_categorical("nms", NMS_VALUES)
    score = trial.suggest_categorical("score", SCORE_VALUES)
    return {
        f"detect.{task}.{parameter}": value
        for task in ("task1", "task2")
        for parameter, value in (("nms", nms), ("score", score), ("class_agnostic", class_agnostic))
    }
