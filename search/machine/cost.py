"""What a search will cost, by a few training steps on this machine, in a process of their own."""

import dataclasses
import json

from digits_core.config.train_config import TrainConfig
from digits_core.data.source import DataSource
from search.defaults import GRACE_EPOCHS, REDUCTION_FACTOR
from search.machine.subprocesses import Child, read_asked

STEPS = 6
"""Optimiser steps of each of the two measured epochs; the first one warms up."""

VALID_IMAGES = 64

TABLE_BYTES_PER_IMAGE = 1200
"""What match tables and bootstraps take of a trial, for each validation image; about what real ones do."""

PARAMETER_BYTES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """What one slot does.

    Attributes:
        train_per_second: training images.
        eval_per_second: validation images.
        peak_memory_bytes: of its process (on a GPU, of the GPU).
        num_parameters: of the model.
    """

    train_per_second: float
    eval_per_second: float
    peak_memory_bytes: int
    num_parameters: int


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """A guess at what a search takes.

    Attributes:
        least_seconds: if the scheduler stops as many as it can.
        most_seconds: if it stops nothing.
        disk_bytes: of the run folder at its largest.
        memory_bytes: of all slots together.
    """

    least_seconds: float
    most_seconds: float
    disk_bytes: int
    memory_bytes: int


def measure(config: TrainConfig, source: DataSource, fingerprint: str, *, threads: int, device: str) -> Speed:
    """Train and evaluate a little, in a process of its own.

    Args:
        config: a setting of the search.
        source: its data.
        fingerprint: of the data.
        threads: CPU threads of a slot.
        device: `auto` or `cpu`.

    Raises:
        UsageError: the training failed.
    """
    child = Child("search.machine.cost", config, source, fingerprint, threads=threads, device=device)
    return Speed(**child.result())


def _measure() -> Speed:
    import numpy as np

    from digits_core.training.reports import EpochReport
    from digits_core.training.train import train

    config, data, device = read_asked()
    some = np.arange(min(VALID_IMAGES, len(data.valid)))
    short = {"optim.epochs": 2, "data.images_per_epoch": STEPS * config.optim.batch_size, "optim.stages": None}
    reports: list[EpochReport] = []
    train(
        TrainConfig.from_flat({**short, "runtime.train_sample": 0}, config),
        dataclasses.replace(data, valid=data.valid.some(some, "valid")),
        reports.append,
        device=device,
    )
    last = reports[-1]
    return Speed(
        last.metrics.images_per_second,
        len(some) / max(last.metrics.eval_seconds, 1e-6),
        last.metrics.peak_memory_bytes or 0,
        int(str(last.model["num_parameters"])),
    )


def cost_of(
    speed: Speed,
    *,
    trials: int,
    further: int,
    epochs: int,
    images: int,
    valid_images: int,
    slots: int,
    keep: int,
    stops: bool,
) -> Cost:
    """A guess at what a search takes.

    Args:
        speed: of one slot.
        trials: settings to train.
        further: trainings after the search, each to its end.
        epochs: of a whole training.
        images: training images of an epoch.
        valid_images: evaluated after each.
        slots: trials side by side.
        keep: checkpoints that stay.
        stops: whether the weak are stopped by successive halving.
    """
    epoch_seconds = images / speed.train_per_second + valid_images / speed.eval_per_second
    most = (trials + further) * epochs
    least = trials * (least_epochs(epochs) if stops else epochs) + further * epochs
    model = speed.num_parameters * PARAMETER_BYTES
    # A checkpoint to go on from holds the model, two moments of the optimiser and the best epoch's model; while one is
    # written the one before it is still there.
    disk = slots * 2 * 4 * model + (keep + slots) * model
    disk += (trials + further) * valid_images * TABLE_BYTES_PER_IMAGE
    return Cost(least * epoch_seconds / slots, most * epoch_seconds / slots, disk, slots * speed.peak_memory_bytes)


def least_epochs(epochs: int) -> float:
    """Epochs of a setting on average where each rung of ASHA lets no more than its share go on."""
    total, share, rung = 0.0, 1.0, GRACE_EPOCHS
    for epoch in range(1, epochs + 1):
        total += share
        if epoch == rung:
            share, rung = share / REDUCTION_FACTOR, rung * REDUCTION_FACTOR
    return total


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_measure())))
