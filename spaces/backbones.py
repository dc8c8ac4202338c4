"""Feature extractors under the pyramid, from ImageNet weights unless `--set model.weights` says otherwise."""

import optuna

from digits_core.config.train_config import BACKBONES
from spaces.registry import Baseline, Overrides, space

CHOICES = tuple(name for name in BACKBONES if name != "tiny")


@space(
    "backbones",
    summary="torchvision's resnets and its second Faster R-CNN",
    preset={"model.backbone": "resnet50", "model.weights": "imagenet"},
    baselines=(
        *(
            Baseline(name=f"report A {name}", overrides={"model.backbone": name}, source="course report A, backbones")
            for name in CHOICES
        ),
        Baseline(
            name="report B",
            overrides={"model.backbone": "resnet50", "model.weights": "coco"},
            source="course report B, fasterrcnn_resnet50_fpn with COCO weights",
        ),
    ),
    comparison=True,
)
def backbones(trial: optuna.Trial) -> Overrides:
    """One of torchvision's."""
    return {"model.backbone": trial.suggest_categorical("backbone", CHOICES)}
