"""Cascade R-CNN: further stages of the RoI heads."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "cascade",
    summary="stages of the RoI heads (Cascade R-CNN), proposals in their loss, and the learning rate",
    baselines=(
        Baseline(
            name="three stages",
            overrides={"model.cascade_stages": 3},
            source="Cai and Vasconcelos 2018, Cascade R-CNN: IoU .5, .6, .7",
        ),
    ),
)
def cascade(trial: optuna.Trial) -> Overrides:
    """More stages train more parameters, so the learning rate is searched too."""
    return {
        "model.cascade_stages": trial.suggest_int("cascade_stages", 1, 3),
        "model.roi_batch_size": trial.suggest_categorical("roi_batch_size", [64, 128, 256]),
        "optim.lr": trial.suggest_float("lr", 5e-4, 4e-3, log=True),
    }
