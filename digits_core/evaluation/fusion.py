"""Weighted boxes fusion: merges the raw detections of several models for the same images (numpy)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.data.coco import starts_of
from digits_core.evaluation.matching import Candidates, iou_of

MAX_MODELS = 64
"""Models of one fusion: each has a bit of a word."""

CHUNK_ELEMENTS = 100_000
"""Fused boxes that are in memory together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """The parameters of a fusion.

    Attributes:
        iou: a box joins a fused box of its class if their IoU is above it.
        floor: the models' detections with a score above it are fused.
    """

    iou: float
    floor: float

    def __post_init__(self) -> None:
        """Check both values.

        Raises:
            ValueError: a value is outside its limits.
        """
        for name, value in (("iou", self.iou), ("floor", self.floor)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value:g}")


def fuse(found: Sequence[Candidates], weights: Sequence[float], iou: float) -> Candidates:
    """One set of detections from those of several models.

    The boxes of all models are processed in the order of their scores. A box joins the fused box of its class and image
    with which it has the highest IoU, if that is above `iou`; otherwise it becomes a new fused box. The coordinates of
    a fused box are the mean of its boxes, weighted by score and model. Its score is the weighted mean over all models
    of each model's best score in it; a model without a box in it counts as 0, so that a box found by few models has a
    low score. Raw detections contain several boxes of a model for one object, so a model's worse boxes move the fused
    box but do not lower its score.

    Args:
        found: raw detections of each model, all for the same images; at most MAX_MODELS.
        weights: of each model.
        iou: the threshold.

    Returns:
        Boxes in pixels of the original image (`scale` is 1), because the models can resize images differently.

    Raises:
        ValueError: no models, too many, or not the same number of images.

    Source:
        Solovyev, Wang and Gabruseva 2019, Weighted boxes fusion: ensembling boxes from different object detection
        models. With one box per model and object, the score is the paper's: the mean of the scores times the share of
        the models that found the object.
    """
    if not 0 < len(found) <= MAX_MODELS or len({len(one.start) for one in found}) > 1 or len(weights) != len(found):
        raise ValueError("needs 1 to 64 models with a weight each, and the same images for all of them")
    image = np.concatenate([one.image for one in found])
    labels = np.concatenate([one.labels for one in found])
    scores = np.concatenate([one.scores for one in found]).astype(np.float64)
    boxes = np.concatenate([one.original_boxes for one in found]).astype(np.float64)
    model = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
    weight = np.asarray(weights, dtype=np.float64)[model]
    group = image * (int(labels.max(initial=0)) + 1) + labels
    order = np.lexsort((-scores, group))  # stable: equal scores in the order of the models
    every = _Boxes(boxes[order], scores[order], weight[order], model[order])
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")
    parts = [(np.zeros(0, np.intp), np.zeros((0, 4)), np.zeros(0))]
    at = 0
    while at < len(largest):
        some = largest[at : at + max(1, CHUNK_ELEMENTS // int(counts[largest[at]]))]
        at += len(some)
        which, fused, score = _fuse_groups(every, first[some], counts[some], iou)
        parts.append((order[first[some]][which], fused, score))
    row, fused, score = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _candidates(image[row], labels[row], fused, score / sum(weights), len(found[0].start) - 1)


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Boxes of all models, by group (one class in one image) and then by score, best first."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    weight: NDArray[np.float64]
    model: NDArray[np.int64]


def _fuse_groups(
    every: _Boxes, first: NDArray[np.intp], counts: NDArray[np.intp], iou: float
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Fuse the boxes of some groups, one box of each group at a time.

    Args:
        every: the boxes.
        first: where each group begins.
        counts: boxes of each group, descending.
        iou: the threshold.

    Returns:
        For each fused box its group, coordinates, and score times the sum of the models' weights.
    """
    shape = (len(counts), int(counts[0]))
    sums, mass, score = np.zeros((*shape, 4)), np.zeros(shape), np.zeros(shape)
    seen = np.zeros(shape, dtype=np.uint64)
    used = np.zeros(len(counts), dtype=np.intp)
    for rank in range(int(counts[0])):
        active = int(np.searchsorted(-counts, -rank, side="left"))  # groups with more than `rank` boxes
        rows, width = first[:active] + rank, max(int(used[:active].max()), 1)
        box, each = every.boxes[rows], np.arange(active)
        fused = sums[:active, :width] / np.maximum(mass[:active, :width, None], 1e-300)
        overlap = np.where(np.arange(width) < used[:active, None], iou_of(fused, box[:, None]), -1)
        best = overlap.argmax(axis=1)
        place = np.where(overlap[each, best] > iou, best, used[:active])
        share = every.weight[rows] * every.scores[rows]
        sums[each, place] += share[:, None] * box
        mass[each, place] += share
        bit = np.uint64(1) << every.model[rows].astype(np.uint64)
        score[each, place] += np.where(seen[each, place] & bit, 0, share)
        seen[each, place] |= bit
        used[:active] = np.maximum(used[:active], place + 1)
    which, column = np.nonzero(np.arange(shape[1]) < used[:, None])
    return which, sums[which, column] / mass[which, column, None], score[which, column]


def _candidates(
    image: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    num_images: int,
) -> Candidates:
    """Fused boxes by image and then by score, best first; equal scores by label."""
    order = np.lexsort((labels, -scores, image))
    counts = np.bincount(image, minlength=num_images)
    return Candidates(
        starts_of(counts),
        boxes[order].astype(np.float32),
        scores[order].astype(np.float32),
        labels[order],
        np.ones((num_images, 4), np.float32),
    )
