"""How many operations a training step and an evaluation dispatch, and how many of them make the CPU wait for a GPU.

    python benchmarks/operations.py [--data FOLDER]

The counts are the same on every machine. `as on a GPU` is the code that runs there, counted on a CPU: it has a fixed
number of rows and one NMS for the batch. digit-search uses bfloat16; torchvision is its own model in its reference loop
in float32, without casts.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).parent / "peers"))

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import load_batch
from digits_core.data.cache import open_data
from digits_core.data.drawn import write_drawn_folder
from digits_core.data.source import DataSource
from digits_core.evaluation.detect import detect_raw
from digits_core.model import detector, region_proposals, resize, sampling
from digits_core.training.train import open_run, train_step

WAITS = ("aten.nonzero", "aten._local_scalar_dense", "torchvision.nms")
"""Operations whose result decides what the CPU does next."""


class Counting(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        """Run the operation and count it."""
        self.seen[str(function.overloadpacket)] += 1
        return function(*given, **(named or {}))


def counted(call: Callable[[], object]) -> str:
    """Operations and waits of the second call; the first one fills caches."""
    call()
    with Counting() as counting:
        call()
    return f"{counting.seen.total()} ({sum(counting.seen[name] for name in WAITS)})"


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """The code of a GPU on the CPU."""
    with ExitStack() as stack:
        for module in (detector, region_proposals, resize, sampling):
            stack.enter_context(mock.patch.object(module, "must_not_wait", return_value=True))
        yield


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="COCO folder (default: drawn house numbers)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data
        if folder is None:
            folder = Path(scratch) / "drawn"
            write_drawn_folder(folder, 64, 40)
        rows = counts(folder)
    print("| operations (of these, waits) | digit-search | as on a GPU | torchvision |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def counts(folder: Path) -> list[tuple[str, str, str, str]]:
    """The rows of the table."""
    from detector import Training

    data, plain = open_data(DataSource(folder=str(folder))), Training({}, folder, 4)
    config = TrainConfig.from_flat({"model.fresh_rpn": True, "runtime.precision": "bfloat16"})
    run = open_run(config, data, device="cpu")
    rows = []
    for count in (8, 32):
        indices = list(range(count))
        batch = load_batch(data.train, indices, run.device)
        samples = [plain.train_loader.dataset[index] for index in indices]

        def step(batch: Any = batch) -> None:
            train_step(run, batch)

        def reference(samples: Any = samples) -> None:
            losses = sum(plain.model([one for one, _ in samples], [dict(target) for _, target in samples]).values())
            torch.isfinite(losses).item()
            plain.optimizer.zero_grad()
            losses.backward()
            torch.nn.utils.clip_grad_norm_(plain.model.parameters(), config.optim.max_grad_norm)
            plain.optimizer.step()

        ours, theirs = counted(step), counted(reference)
        with as_on_a_gpu():
            rows.append((f"a training step of {count} images", ours, counted(step), theirs))
    run.model.eval(), plain.model.eval()
    batch = load_batch(data.valid, np.arange(8).tolist(), run.device)
    images = [plain.valid_loader.dataset[index][0] for index in range(8)]

    def evaluate() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            detect_raw(run.model, batch, with_loss=True)

    def detect() -> None:
        with torch.inference_mode():
            plain.model(images)

    ours, theirs = counted(evaluate), counted(detect)
    with as_on_a_gpu():
        rows.append(("an evaluation of 8 images, ours with the loss", ours, counted(evaluate), theirs))
    return rows


if __name__ == "__main__":
    main()
