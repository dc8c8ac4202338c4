"""NMS and score thresholds. They act after training: swept on each trained model, never trained for."""

import optuna

from spaces.registry import Overrides, space


@space("thresholds", summary="NMS and score thresholds, swept on each trained model")
def thresholds(trial: optuna.Trial) -> Overrides:
    """The same pair for both tasks; Task 1 keeps its NMS within classes, Task 2 across them."""
    nms = trial.suggest_categorical("nms", [0.3, 0.4, 0.5, 0.6, 0.7])
    score = trial.suggest_categorical("score", [0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.8])
    return {
        "detect.task1.nms": nms,
        "detect.task1.score": score,
        "detect.task2.nms": nms,
        "detect.task2.score": score,
    }
