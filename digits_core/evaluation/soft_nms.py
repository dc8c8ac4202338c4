"""Soft-NMS: overlapping boxes lose score instead of being dropped (numpy)."""

import dataclasses

import numpy as np

from digits_core.evaluation.matching import Candidates, chunks, self_iou


def with_soft_scores(found: Candidates, sigma: float) -> Candidates:
    """The same boxes with the scores of Soft-NMS, sorted again.

    The best box of an image keeps its score. Each other box of its class is multiplied by exp(-IoU² / sigma). The
    best of the rest is next, and so on. No box is dropped; a score threshold does that afterwards.

    Args:
        found: raw detections.
        sigma: width of the Gaussian; a smaller one lowers scores more.

    Source:
        Bodla et al. 2017, Soft-NMS: improving object detection with one line of code, equation 4 (there 0.5).
    """
    scores = found.scores.astype(np.float64)
    for rows, inside in chunks(found):
        labels, now = found.labels[rows], np.where(inside, found.scores[rows].astype(np.float64), -1.0)
        factor = np.exp(-(self_iou(found.boxes[rows]).astype(np.float64) ** 2) / sigma)
        factor[labels[:, :, None] != labels[:, None, :]] = 1.0
        left, image = inside.copy(), np.arange(len(rows))
        for _ in range(rows.shape[1] - 1):
            best = np.where(left, now, -1.0).argmax(axis=1)
            left[image, best] = False
            now = np.where(left, now * factor[image, best], now)
        scores[rows[inside]] = now[inside]
    order = np.lexsort((-scores, found.image))
    return dataclasses.replace(
        found,
        boxes=found.boxes[order],
        scores=scores[order].astype(np.float32),
        labels=found.labels[order],
    )
