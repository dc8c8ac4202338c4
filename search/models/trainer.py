"""Runs one retraining with Ray Train and shows its progress on the terminal."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, reason_of
from digits_core.files import read_text
from results.record.events import is_name

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from digits_core.data.cache import DigitData
    from search.cli.settings import SearchSettings
    from search.models.plan import Plan

FOLDER, SNAPSHOT_FILE = "tune", "checkpoint_manager_snapshot.json"
"""Ray Train's folder, and the file in it that lists its checkpoints."""


def run_trainer(
    state: Path, plan: "Plan", settings: "SearchSettings", data: "DigitData", machine: dict[str, float], *, metric: str
) -> list[dict[str, Any]]:
    """Run Ray Train to the end of a plan; returns the numbers of every epoch.

    Args:
        state: the folder of the retraining.
        plan: what to train.
        settings: the settings of the run.
        data: the data of the run.
        machine: cores and GPUs of this machine, under Ray's names.
        metric: the metric that chooses the best epoch.

    Raises:
        RunError: the training failed; the message says why.
    """
    refuse_strange_checkpoints(state / FOLDER)
    import ray.train

    from digits_core.terminal import open_console
    from search.models.train_loop import keep_model, read_epochs
    from search.monitor.ray_output import chatter_to
    from search.policy.faults import classify
    from search.tune.cluster import connected

    config = TrainConfig.from_flat(plan.config)
    total = config.optim.epochs if plan.until is None else min(plan.until, config.optim.epochs)
    params = {
        "config": plan.config,
        "data": asdict(settings.data),
        "fingerprint": data.fingerprint,
        "metric": metric,
        "folder": str(state.resolve()),
        "joined": plan.trained_on == "train+valid",
        "until": plan.until,
    }
    log = state / "ray.log"
    with chatter_to(log) as terminal:
        ray_of_run = connected(None, machine=machine if plan.gpus else {**machine, "GPU": 0.0})
        with ray_of_run, Shown(open_console(terminal), state, total):
            trainer = _build_trainer(state, plan, params, cores=max(1, int(machine["CPU"]) // plan.workers))
            try:
                with own_signals():
                    result = trainer.fit()
            except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
                raise RunError(f"the training failed: {classify(str(error)).reason}; see {log}") from None
    epochs = read_epochs(state)
    if not epochs or (epochs[-1]["epoch"] < total and not epochs[-1]["early_stopped"]):
        raise RunError(f"the training ended after {len(epochs)} of {total} epochs; see {log}")
    assert result.checkpoint is not None  # of the last epoch
    keep_model(Path(result.checkpoint.path), state)
    return epochs


def _build_trainer(state: Path, plan: "Plan", params: dict[str, Any], *, cores: int) -> "TorchTrainer":
    """Ray Train's trainer of a plan, with so many CPU cores for each of its processes."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from search.models.train_loop import train_together

    return TorchTrainer(
        train_together,
        train_loop_config=params,
        scaling_config=ScalingConfig(
            num_workers=plan.workers,
            use_gpu=plan.gpus,
            resources_per_worker={"CPU": cores, **({"GPU": 1} if plan.gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if plan.gpus else "gloo"),
        run_config=RunConfig(
            name=FOLDER,
            storage_path=str(state.resolve()),
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def refuse_strange_checkpoints(folder: Path) -> None:
    """Check that all checkpoints that Ray Train lists are in its folder: it deletes all but the latest.

    Raises:
        RunError: the list is damaged, or contains a checkpoint outside the folder.
    """
    path = folder / SNAPSHOT_FILE
    if not path.is_file():
        return
    try:
        tree = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {reason_of(error)}") from None
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if not is_name(one.get("checkpoint_dir_name", "none")):
                raise RunError(f"{path} is damaged: it names a checkpoint outside its folder")
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt: Ray Train's handler exits with code 0, and it is never removed.

    Raises:
        KeyboardInterrupt: instead of the SystemExit of Ray Train's handler.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


class Shown:
    """Prints a line for each epoch, and on a terminal shows a bar with the time left."""

    def __init__(self, console: Console, state: Path, total: int) -> None:
        """Watch the file of epochs in the folder of a retraining; `total` is the number of epochs."""
        from rich.progress import BarColumn, Progress, TextColumn

        self._console, self._state, self._total, self._name = console, state, total, state.name
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"),
            console=console, transient=True, disable=not console.is_terminal,
            redirect_stdout=False, redirect_stderr=False,  # what Ray prints goes to its log
        )  # fmt: skip
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Shown":
        """Start watching."""
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Print the remaining lines and stop."""
        from search.monitor.epoch_progress import drop_progress

        self._ended.set()
        self._thread.join()
        self._bar.stop()
        drop_progress(self._state)

    def _watch(self) -> None:
        from search.models.train_loop import WENT_ON, read_lines
        from search.monitor.epoch_progress import read_progress
        from search.monitor.view import clock

        seen = len(read_lines(self._state))
        bar = self._bar.add_task("starting", total=self._total, left="")
        done, seconds, since = 0, 0.0, time.monotonic()
        while True:
            last = self._ended.wait(0.5)
            lines = read_lines(self._state)
            for one in lines[seen:]:
                if WENT_ON in one:
                    done, since = one[WENT_ON], time.monotonic()
                    self._console.print(f"{self._name}: continuing after epoch {done} of {self._total}")
                    continue
                done, seconds, since = one["epoch"], one["epoch_seconds"], time.monotonic()
                score = "" if one["val_map"] is None else f"  mAP {one['val_map']:.2f}"
                self._console.print(
                    f"{self._name}: epoch {done}/{self._total}  loss {one['train_loss']:.3f}{score}  "
                    f"{one['images_per_second']:.0f} images/s  {clock((self._total - done) * seconds)} left"
                )
            seen = len(lines)
            reached = read_progress(self._state).get(self._name)
            if reached is not None and reached.epoch == done + 1:
                self._bar.update(
                    bar, description=f"{self._name}: {reached.words(self._total)}", completed=done + reached.share
                )
            elif done:
                self._bar.update(
                    bar, description=f"{self._name}: epoch {min(done + 1, self._total)}/{self._total}", completed=done
                )
            if seconds:
                passed = min(done + min((time.monotonic() - since) / seconds, 1), self._total)
                self._bar.update(bar, left=f"{clock((self._total - passed) * seconds)} left")
            if last:
                return
