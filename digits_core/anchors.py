"""The anchors that a config really gives (numpy, no torch)."""

import numpy as np
from numpy.typing import NDArray

from digits_core.config import ModelConfig, TrainConfig, flat_digest
from digits_core.knob import Flat, format_numbers, parse_numbers


def realised_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> NDArray[np.float32]:
    """The anchor boxes around the origin as torchvision rounds them.

    Args:
        sizes: one side per pyramid level, pixels of the resized image.
        ratios: height / width.

    Returns:
        float32 [num_levels, num_ratios, 4], xyxy, whole pixels.

    Source:
        torchvision `AnchorGenerator.generate_anchors`: width = size / sqrt(ratio), height = size *
        sqrt(ratio) in float32, half sides rounded half to even.
    """
    root = np.sqrt(np.asarray(ratios, dtype=np.float32))
    side = np.asarray(sizes, dtype=np.float32)[:, None]
    width, height = (np.float32(1) / root) * side, root * side
    half = np.stack([-width, -height, width, height], axis=2) / np.float32(2)
    return np.asarray(np.round(half), dtype=np.float32)


def anchors_of(model: ModelConfig) -> NDArray[np.float32]:
    """The realised anchors of a config, float32 [num_levels, num_ratios, 4]."""
    sizes = parse_numbers(model.anchor_sizes, "model.anchor_sizes")
    return realised_anchors(sizes, parse_numbers(model.aspect_ratios, "model.aspect_ratios"))


def canonical_setting(config: TrainConfig) -> Flat:
    """The flat config with its anchors as realised: equal for settings that give the same model."""
    flat = config.to_flat()
    boxes = anchors_of(config.model)
    # The order of ratios is an order of output channels, not another model.
    flat["model.anchor_sizes"] = ";".join(
        format_numbers(np.unique(level[:, 2:] * 2, axis=0).ravel().tolist()) for level in boxes
    )
    flat["model.aspect_ratios"] = str(boxes.shape[1])
    return flat


def setting_digest(config: TrainConfig) -> str:
    """Sixteen hex digits that name the setting by its realised anchors, whatever the seed."""
    return flat_digest(canonical_setting(config))
