"""Training images of several sizes."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "multi_scale",
    summary="random sizes of the training images, by the resize of a step and by crops (large-scale jitter)",
    baselines=(
        Baseline(
            name="image size 0.8 to 1.25",
            overrides={"augment.multi_scale": 1.25},
            source="detectron2 `INPUT.MIN_SIZE_TRAIN`: 640 to 800 pixels",
        ),
        Baseline(
            name="large-scale jitter",
            overrides={"augment.scale_jitter": 2.0},
            source="Ghiasi et al. 2021, Simple copy-paste: factors 0.1 to 2.0, here 0.5 to 2.0",
        ),
    ),
)
def multi_scale(trial: optuna.Trial) -> Overrides:
    """Both factors are 1 (off) at the lower end."""
    return {
        "augment.multi_scale": trial.suggest_float("multi_scale", 1.0, 1.6, step=0.1),
        "augment.scale_jitter": trial.suggest_float("scale_jitter", 1.0, 2.5, step=0.25),
    }
