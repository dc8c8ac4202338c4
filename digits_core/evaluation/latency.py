"""How long a model needs for an image on its device."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from digits_core.data.augment import Sample
from digits_core.data.batches import load_batch
from digits_core.data.cache import Split
from digits_core.evaluation.detect import batches_by_shape, detect_raw
from digits_core.model.detector import BatchDetector

WARM_UP = 3
"""Batches before the time is measured."""

TIMED = {1: 24, 32: 6}
"""Batches whose time is measured, by the number of images in each."""

MOST_SECONDS = 10.0
"""No further batch is measured after this time, except that at least FEWEST are."""

FEWEST = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """The time that a model needs for one image of a batch.

    Attributes:
        milliseconds: the median over the batches.
        low, high: the quartiles.
    """

    milliseconds: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The distance of the quartiles as a share of the median."""
        return (self.high - self.low) / self.milliseconds


def measure_latency(
    model: BatchDetector,
    split: Split,
    batch_size: int,
    *,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> Latency:
    """Measure the detection of images that are decoded already: resize, model, and raw detections on the CPU.

    On a CPU it is the processor time of one thread, which other processes hardly change. On a GPU it is the elapsed
    time until the result is on the CPU.

    Args:
        model: in evaluation mode on its device.
        split: images; those of a batch have similar shapes.
        batch_size: images of a batch, a key of TIMED.
        dtype: of the forward pass.
        change: preprocessing of each image, as for `evaluate`.
    """
    device = next(model.parameters()).device
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    batches = list(batches_by_shape(split.table.sizes, batch_size))
    chosen = np.linspace(0, len(batches) - 1, WARM_UP + TIMED[batch_size]).round().astype(int).tolist()
    threads = torch.get_num_threads()
    times: list[float] = []
    begun = time.perf_counter()
    try:
        torch.set_num_threads(1)
        for number, index in enumerate(chosen):
            if len(times) >= FEWEST and time.perf_counter() - begun > MOST_SECONDS:
                break
            batch = load_batch(split, batches[index], device, change)
            start = clock()
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                detect_raw(model, batch)
            if number >= WARM_UP:
                times.append(1000 * (clock() - start) / len(batch))
    finally:
        torch.set_num_threads(threads)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
    return Latency(middle, low, high)
