"""Backbones with ImageNet weights; `--set model.weights` selects others."""

import optuna

from digits_core.config.train_config import BACKBONES
from spaces.registry import Baseline, Overrides, space

CHOICES = tuple(name for name in BACKBONES if name != "tiny")


@space(
    "backbones",
    summary="torchvision's ResNets and its Faster R-CNN v2",
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
    """One of torchvision's backbones."""
    return {"model.backbone": trial.suggest_categorical("backbone", CHOICES)}
