"""The bootstrap over images: every score of a match table for many resamples (numpy).

A resample is a weight per image. The matches of the detections do not change, so neither the model nor the matching
runs again.
"""

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig
from digits_core.evaluation.matching import IOU_THRESHOLDS
from digits_core.evaluation.metrics import (
    RECALL_THRESHOLDS,
    SCORE_NAMES,
    Curve,
    MatchTable,
    Truth,
    curves,
    digit_counts,
    numbers_right,
)

RESAMPLE_BLOCK = 50
"""Resamples computed together: their cumulative sums fit into the cache of a CPU core."""


def resample_weights(num_images: int, resamples: int, seed: int = 0) -> NDArray[np.int16]:
    """int16 [resamples, num_images]: how often each image is drawn; the same for every trial of a run.

    Source:
        Efron 1979, Bootstrap methods: draws as many images as there are, with replacement.
    """
    generator = np.random.default_rng([seed, num_images])
    shares = np.full(num_images, 1 / num_images)
    return generator.multinomial(num_images, shares, size=resamples).astype(np.int16)


def bootstrap_scores(
    task1: MatchTable, task2: MatchTable, truth: Truth, detect: DetectConfig, weights: NDArray[np.int16]
) -> dict[str, NDArray[np.float64]]:
    """Every score for each resample of the images.

    Returns:
        For each of SCORE_NAMES, float64 [resamples]; NaN if a resample has no digit. Scores that cannot be measured
        for any resample are not included.
    """
    boxes = task1.above(detect.task1.score, detect.task1.max_detections)
    numbers = task2.above(detect.task2.score, detect.task2.max_detections)
    wide = weights.astype(np.int64)  # sums over many images exceed 16 bits
    out = {}
    if truth.numbers:
        right = numbers_right(numbers, truth, detect.reading)
        out["number_accuracy"] = (wide @ right) / wide.sum(axis=1)
    ap = bootstrap_ap(boxes, truth, weights)
    if ap is not None:
        counted = wide @ digit_counts(numbers, truth)
        with np.errstate(invalid="ignore"):
            digits = np.where(wide @ truth.digits > 0, counted[:, 0] / counted[:, 1], np.nan)
        out |= {"map": ap.mean(axis=1), "map_50": ap[:, 0], "map_75": ap[:, 5], "digit_accuracy": digits}
    return {name: out[name] for name in SCORE_NAMES if name in out}


def bootstrap_ap(table: MatchTable, truth: Truth, weights: NDArray[np.int16]) -> NDArray[np.float64] | None:
    """COCO AP of each resample of the images, mean over the classes with digits in the resample.

    Each copy of an image counts as one image; its detections stay next to those of the other copies.

    Args:
        table: detections.
        truth: the annotations.
        weights: int16 [resamples, num_images].

    Returns:
        float64 [resamples, 10]; NaN for a resample without digits. None if there are no digits at all.
    """
    if not len(truth.labels):
        return None
    total = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    classes = np.zeros(len(weights), dtype=np.int64)
    by_image = np.ascontiguousarray(weights.T)
    for curve in curves(table, truth):
        total += _class_bootstrap(curve, by_image)
        classes += by_image[curve.truth_image].any(axis=0)
    with np.errstate(invalid="ignore"):
        return total / classes[:, None]


def _class_bootstrap(curve: Curve, by_image: NDArray[np.int16]) -> NDArray[np.float64]:
    """float64 [resamples, 10]: AP of one class for each resample, 0 if the resample has no digit of the class."""
    resamples = by_image.shape[1]
    out = np.zeros((resamples, len(IOU_THRESHOLDS)))
    if not curve.right.any():
        return out
    plain = bool(curve.counts.all())
    for begin in range(0, resamples, RESAMPLE_BLOCK):
        block = slice(begin, min(begin + RESAMPLE_BLOCK, resamples))
        weight = by_image[:, block][curve.image].astype(np.int32)
        digits = by_image[:, block][curve.truth_image].sum(axis=0, dtype=np.int64)
        table, starts = _recall_table(digits)
        seen = np.cumsum(weight, axis=0) if plain else None
        for level in range(len(IOU_THRESHOLDS)):
            right = np.flatnonzero(curve.right[:, level])
            if not len(right):
                break  # a detection that is right at an IoU is also right at all lower ones
            counted = np.cumsum(weight * curve.counts[:, level, None], axis=0) if seen is None else seen
            hits = np.cumsum(weight[right], axis=0)
            precision = hits / np.maximum(counted[right], 1)
            best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            reached = table[hits + starts]
            reached[1:] -= reached[:-1].copy()
            out[block, level] = np.einsum("nb,nb->b", reached, best)
    return out / len(RECALL_THRESHOLDS)


def _recall_table(digits: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """How many of the 101 recalls n hits reach, n from 0, for all resamples in one table; and where each one starts."""
    lengths = digits + 1
    starts = np.cumsum(lengths) - lengths
    number = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    recall = number / np.maximum(np.repeat(digits, lengths), 1)
    reached = np.searchsorted(RECALL_THRESHOLDS, recall, side="right").astype(np.float32)
    reached[starts] = 0
    return reached, starts
