"""How many trials should share a GPU: measured by training 1, 2, 4, ... of them on it at the same time."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence

from digits_core.errors import UsageError
from search.machine.subprocesses import Child, Training, read_request

MOST = 8
"""Maximum number of trials on one GPU."""

SECONDS = 4.0
"""Duration of each measurement, after all trials have warmed up."""

WARM_STEPS = 6

WARM = "warm"
"""The line that a training prints after its warm-up steps; then it waits for the others."""

WORTH = 1.05
"""Minimum factor of images per second by which a larger number of trials must be faster."""

ROOM = 0.9
"""Share of the GPU memory that may be used: a search can have a higher peak than a few steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sharing:
    """A measurement of several trials on one device.

    Attributes:
        trials: trials that train at the same time.
        images_per_second: training images per second of all of them together.
        memory_bytes: peak memory of the device used by all of them together; 0 on a CPU.
    """

    trials: int
    images_per_second: float
    memory_bytes: int


def best_sharing(tried: Sequence[Sharing]) -> Sharing:
    """The best measurement: a larger number of trials counts only if it is faster by the factor `WORTH`.

    Args:
        tried: measurements by increasing number of trials.
    """
    best = tried[0]
    for one in tried[1:]:
        if one.images_per_second >= best.images_per_second * WORTH:
            best = one
    return best


def try_sharing(
    training: Training,
    *,
    cores: int,
    cores_each: float | None = None,
    most: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Sharing]:
    """Measure 1, 2, 4, ... trials on the first GPU while they fit and more trials are faster.

    Args:
        training: what each trial trains.
        cores: CPU cores per GPU, shared by its trials.
        cores_each: CPU cores of a trial; None divides `cores` among them, at most eight for each.
        most: maximum number of trials on one GPU.
        say: called with a line for each measurement.

    Raises:
        UsageError: even one trial alone fails.
    """
    tried: list[Sharing] = []
    trials, limit = 1, max(1, min(MOST, int(cores // (cores_each or 1)), most or MOST))
    while trials <= limit:
        threads = max(1, int(cores_each or min(8, cores // trials)))
        try:
            found, total = _measure(training, trials, threads)
        except UsageError:
            if not tried:
                raise
            break  # they do not fit
        tried.append(found)
        say(
            f"{trials} trial{'s' * (trials > 1)} on a GPU: {found.images_per_second:.0f} training images per second"
            + (f", {found.memory_bytes / 2**30:.1f} GB" if found.memory_bytes else "")
        )
        if best_sharing(tried) is not found or (total and 2 * found.memory_bytes > ROOM * total):
            break
        trials *= 2
    return tried


def _measure(training: Training, trials: int, threads: int) -> tuple[Sharing, int]:
    """Train several trials at the same time; also returns the total memory of the device in bytes."""
    children = [Child("search.machine.sharing", training, threads=threads) for _ in range(trials)]
    try:
        for child in children:
            if child.read_line() != WARM:
                child.result()  # raises the error
        for child in children:
            child.write_line("go")
        outputs = [child.result() for child in children]
    finally:
        for child in children:
            child.kill()
    return (
        Sharing(trials, sum(one["images_per_second"] for one in outputs), max(one["used_bytes"] for one in outputs)),
        max(one["total_bytes"] for one in outputs),
    )


def _train() -> None:
    """One of the trials: warm up, wait for the start line, train for `SECONDS`, print the result."""
    import torch

    from digits_core.data.batches import epoch_batches, load_batch
    from digits_core.training.optim import set_lr
    from digits_core.training.train import open_run, train_step

    config, data, device = read_request()
    run = open_run(config, data, device=device)
    set_lr(run.optimizer, 0.0)  # the peak learning rate without its warm-up may diverge
    batches = epoch_batches(data.train, seed=0, epoch=1, batch_size=config.optim.batch_size, asked=0)
    step = images = 0

    def train_one() -> None:
        nonlocal step, images
        batch = batches[step % len(batches)]
        train_step(run, load_batch(data.train, batch, run.device))
        step, images = step + 1, images + len(batch)

    def synchronize() -> None:
        if run.device.type == "cuda":
            torch.cuda.synchronize(run.device)

    for _ in range(WARM_STEPS):
        train_one()
    synchronize()
    print(WARM, flush=True)
    sys.stdin.readline()
    images, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        train_one()
    synchronize()
    seconds = time.perf_counter() - started
    free, total = torch.cuda.mem_get_info(run.device) if run.device.type == "cuda" else (0, 0)
    print(
        json.dumps({"images_per_second": images / seconds, "used_bytes": total - free, "total_bytes": total}),
        flush=True,
    )


if __name__ == "__main__":
    _train()
