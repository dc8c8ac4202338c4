"""Sampling of proposals and RoIAlign of the box head."""

import optuna

from spaces.registry import Baseline, Overrides, space

TORCHVISION: Overrides = {
    "model.roi_batch_size": 512,
    "model.roi_positive_fraction": 0.25,
    "model.roi_fg_iou": 0.5,
    "model.roi_output_size": 7,
    "model.roi_sampling_ratio": 2,
}


@space(
    "roi_heads",
    summary="proposals per image, share of foreground, foreground IoU, RoIAlign",
    baselines=(
        Baseline(name="torchvision", overrides=TORCHVISION, source="torchvision's defaults, and course report B's"),
    ),
)
def roi_heads(trial: optuna.Trial) -> Overrides:
    """Sampling of proposals and RoIAlign."""
    return {
        "model.roi_batch_size": trial.suggest_categorical("roi_batch_size", [32, 64, 128, 256, 512]),
        "model.roi_positive_fraction": trial.suggest_categorical("roi_positive_fraction", [0.125, 0.25, 0.5]),
        "model.roi_fg_iou": trial.suggest_categorical("roi_fg_iou", [0.4, 0.5, 0.6]),
        "model.roi_output_size": trial.suggest_categorical("roi_output_size", [5, 7]),
        "model.roi_sampling_ratio": trial.suggest_categorical("roi_sampling_ratio", [1, 2]),
    }
