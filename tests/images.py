"""Images with boxes, for tests of the detector."""

import numpy as np
import torch

from digits_core.data.augment import Sample
from digits_core.data.batches import pack


def sample_of(width, height, boxes=(), seed=0):
    """An image of random pixels; `boxes` are pairs of corners (xyxy) and label."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows = np.array([box for box, _ in boxes], dtype=np.float32).reshape(-1, 4)
    return Sample(pixels, rows, np.array([label for _, label in boxes], dtype=np.int64))


def packed(*samples):
    """A batch on the CPU."""
    return pack(samples, torch.device("cpu"))


SCENE = (
    sample_of(90, 40, [([5, 6, 20, 30], 3), ([30, 8, 45, 33], 7)], 1),
    sample_of(64, 33, [], 2),
    sample_of(64, 64, [([10, 10, 40, 60], 1)], 3),
)
"""Three images of different shapes: two boxes, none, and one."""
