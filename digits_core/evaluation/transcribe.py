"""Combines the detections of an image into its number (numpy)."""

import itertools

import numpy as np
from numpy.typing import NDArray

from digits_core.labels import digit_of

NO_NUMBER = "-1"
"""The answer of Task 2 for an image without digits."""

STACKED_SHARE = 0.5
"""Digits are one above the other if their centres differ horizontally by less than this share of their mean width."""


def read_number(boxes: NDArray[np.float32], labels: NDArray[np.int64], reading: str = "left_to_right") -> str:
    """Read the digits of one image.

    Args:
        boxes: float32 [num, 4], xyxy.
        labels: int64 [num], category ids 1..10.
        reading: `left_to_right` or `main_axis`, see `reading_order`.

    Returns:
        The number as text with leading zeros; `-1` if there are no digits.
    """
    image = np.zeros(len(boxes), dtype=np.int64)
    return numbers_of(1, image, labels[reading_order(image, boxes, reading)])[0]


def numbers_of(num_images: int, image: NDArray[np.int64], labels: NDArray[np.int64]) -> list[str]:
    """The number of each image from its labels in reading order; `image` is int64 [num], ascending."""
    ends = np.searchsorted(image, np.arange(num_images + 1))
    return [
        "".join(str(digit_of(label)) for label in labels[begin:end].tolist()) or NO_NUMBER
        for begin, end in itertools.pairwise(ends)
    ]


def reading_order(
    image: NDArray[np.int64], boxes: NDArray[np.float32], reading: str = "left_to_right"
) -> NDArray[np.int64]:
    """The order in which the digits of many images are read, image after image.

    Args:
        image: int64 [num], ascending.
        boxes: float32 [num, 4], xyxy.
        reading: `left_to_right`, by the centres of the boxes; or `main_axis`, along the line through the centres, to
            the right, or from top to bottom if the digits are one above the other.

    Returns:
        int64 [num], indices; boxes with the same position keep their order.
    """
    place = (boxes[:, 0] + boxes[:, 2]).astype(np.float64)
    if reading == "main_axis":
        ends = np.flatnonzero(np.diff(image, prepend=-1, append=image[-1] + 1 if len(image) else -1))
        for begin, end in itertools.pairwise(ends):
            if end - begin > 1:
                place[begin:end] = _along_main_axis(boxes[begin:end])
    return np.lexsort((place, image))


def _along_main_axis(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """The position of each box of one image along the line through all centres, float64 [num].

    Source:
        the first principal axis of the centres (Pearson 1901).
    """
    centres = (boxes[:, :2] + boxes[:, 2:]).astype(np.float64) / 2
    spread = centres - centres.mean(axis=0)
    axis = np.linalg.eigh(spread.T @ spread)[1][:, -1]
    stacked = np.ptp(centres[:, 0]) < STACKED_SHARE * (boxes[:, 2] - boxes[:, 0]).mean()
    if stacked and abs(axis[1]) > abs(axis[0]):
        axis = axis * np.sign(axis[1])
    elif axis[0] < 0:
        axis = -axis
    return np.asarray(spread @ axis)
