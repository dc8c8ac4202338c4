"""Estimated epochs, time, disk and memory of a search, from a few training steps in a separate process."""

import contextlib
import dataclasses
import hashlib
import json
import math
import platform
from pathlib import Path

from digits_core.command import version_of
from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import cache_root
from digits_core.files import read_text
from search.defaults import GRACE_EPOCHS, MEDIAN_MIN_TRIALS, REDUCTION_FACTOR
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
        epochs: expected epochs of all trainings, within the time budget.
        seconds: expected time after the start, within the time budget.
        most_seconds: time if the scheduler stops no trial, within the time budget.
        disk_bytes: largest size of the run folder.
        memory_bytes: memory of all slots together.
    """

    epochs: float
    seconds: float
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
        scheduler: the early-stopping rule.
        longer: epochs by which trainings of before are extended.
        budget_s: seconds after which the search ends; None has no limit.
    """

    trials: int
    further: int
    epochs: int
    images: int
    valid_images: int
    slots: int
    keep: int
    scheduler: str
    longer: int = 0
    budget_s: float | None = None

    @property
    def most_trainings(self) -> int:
        """The maximum number of trainings."""
        return self.trials + self.further

    @property
    def most_epochs(self) -> int:
        """The maximum number of epochs of all trainings."""
        return self.most_trainings * self.epochs + self.longer

    @property
    def expected_epochs(self) -> float:
        """The expected number of epochs of all trainings, without the time budget."""
        searched = expected_epochs(self.scheduler, self.trials, self.epochs)
        return searched + self.further * self.epochs + self.longer


def measure(training: Training, *, threads: int) -> Speed:
    """Train and evaluate for a few steps in a separate process; the result is kept for `measured`.

    Args:
        training: what to train.
        threads: CPU threads of a slot.

    Raises:
        UsageError: the training failed.
    """
    from results.tables.parquet import write_text

    speed = Speed(**Child("search.machine.cost", training, threads=threads).result())
    with contextlib.suppress(OSError):  # without it, a search only knows its epochs in advance
        path = _speed_file(training, threads)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(dataclasses.asdict(speed)))
    return speed


def measured(training: Training, *, threads: int) -> Speed | None:
    """The speed of the last `measure` of the same training on this machine; None if there is none."""
    try:
        speed = Speed(**json.loads(read_text(_speed_file(training, threads))))
        return speed if min(speed.train_per_second, speed.eval_per_second) > 0 else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _speed_file(training: Training, threads: int) -> Path:
    """Where the measured speed of a training is kept."""
    known = [training.config.to_flat(), training.fingerprint, training.device, threads, platform.node()]
    known += [version_of("torch")]
    return cache_root() / "speed" / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.json"


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
    budget = math.inf if work.budget_s is None else work.budget_s
    model = speed.num_parameters * PARAMETER_BYTES
    # A checkpoint to resume from contains the model, two moments of the optimiser and the best epoch's model; the last
    # one is deleted only after the next is written.
    disk = work.slots * 2 * 4 * model + (work.keep + work.slots) * model
    disk += work.most_trainings * work.valid_images * TABLE_BYTES_PER_IMAGE
    return Cost(
        min(work.expected_epochs, budget * work.slots / epoch_seconds),
        min(work.expected_epochs * epoch_seconds / work.slots, budget),
        min(work.most_epochs * epoch_seconds / work.slots, budget),
        disk,
        work.slots * speed.peak_memory_bytes,
    )


def expected_epochs(scheduler: str, trials: int, epochs: int) -> float:
    """The expected number of epochs of the trials of a search.

    With `asha`, the first trial at a rung continues, and each later one with probability 1/2, because its score is
    above the median of those before it; this assumes that later trials are not better. With `median`, the first trials
    are whole, because there is nothing to compare them with; the later ones took 1 epoch and a third of the others on
    66 stored trainings.

    Args:
        scheduler: the early-stopping rule.
        trials: configurations to train.
        epochs: epochs of a full training.
    """
    if scheduler == "median":
        whole = min(trials, MEDIAN_MIN_TRIALS)
        return whole * epochs + (trials - whole) * min(1 + epochs / 3, epochs)
    total, left, rung = 0.0, float(trials), GRACE_EPOCHS
    for epoch in range(1, epochs + 1):
        total += left
        if epoch == rung and scheduler == "asha" and trials:
            left, rung = 1 + (left - 1) / REDUCTION_FACTOR, rung * REDUCTION_FACTOR
    return total


def hours_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`: an estimate, so at most two digits."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_measure())))
