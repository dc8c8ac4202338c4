"""Estimated time, disk and memory of a search, from a few training steps in a separate process."""

import dataclasses
import json

from digits_core.config.train_config import TrainConfig
from search.defaults import GRACE_EPOCHS, REDUCTION_FACTOR
from search.machine.subprocesses import Child, Training, read_request

STEPS = 6
"""Optimiser steps of each of the two short epochs; the first epoch is the warm-up."""

VALID_IMAGES = 64

TABLE_BYTES_PER_IMAGE = 1200
"""Approximate size of a trial's match tables and bootstraps, per validation image."""

PARAMETER_BYTES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Speed:
    """The measured speed of one slot.

    Attributes:
        train_per_second: training images per second.
        eval_per_second: validation images per second.
        peak_memory_bytes: peak memory of the process (on a GPU, of the GPU).
        num_parameters: parameters of the model.
    """

    train_per_second: float
    eval_per_second: float
    peak_memory_bytes: int
    num_parameters: int


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """The estimated cost of a search.

    Attributes:
        least_seconds: time if the scheduler stops as many trials as it can.
        most_seconds: time if it stops none.
        disk_bytes: largest size of the run folder.
        memory_bytes: memory of all slots together.
    """

    least_seconds: float
    most_seconds: float
    disk_bytes: int
    memory_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """How much a search trains.

    Attributes:
        trials: configurations to train.
        further: trainings after the search; none of them is stopped early.
        epochs: epochs of a full training.
        images: training images of an epoch.
        valid_images: validation images, evaluated after each epoch.
        slots: trials that run at the same time.
        keep: checkpoints that are kept.
        stops: whether successive halving stops trials.
    """

    trials: int
    further: int
    epochs: int
    images: int
    valid_images: int
    slots: int
    keep: int
    stops: bool

    @property
    def most_trainings(self) -> int:
        """The maximum number of trainings."""
        return self.trials + self.further

    @property
    def most_epochs(self) -> int:
        """The maximum number of epochs of all trainings."""
        return self.most_trainings * self.epochs


def measure(training: Training, *, threads: int) -> Speed:
    """Train and evaluate for a few steps in a separate process.

    Args:
        training: what to train.
        threads: CPU threads of a slot.

    Raises:
        UsageError: the training failed.
    """
    return Speed(**Child("search.machine.cost", training, threads=threads).result())


def _measure() -> Speed:
    import numpy as np

    from digits_core.training.reports import EpochReport
    from digits_core.training.train import train

    config, data, device = read_request()
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


def cost_of(speed: Speed, work: Workload) -> Cost:
    """Estimate the cost of a search from the speed of one slot."""
    epoch_seconds = work.images / speed.train_per_second + work.valid_images / speed.eval_per_second
    least = work.trials * (least_epochs(work.epochs) if work.stops else work.epochs) + work.further * work.epochs
    model = speed.num_parameters * PARAMETER_BYTES
    # A checkpoint to resume from contains the model, two moments of the optimiser and the best epoch's model; the last
    # one is deleted only after the next is written.
    disk = work.slots * 2 * 4 * model + (work.keep + work.slots) * model
    disk += work.most_trainings * work.valid_images * TABLE_BYTES_PER_IMAGE
    return Cost(
        least * epoch_seconds / work.slots,
        work.most_epochs * epoch_seconds / work.slots,
        disk,
        work.slots * speed.peak_memory_bytes,
    )


def least_epochs(epochs: int) -> float:
    """The average epochs of a trial when each rung of ASHA lets only its share of the trials continue."""
    total, share, rung = 0.0, 1.0, GRACE_EPOCHS
    for epoch in range(1, epochs + 1):
        total += share
        if epoch == rung:
            share, rung = share / REDUCTION_FACTOR, rung * REDUCTION_FACTOR
    return total


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_measure())))
