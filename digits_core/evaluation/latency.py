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

WARM_UP = 2
"""Batches before the time is measured."""

TIMED = {1: 24, 32: 5}
"""Batches whose time is measured, by the number of images in each."""

MOST_SECONDS = 20.0
"""No further batch is measured after this time, except that two are."""


@dataclass(frozen=True, slots=True)
class Latency:
    """The time that a model needs for one image of a batch.

    Attributes:
        milliseconds: the median over the batches.
        low: the lower quartile; images of different shapes need different times.
        high: the upper quartile.
        noise: each batch is measured twice: the distance of the quartiles of the second time divided by the first one.
    """

    milliseconds: float
    low: float
    high: float
    noise: float


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
    time until the result is on the CPU. Of the two times of a batch the smaller one counts.

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
    batches = batches[:-1] if len(batches) > 1 and len(batches[-1]) < batch_size else batches
    chosen = np.linspace(0, len(batches) - 1, WARM_UP + TIMED[batch_size]).round().astype(int).tolist()
    threads, begun = torch.get_num_threads(), time.perf_counter()
    times: list[tuple[float, float]] = []

    def detect(index: int) -> float:
        batch = load_batch(split, batches[index], device, change)
        start = clock()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            detect_raw(model, batch)
        return 1000 * (clock() - start) / len(batch)

    try:
        torch.set_num_threads(1)
        for number, index in enumerate(chosen):
            late = time.perf_counter() - begun > MOST_SECONDS
            if late and len(times) > 1:
                break
            if number >= WARM_UP or late:
                times.append((detect(index), detect(index)))
            else:
                detect(index)
    finally:
        torch.set_num_threads(threads)
    both = np.array(times)
    low, middle, high = np.quantile(both.min(axis=1), (0.25, 0.5, 0.75)).tolist()
    ratio = np.quantile(both[:, 1] / both[:, 0], (0.25, 0.75)).tolist()
    return Latency(middle, low, high, ratio[1] - ratio[0])
