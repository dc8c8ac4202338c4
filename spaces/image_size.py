"""The resize before the detector, with the anchors scaled along or left as they are.

Anchor sizes are pixels of the resized image: at another size the same numbers are other anchors.
"""

import optuna

from digits_core.config.parameter import format_numbers, parse_numbers
from digits_core.config.train_config import ModelConfig
from spaces.registry import Overrides, space

DEFAULT = ModelConfig()

SIZES = (48, 64, 80, 96, 128)
"""Shortest sides, pixels; the longest grows along."""


@space(
    "image_size",
    summary="the resize, shapes kept or square, anchors scaled along or not",
    # A head that is kept fits every setting too, but is best at the size of its training: settings start unequal.
    preset={"model.fresh_rpn": True},
)
def image_size(trial: optuna.Trial) -> Overrides:
    """The shortest side; a square has the pixels of an image twice as wide as tall."""
    size = trial.suggest_categorical("min_size", SIZES)
    scale = size / DEFAULT.min_size
    square = trial.suggest_categorical("square", [False, True])
    along = trial.suggest_categorical("scale_anchors", [True, False])
    sizes = parse_numbers(DEFAULT.anchor_sizes, "model.anchor_sizes")
    return {
        "model.min_size": size,
        "model.max_size": round(DEFAULT.max_size * scale),
        "model.fixed_size": round(size * 2**0.5) if square else None,
        "model.anchor_sizes": format_numbers(round(side * (scale if along else 1.0)) for side in sizes),
    }
