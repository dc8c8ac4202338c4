"""The resize of images, with anchors scaled or not.

Anchor sizes are pixels of the resized image, so the same numbers have another meaning at another image size.
"""

import optuna

from digits_core.config.parameter import format_numbers, parse_numbers
from digits_core.config.train_config import ModelConfig
from spaces.registry import Overrides, space

DEFAULT = ModelConfig()

SIZES = (48, 64, 80, 96, 128)
"""Shortest sides, pixels; the longest side is scaled equally."""


@space(
    "image_size",
    summary="image size, aspect ratio kept or square, anchors scaled or not",
    # A pretrained RPN head works at each size, but best at the size of its training, which would favour that size.
    preset={"model.fresh_rpn": True},
)
def image_size(trial: optuna.Trial) -> Overrides:
    """The shortest side; a square image has as many pixels as an image that is twice as wide as tall."""
    size = trial.suggest_categorical("min_size", SIZES)
    scale = size / DEFAULT.min_size
    square = trial.suggest_categorical("square", [False, True])
    scaled = trial.suggest_categorical("scale_anchors", [True, False])
    sizes = parse_numbers(DEFAULT.anchor_sizes, "model.anchor_sizes")
    return {
        "model.min_size": size,
        "model.max_size": round(DEFAULT.max_size * scale),
        "model.fixed_size": round(size * 2**0.5) if square else None,
        "model.anchor_sizes": format_numbers(round(side * (scale if scaled else 1.0)) for side in sizes),
    }
