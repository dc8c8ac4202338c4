"""Images with boxes, a small training, and a counter of operations, for tests of the detector."""

from collections import Counter
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from digits_core.config.train_config import TrainConfig
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


SETTINGS = {
    "model.weights": "none",
    "model.min_size": 32,
    "model.max_size": 128,
    "model.anchor_sizes": "8,12,16,24,32",
    "optim.epochs": 1,
    "optim.batch_size": 4,
}


def config_of(**flat):
    """One epoch of a small training from random weights, with other parameters changed."""
    return TrainConfig.from_flat(SETTINGS | flat)


WAITS = (
    "aten.nonzero",
    "aten._local_scalar_dense",
    "aten.masked_select",
    "aten.repeat_interleave",
    "aten._unique2",
    "aten.bincount",
    "torchvision.nms",
    "Tensor.tolist",
    "index by bool",
)
"""Operations whose result decides what the CPU does next, or how many rows a tensor has."""


class Counting(TorchDispatchMode):
    """Counts the ATen operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()
        self.total = 0

    def __enter__(self):
        def tolist(tensor):
            self.seen["Tensor.tolist"] += 1
            return before(tensor)

        before = torch.Tensor.tolist
        self._patch = mock.patch.object(torch.Tensor, "tolist", tolist)
        self._patch.start()
        return super().__enter__()

    def __exit__(self, *error):
        self._patch.stop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function.overloadpacket)
        if name == "aten.index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            name = "index by bool"
        self.seen[name] += 1
        self.total += 1
        return function(*args, **(kwargs or {}))

    @property
    def waits(self):
        """Operations that would make the CPU wait for a GPU."""
        return sum(self.seen[name] for name in WAITS)
