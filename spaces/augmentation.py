"""Augmentation pipelines, with and without mirroring."""

import optuna

from spaces.registry import Baseline, Overrides, space

CHOICES = (
    "none",
    "mirror",
    "color",
    "color_b",
    "geometric",
    "geometric+mirror",
    "color,geometric",
    "binarize",
)
"""Pipelines; with `+mirror`, half of the images are also mirrored."""


def _overrides(choice: str) -> Overrides:
    pipeline, _, _ = choice.partition("+")
    return {
        "augment.pipeline": "none" if pipeline == "mirror" else pipeline,
        "augment.mirror": choice.endswith("mirror"),
    }


@space(
    "augmentation",
    summary="augmentation pipelines, single and combined, with and without mirroring",
    baselines=(
        Baseline(name="report A easy", overrides=_overrides("color"), source="course report A, easy augmentation"),
        Baseline(
            name="report A hard", overrides=_overrides("geometric+mirror"), source="course report A, hard augmentation"
        ),
        Baseline(name="report B color", overrides=_overrides("color_b"), source="course report B, Table 4"),
        Baseline(name="report B binary", overrides=_overrides("binarize"), source="course report B, Table 4"),
    ),
    comparison=True,
)
def augmentation(trial: optuna.Trial) -> Overrides:
    """One of the choices."""
    return _overrides(trial.suggest_categorical("augmentation", CHOICES))
