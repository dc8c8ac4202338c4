"""Box voting: raw detections of one object become their mean (numpy)."""

import dataclasses

import numpy as np

from digits_core.evaluation.matching import Candidates, chunks, self_iou


def with_merged_boxes(found: Candidates, iou: float) -> Candidates:
    """The same detections, each with the mean, weighted by score, of the boxes of its class and image around it.

    All raw detections are used, so it is computed before NMS, once for all thresholds. Scores do not change.

    Args:
        found: raw detections.
        iou: the smallest overlap with another box that is averaged.

    Source:
        Gidaris and Komodakis 2015, Object detection via a multi-region and semantic segmentation-aware CNN model,
        section 4 (bounding box voting), there after NMS.
    """
    boxes = found.boxes.copy()
    for rows, inside in chunks(found):
        some, labels = found.boxes[rows], found.labels[rows]
        alike = self_iou(some) >= iou
        alike |= np.eye(rows.shape[1], dtype=bool)  # a box without area overlaps with nothing
        alike &= (labels[:, :, None] == labels[:, None, :]) & inside[:, None, :]
        share = alike * np.where(inside, found.scores[rows], 0)[:, None, :].astype(np.float64)
        mean = share @ some.astype(np.float64) / np.maximum(share.sum(axis=2), 1e-300)[:, :, None]
        boxes[rows[inside]] = mean[inside]
    return dataclasses.replace(found, boxes=boxes)
