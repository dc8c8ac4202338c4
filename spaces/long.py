"""The length of a training."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "long",
    summary="epochs of a training by learning rate and share of the cooldown, with augmentation and averaged weights",
    preset={
        "augment.pipeline": "color_b",
        "augment.scale_jitter": 1.5,
        "optim.ema": 0.99,
        "optim.epochs": 40,
        "optim.schedule": "onecycle",
    },
    baselines=(
        Baseline(
            name="short",
            overrides={"optim.epochs": 4},
            source="the default length of this project",
        ),
        Baseline(
            name="12 epochs",
            overrides={"optim.epochs": 12},
            source="the 1x schedule of detectron2 and MMDetection on COCO",
        ),
    ),
)
def long(trial: optuna.Trial) -> Overrides:
    """A one-cycle schedule falls after its peak, so an early peak is a long cooldown."""
    return {
        "optim.epochs": trial.suggest_categorical("epochs", [4, 8, 12, 20, 28, 40]),
        "optim.lr": trial.suggest_float("lr", 3e-4, 4e-3, log=True),
        "optim.onecycle_peak": trial.suggest_float("onecycle_peak", 0.05, 0.5, step=0.05),
    }
