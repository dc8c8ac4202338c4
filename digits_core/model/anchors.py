"""The anchors of a configuration after torchvision's rounding, and how well they cover boxes (numpy, no torch)."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.config.parameter import Flat, format_numbers, parse_numbers
from digits_core.config.stages import STAGED
from digits_core.config.train_config import NUM_LEVELS, ModelConfig, TrainConfig
from digits_core.data.coco import Table


def realised_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> NDArray[np.float32]:
    """The anchor boxes around the origin, rounded as in torchvision.

    Args:
        sizes: one side per pyramid level, pixels of the resized image.
        ratios: height / width.

    Returns:
        float32 [num_levels, num_ratios, 4], xyxy, whole pixels.

    Source:
        torchvision `AnchorGenerator.generate_anchors`: width = size / sqrt(ratio), height = size *
        sqrt(ratio) in float32; half of each side is rounded, with ties to even.
    """
    root = np.sqrt(np.asarray(ratios, dtype=np.float32))
    side = np.asarray(sizes, dtype=np.float32)[:, None]
    width, height = (np.float32(1) / root) * side, root * side
    half = np.stack([-width, -height, width, height], axis=2) / np.float32(2)
    return np.asarray(np.round(half), dtype=np.float32)


def anchors_of(model: ModelConfig) -> NDArray[np.float32]:
    """The rounded anchors of a configuration, float32 [num_levels, num_ratios, 4]."""
    sizes = parse_numbers(model.anchor_sizes, "model.anchor_sizes")
    return realised_anchors(sizes, parse_numbers(model.aspect_ratios, "model.aspect_ratios"))


def mean_the_same(trained: ModelConfig, model: ModelConfig) -> bool:
    """Whether an RPN head that was trained with the anchors of one configuration fits the anchors of another one.

    It fits if the anchors are the same in pixels of the resized image, or the same relative to the image size, up to
    one pixel. The ratios must be the same, in the same order.
    """
    if anchors_of(trained).tolist() == anchors_of(model).tolist():
        return True
    sizes, ratios = ([parse_numbers(getattr(one, name), name) for one in (trained, model)] for name in _SHAPES)
    scale = _input_side(model) / _input_side(trained)
    return ratios[0] == ratios[1] and all(abs(was * scale - now) < 1 for was, now in zip(*sizes, strict=True))


_SHAPES = ("anchor_sizes", "aspect_ratios")


def _input_side(model: ModelConfig) -> float:
    """The shortest side of an image after the resize; for a square, of a 2:1 image with the same area."""
    return model.min_size if model.fixed_size is None else model.fixed_size / 2**0.5


def canonical_setting(config: TrainConfig) -> Flat:
    """The flat configuration with rounded anchors: equal for configurations that give the same model."""
    flat = config.to_flat()
    boxes = anchors_of(config.model)
    # Another order of ratios only changes the order of output channels.
    flat["model.anchor_sizes"] = ";".join(
        format_numbers(np.unique(level[:, 2:] * 2, axis=0).ravel().tolist()) for level in boxes
    )
    flat["model.aspect_ratios"] = str(boxes.shape[1])
    if config.optim.stages is not None:  # lengths in epochs and lengths as shares can mean the same
        parts = ((one.span.epochs, one.config.to_flat()) for one in config.stages)
        staged = [[epochs, {name: part[name] for name in part if name.startswith(STAGED)}] for epochs, part in parts]
        flat["optim.stages"] = json.dumps(staged)
    return flat


def setting_digest(config: TrainConfig) -> str:
    """Sixteen hex digits that identify a configuration by its rounded anchors, without `runtime` (so without seed)."""
    kept = {name: value for name, value in canonical_setting(config).items() if not name.startswith("runtime.")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


SIZE_DIVISIBLE = 32
"""torchvision pads every batch to a multiple of this side, in pixels."""

STRIDES = (4, 8, 16, 32)
"""Pixels between two anchors on levels 0 to 3 of every backbone; the pool level uses every second one of level 3."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How well anchors cover annotated boxes, before any training.

    Attributes:
        recall_50, recall_70: share of the boxes that have an anchor with an IoU of at least .5 or .7.
        mean_iou: IoU of a box with its best anchor, mean over the boxes.
    """

    recall_50: float
    recall_70: float
    mean_iou: float


def coverage(model: ModelConfig, table: Table) -> Coverage:
    """How well the rounded anchors cover the boxes of a split.

    The anchors are at their real positions: on the grid of their level, after the model's resize.

    Args:
        model: anchors and image sizes.
        table: annotations; crowds are ignored.
    """
    iou = best_ious(model, table)
    if not len(iou):
        return Coverage(0.0, 0.0, 0.0)
    return Coverage(float((iou >= 0.5).mean()), float((iou >= 0.7).mean()), float(iou.mean()))


def best_ious(model: ModelConfig, table: Table) -> NDArray[np.float32]:
    """The IoU of each box with its best anchor, float32 [num_boxes], without crowds.

    Among anchors of one shape, the one with the nearest centre overlaps most, so only this one is measured.

    Source:
        torchvision `AnchorGenerator.grid_anchors` and `GeneralizedRCNNTransform.resize`.
    """
    image = np.repeat(np.arange(len(table.image_ids)), np.diff(table.box_start))[~table.crowds]
    resized = resized_sizes(model, table.sizes)
    padded = -(-resized // SIZE_DIVISIBLE) * SIZE_DIVISIBLE
    ratio = (resized / table.sizes).astype(np.float32)[image]
    boxes = table.boxes[~table.crowds]
    low = [np.ascontiguousarray(boxes[:, axis] * ratio[:, axis]) for axis in (0, 1)]
    high = [np.ascontiguousarray(boxes[:, axis + 2] * ratio[:, axis]) for axis in (0, 1)]
    area = (high[0] - low[0]) * (high[1] - low[1])
    best = np.zeros(len(boxes), dtype=np.float32)
    for level, shapes in enumerate(anchors_of(model)):
        grid = padded // STRIDES[level] if level < NUM_LEVELS - 1 else -(-(padded // STRIDES[-1]) // 2)
        stride, last = (padded // grid).astype(np.float32), (grid - 1).astype(np.float32)
        place = []
        for axis in (0, 1):
            step = stride[image, axis]
            nearest = np.rint((low[axis] + high[axis]) / (2 * step))
            place.append(np.clip(nearest, 0, last[image, axis]) * step)
        for shape in shapes:
            inter = np.ones(len(boxes), dtype=np.float32)
            for axis in (0, 1):
                reach = np.minimum(high[axis], place[axis] + shape[axis + 2])
                reach -= np.maximum(low[axis], place[axis] + shape[axis])
                inter *= np.maximum(reach, 0, out=reach)
            union = area + (shape[2] - shape[0]) * (shape[3] - shape[1]) - inter
            np.maximum(best, inter / union, out=best)
    return best


def resized_sizes(model: ModelConfig, sizes: NDArray[np.integer], factor: float = 1.0) -> NDArray[np.int64]:
    """Width and height of images after the model's resize, int64 [num_images, 2].

    Args:
        model: the sizes.
        sizes: width and height of each image before.
        factor: multiplies the sizes of the model.

    Source:
        torchvision `GeneralizedRCNNTransform`: a fixed size is used as it is; otherwise the shortest side becomes
        `min_size`, or less if the longest side would exceed `max_size`; fractions of a pixel are cut off. A side that
        would become 0, for which torchvision fails, becomes 1.
    """
    if model.fixed_size is not None:
        return np.full((len(sizes), 2), round(model.fixed_size * factor), dtype=np.int64)
    scale = factor * np.minimum(model.min_size / sizes.min(axis=1), model.max_size / sizes.max(axis=1))
    return np.asarray(np.maximum(np.floor(sizes * scale[:, None]), 1), dtype=np.int64)
