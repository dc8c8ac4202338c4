"""Images with boxes, and a counter of operations, for tests of the detector."""

from collections import Counter

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


class Counting(TorchDispatchMode):
    """Counts the ATen operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen[str(function.overloadpacket)] += 1
        return function(*args, **(kwargs or {}))

    @property
    def total(self):
        return sum(self.seen.values())

    @property
    def waits(self):
        """Operations whose result decides what the CPU does next."""
        return sum(self.seen[name] for name in ("aten.nonzero", "aten._local_scalar_dense", "torchvision.nms"))
