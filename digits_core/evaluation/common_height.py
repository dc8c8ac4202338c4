"""Gives the digits of a number one height, as many annotators draw them (numpy)."""

import dataclasses

import numpy as np

from digits_core.evaluation.matching import Candidates, chunks

MOST_LOG_RATIO = 0.35
"""Boxes are about as tall as another one if the logarithms of their heights differ by less than this."""

MOST_DISTANCE = 0.6
"""They are beside each other if the vertical distance of their centres is less than this many heights."""


def with_common_height(found: Candidates) -> Candidates:
    """The same detections, each as tall as those of its image that are about as tall and beside it.

    A box keeps its centre, left and right side. Its height becomes the mean of the heights of these boxes and its own,
    weighted by their squared scores. It uses all raw detections, so it can be computed before NMS, once for all
    thresholds.

    Args:
        found: raw detections; heights and distances of one image have the same scale, so any pixels do.
    """
    boxes = found.boxes.copy()
    for rows, inside in chunks(found):
        top, bottom = (boxes[rows][:, :, side].astype(np.float64) for side in (1, 3))
        height, centre = np.maximum(bottom - top, 1e-6), (top + bottom) / 2
        weight = np.where(inside, found.scores[rows].astype(np.float64), 0) ** 2
        log = np.log(height)
        alike = np.abs(log[:, :, None] - log[:, None, :]) < MOST_LOG_RATIO
        alike &= np.abs(centre[:, :, None] - centre[:, None, :]) < MOST_DISTANCE * height[:, :, None]
        share = alike * weight[:, None, :]
        common = (share @ height[:, :, None])[:, :, 0] / np.maximum(share.sum(axis=2), 1e-300)
        boxes[rows[inside], 1] = (centre - common / 2)[inside]
        boxes[rows[inside], 3] = (centre + common / 2)[inside]
    return dataclasses.replace(found, boxes=boxes)
