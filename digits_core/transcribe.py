"""Detections of one image to the whole number (numpy)."""

import numpy as np
from numpy.typing import NDArray

from digits_core.labels import digit_of

NO_NUMBER = "-1"
"""What Task 2 wants where no digit is found."""


def read_number(boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> str:
    """Read digits from left to right by the centres of their boxes.

    Args:
        boxes: float32 [num, 4], xyxy.
        labels: int64 [num], category ids 1..10.

    Returns:
        The number as text, leading zeros kept; `-1` when there is no digit.
    """
    if not len(boxes):
        return NO_NUMBER
    order = np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")
    return "".join(str(digit_of(int(label))) for label in labels[order])
