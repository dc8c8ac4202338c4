"""How many trials share a GPU best: measured by letting more and more of them train on it side by side."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence

from digits_core.config.train_config import TrainConfig
from digits_core.data.source import DataSource
from digits_core.errors import UsageError
from search.machine.subprocesses import Child, read_asked

MOST = 8
"""Trials on one GPU that are tried."""

SECONDS = 4.0
"""That each number of trials is measured for, once all of them have warmed up."""

WARM_STEPS = 6

WARM = "warm"
"""What a training says after them; then it waits for the others."""

WORTH = 1.05
"""A larger number of trials must bring so many times the images."""

ROOM = 0.9
"""Share of a GPU's memory that may be filled: the peak of a few steps is not yet that of a search."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sharing:
    """Some trials on one device.

    Attributes:
        trials: side by side.
        images_per_second: training images of all of them together.
        memory_bytes: that all of them together have taken of the device at most; 0 where it has none of its own.
    """

    trials: int
    images_per_second: float
    memory_bytes: int


def best_sharing(tried: Sequence[Sharing]) -> Sharing:
    """The one to take: the next larger number for as long as it is worth it.

    Args:
        tried: in order of their trials.
    """
    best = tried[0]
    for one in tried[1:]:
        if one.images_per_second >= best.images_per_second * WORTH:
            best = one
    return best


def try_sharing(
    config: TrainConfig,
    source: DataSource,
    fingerprint: str,
    *,
    cores: int,
    cores_each: float | None = None,
    most: int | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> list[Sharing]:
    """Measure 1, 2, 4, ... trials on the first GPU, for as long as they fit and may be worth it.

    Args:
        config: a setting of the search.
        source: its data.
        fingerprint: of the data.
        cores: beside each GPU, which its trials share.
        cores_each: of a trial; None divides them, up to eight.
        most: trials that are to run on one, at most.
        device: `auto`, or `cpu`.
        say: told of each number.

    Raises:
        UsageError: not even one trial trains.
    """
    tried: list[Sharing] = []
    trials, limit = 1, max(1, min(MOST, int(cores // (cores_each or 1)), most or MOST))
    while trials <= limit:
        threads = max(1, int(cores_each or min(8, cores // trials)))
        try:
            found, total = _side_by_side(config, source, fingerprint, trials, threads, device)
        except UsageError:
            if not tried:
                raise
            break  # they do not fit
        tried.append(found)
        say(
            f"{trials} trial{'s' * (trials > 1)} on a GPU: {found.images_per_second:.0f} training images a second"
            + (f", {found.memory_bytes / 2**30:.1f} GB" if found.memory_bytes else "")
        )
        if best_sharing(tried) is not found or (total and 2 * found.memory_bytes > ROOM * total):
            break
        trials *= 2
    return tried


def _side_by_side(
    config: TrainConfig, source: DataSource, fingerprint: str, trials: int, threads: int, device: str
) -> tuple[Sharing, int]:
    """Some trials at once, and the device's whole memory."""
    children = [
        Child("search.machine.sharing", config, source, fingerprint, threads=threads, device=device)
        for _ in range(trials)
    ]
    try:
        for child in children:
            if child.line() != WARM:
                child.result()  # says why
        for child in children:
            child.tell("go")
        outputs = [child.result() for child in children]
    finally:
        for child in children:
            child.kill()
    return (
        Sharing(trials, sum(one["images_per_second"] for one in outputs), max(one["used_bytes"] for one in outputs)),
        max(one["total_bytes"] for one in outputs),
    )


def _train() -> None:
    """One of the trials: warm up, wait for the word, train for some seconds, tell."""
    import torch

    from digits_core.data.batches import epoch_batches, load_batch
    from digits_core.training.optim import set_lr
    from digits_core.training.train import open_run, train_step

    config, data, device = read_asked()
    run = open_run(config, data, device=device)
    set_lr(run.optimizer, 0.0)  # a peak rate without its warm-up may diverge
    batches = epoch_batches(data.train, seed=0, epoch=1, batch_size=config.optim.batch_size, asked=0)
    step = images = 0

    def train_one() -> None:
        nonlocal step, images
        batch = batches[step % len(batches)]
        train_step(run, *load_batch(data.train, batch, run.device))
        step, images = step + 1, images + len(batch)

    def settled() -> None:
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)

    for _ in range(WARM_STEPS):
        train_one()
    settled()
    print(WARM, flush=True)
    sys.stdin.readline()
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        train_one()
    settled()
    seconds = time.perf_counter() - started
    free, total = torch.cuda.mem_get_info(run.device) if run.device.type == "cuda" else (0, 0)
    print(
        json.dumps({"images_per_second": images / seconds, "used_bytes": total - free, "total_bytes": total}),
        flush=True,
    )


if __name__ == "__main__":
    _train()
