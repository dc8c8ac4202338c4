"""Which anchors or proposals belong to a box, and which of them a loss uses, for all images of a batch at once.

On a GPU nothing here makes the CPU wait: a sample has the same number of rows for every image, and a mask says which
of them are used.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from digits_core.devices import must_not_wait
from digits_core.model.boxes import pairwise_iou

MOST_IOUS = 2**25
"""Overlaps that are computed together; a batch with more is computed in parts of whole images."""

MOST_PADDING = 256
"""Rows of padding that are compared on a CPU rather than in a further part."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What anchors or proposals are, by their overlap with the annotated boxes.

    Attributes:
        foreground, background: bool [images, num]; neither for those that are ignored.
        box: int64 [images, num]: the annotated box with the largest overlap.
    """

    foreground: Tensor
    background: Tensor
    box: Tensor


def assign(
    boxes: Tensor,
    real: Tensor,
    others: Tensor,
    *,
    foreground_iou: float,
    background_iou: float,
    best_of_each_box: bool,
) -> Assignment:
    """Compare anchors or proposals with the annotated boxes of their images.

    Args:
        boxes: [images, boxes, 4], xyxy.
        real: bool [images, boxes]; False for padding, which is at the end.
        others: [images or 1, num, 4], anchors or proposals, xyxy.
        foreground_iou: overlap from which they are foreground.
        background_iou: overlap below which they are background.
        best_of_each_box: those with the largest overlap with a box, ties included, are foreground even if the overlap
            is small, so that every box has an anchor.

    Source:
        torchvision `Matcher`; images without boxes as in `RegionProposalNetwork.assign_targets_to_anchors`.
    """
    thresholds = foreground_iou, background_iou
    parts = _parts(real, others.shape[1])
    if len(parts) == 1:
        return Assignment(*_assign(boxes, real, others, *thresholds, best_of_each_box))
    found = [
        _assign(boxes[part, :end], real[part, :end], other, *thresholds, best_of_each_box)
        for part, end in parts
        for other in [others if len(others) == 1 else others[part]]
    ]
    return Assignment(*map(torch.cat, zip(*found, strict=True)))


def _parts(real: Tensor, num: int) -> list[tuple[slice, int]]:
    """Images that are compared together, and how many boxes they have at most.

    A CPU compares images with few boxes apart from those with many, because padding would cost time.

    Args:
        real: bool [images, boxes].
        num: anchors or proposals of an image.
    """
    images, most = real.shape
    counts = [most] * images if must_not_wait(real.device) else real.sum(1).clamp(min=1).tolist()
    parts: list[tuple[slice, int]] = []
    first = 0
    for end in range(1, images + 1):
        size = (end + 1 - first) * max(counts[first : end + 1])
        if end == images or size * num > MOST_IOUS or size > 2 * sum(counts[first : end + 1]) + MOST_PADDING:
            parts.append((slice(first, end), max(counts[first:end])))
            first = end
    return parts


def _assign(
    boxes: Tensor, real: Tensor, others: Tensor, foreground_iou: float, background_iou: float, best_of_each_box: bool
) -> tuple[Tensor, Tensor, Tensor]:
    quality = pairwise_iou(boxes, others).masked_fill_(~real[:, :, None], -1.0)
    best, box = quality.max(dim=1)
    foreground, background = best >= foreground_iou, best < background_iou
    if best_of_each_box:
        reached = quality == quality.amax(dim=2, keepdim=True)
        low = (reached & real[:, :, None]).any(dim=1)
        foreground, background = foreground | low, background & ~low
    return foreground, background, box


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random sample of the anchors or proposals of each image, foreground first.

    Attributes:
        rows: int64 [images, most]: their row indices.
        used: bool [images, most]: False for padding of images with too few.
        foreground: bool [images, most].
    """

    rows: Tensor
    used: Tensor
    foreground: Tensor


def draw(found: Assignment, count: int, positive_fraction: float, keys: Tensor) -> Drawn:
    """Sample without replacement, each subset with the same probability: at most `count` from each image.

    At most `count * positive_fraction` of them are foreground; the rest is background.

    Args:
        found: from `assign`.
        count: the largest sample of one image.
        positive_fraction: the largest share of foreground.
        keys: random numbers [images, num] in [0, 1); the smallest ones are taken.

    Source:
        torchvision `BalancedPositiveNegativeSampler`.
    """
    total = keys.shape[1]
    count, most = min(count, total), min(int(count * positive_fraction), total)
    order = torch.where(found.background, keys, 2.0)
    if most:
        first, rows = torch.where(found.foreground, keys, 2.0).topk(most, largest=False)
        # A drawn foreground gets a negative key, so that it comes before every background.
        order = order.scatter(1, rows, torch.where(first < 1, first - 1, order.gather(1, rows)))
    chosen, rows = order.topk(count, largest=False)
    return Drawn(rows, chosen < 1, chosen < 0)


def expected(found: Assignment, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """The probability with which `draw` takes each row, and the size of its sample.

    Returns:
        float32 [images, num], and the number of rows that are drawn from all images together, float32.
    """
    most = int(count * positive_fraction)
    foreground, background = found.foreground.sum(1, keepdim=True), found.background.sum(1, keepdim=True)
    positive = foreground.clamp(max=most)
    negative = torch.minimum(background, count - positive)
    chance = found.foreground * (positive / foreground.clamp(min=1)) + found.background * (
        negative / background.clamp(min=1)
    )
    return chance, (positive + negative).sum().float()
