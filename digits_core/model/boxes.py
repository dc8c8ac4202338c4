"""Boxes of all images of a batch at once: overlap and the encoding of torchvision's `BoxCoder`."""

import math

import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000.0 / 16)
"""torchvision's limit for the logarithm of a predicted side relative to its anchor or proposal."""


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """The intersection over union of each box with each other box of its image.

    Args:
        boxes: [images, boxes, 4], xyxy.
        others: [images or 1, others, 4], xyxy; with 1, the same boxes for all images.

    Returns:
        [images, boxes, others]; NaN for two boxes without area.

    Source:
        torchvision `box_iou`, in the same order of operations.
    """
    left, top, right, bottom = boxes[:, :, None].unbind(-1)
    other_left, other_top, other_right, other_bottom = others[:, None].unbind(-1)
    width = torch.minimum(right, other_right).sub_(torch.maximum(left, other_left)).clamp_(min=0)
    height = torch.minimum(bottom, other_bottom).sub_(torch.maximum(top, other_top)).clamp_(min=0)
    shared = width.mul_(height)
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    return shared.div_(area.add(other_area).sub_(shared))


def encode(boxes: Tensor, origins: Tensor, weights: tuple[float, ...]) -> Tensor:
    """What a head should predict for boxes, relative to their anchors or proposals.

    Args:
        boxes: [..., 4], xyxy.
        origins: [..., 4], the anchors or proposals, xyxy.
        weights: factors for x, y, width and height.

    Returns:
        [..., 4]; not finite where a side is 0.

    Source:
        torchvision `encode_boxes`.
    """
    corner, end = boxes[..., :2], boxes[..., 2:]
    from_corner, from_end = origins[..., :2], origins[..., 2:]
    side, from_side = end - corner, from_end - from_corner
    move = ((corner + end) - (from_corner + from_end)) * (0.5 * weights[0]) / from_side
    return torch.cat([move, (side / from_side).log() * weights[2]], dim=-1)


def decode(codes: Tensor, origins: Tensor, weights: tuple[float, ...]) -> Tensor:
    """The boxes that a head predicts, in at least float32: half precision rounds coordinates above 128 px.

    Args:
        codes: [..., 4], as `encode` gives them.
        origins: [..., 4], anchors or proposals, xyxy.
        weights: as for `encode`.

    Returns:
        [..., 4], xyxy.

    Source:
        torchvision `BoxCoder.decode_single`.
    """
    codes = codes.to(origins.dtype)
    corner, end = origins[..., :2], origins[..., 2:]
    side = end - corner
    centre = codes[..., :2] / weights[0] * side + (corner + 0.5 * side)
    half = (codes[..., 2:] / weights[2]).clamp(max=LARGEST_LOG_RATIO).exp() * side * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, sides: Tensor) -> Tensor:
    """Boxes [..., 4] moved into their images; `sides` [..., 4] is width, height, width, height of the image of each."""
    return torch.minimum(boxes.clamp(min=0), sides)


def take(boxes: Tensor, rows: Tensor) -> Tensor:
    """Some boxes, or codes, of each image: [images, some, 4] from [images, num, 4] and row indices [images, some]."""
    return boxes.gather(1, rows[:, :, None].expand(-1, -1, 4))
