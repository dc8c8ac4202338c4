"""The training function of each process of a retraining, under Ray Train."""

# The driver imports this module to pass `train_together` to Ray: only the workers import torch.
import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ray import train as ray_train

from digits_core.config.train_config import TrainConfig
from digits_core.data.source import DataSource
from digits_core.errors import UserError
from digits_core.files import BEST_FOLDER
from search.monitor.epoch_progress import Pulse, drop_progress, write_progress
from search.storage.new_folder import new_folder
from search.tune.trainable import RefusedError

EPOCHS_FILE = "epochs.jsonl"
"""One line per epoch with the numbers that the driver shows and records."""

WENT_ON = "went_on_after"
"""Key of another kind of line: the epoch after which an interrupted training was continued."""

MODEL_FOLDER = "best"
"""The model of the best epoch, after the end of the training."""


def train_together(params: dict[str, Any]) -> None:
    """Train one config with the other processes of a Ray Train worker group.

    The first process writes the numbers of each epoch into `folder`, which all nodes share; checkpoints contain the
    model.

    Args:
        params: `config` (flat parameters), `data` (a DataSource as a dict), `fingerprint`, `metric`, `folder`, `joined`
            (also train on the validation images), `until` (the epoch to end after).

    Raises:
        RefusedError: data, weights or device cannot be used; the message says what to do.
    """
    from digits_core.data.cache import open_data
    from digits_core.model.checkpoint_state import load_state
    from digits_core.training.parallel import World
    from digits_core.training.reports import EpochReport
    from digits_core.training.train import Checkpoints, Selection, train

    context = ray_train.get_context()
    world = World(
        context.get_world_rank(),
        context.get_world_size(),
        wait=lambda: ray_train.report({}),
        progress=lambda one: pulse.put(one.epoch, one.share),
    )
    folder = Path(params["folder"])
    pulse = Pulse(lambda reached: write_progress(folder, {folder.name: reached}))
    if world.leads:
        drop_progress(folder)
    checkpoint = ray_train.get_checkpoint()
    with tempfile.TemporaryDirectory(prefix="digit-search-") as scratch, pulse:
        resume_from = None
        if checkpoint is not None:
            resume_from = Path(checkpoint.to_directory(str(Path(scratch) / "resume")))
            if world.leads:
                _write_line(folder, {WENT_ON: load_state(resume_from).epoch})

        def report(one: EpochReport) -> None:
            assert one.checkpoint is not None
            line = {
                **dataclasses.asdict(one.metrics),
                "improved": one.improved,
                "device": one.device,
                "model": one.model,
            }
            _write_line(folder, line)
            kept = ray_train.Checkpoint.from_directory(str(one.checkpoint))
            ray_train.report({"epoch": one.metrics.epoch}, checkpoint=kept)
            shutil.rmtree(one.checkpoint, ignore_errors=True)

        try:
            data = open_data(DataSource(**params["data"]), fingerprint=params["fingerprint"])
            train(
                TrainConfig.from_flat(params["config"]),
                data.joined() if params["joined"] else data,
                report,
                selection=Selection(metric=params["metric"], validate=not params["joined"], until=params["until"]),
                checkpoints=Checkpoints(Path(scratch) / "work", resume_from),
                device=_device(),
                world=world,
            )
        except UserError as error:
            raise RefusedError(str(error)) from None


def _device() -> str:
    """The GPU that Ray gave this process, or the CPU."""
    from ray.train.torch import get_device

    return str(get_device())


def _write_line(folder: Path, line: dict[str, Any]) -> None:
    with (folder / EPOCHS_FILE).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def keep_model(checkpoint: Path, folder: Path) -> None:
    """Copy the best epoch's model out of the last checkpoint; if the copy exists, the training is finished."""
    with new_folder(folder / MODEL_FOLDER) as half:
        shutil.copytree(checkpoint / BEST_FOLDER, half, dirs_exist_ok=True)


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs written so far, in order; of a repeated epoch the last line."""
    found = {int(line["epoch"]): line for line in read_lines(folder) if "epoch" in line}
    return [found[epoch] for epoch in sorted(found)]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """All complete lines so far: epochs, and continuations after an interruption."""
    try:
        lines = (folder / EPOCHS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]
