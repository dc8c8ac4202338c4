"""Ray Train's trainer around one retraining, and what the person at the terminal sees of it."""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, reason_of
from digits_core.files import read_text
from results.record.events import is_name

if TYPE_CHECKING:
    from search.models.plan import Plan

FOLDER, SNAPSHOT_FILE = "tune", "checkpoint_manager_snapshot.json"
"""Ray Train's own folder, and its note there of the checkpoints that it has."""


def run_trainer(
    state: Path, plan: "Plan", settings: Any, data: Any, machine: dict[str, float], console: Any, *, metric: str
) -> list[dict[str, Any]]:
    """Run Ray Train to the end of a plan; returns every epoch's numbers.

    Raises:
        RunError: the training failed; says why.
    """
    refuse_strange_checkpoints(state / FOLDER)
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from search.models.train_loop import keep_model, read_epochs, train_together
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
    cores = max(1, int(machine["CPU"]) // plan.workers)
    with chatter_to(state / "ray.log") as terminal:
        from digits_core.terminal import open_console

        shown = Shown(open_console(terminal), state, total)
        ray_of_run = connected(None, machine=machine if plan.gpus else {**machine, "GPU": 0.0})
        with ray_of_run, shown:
            trainer = TorchTrainer(
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
            try:
                with own_signals():
                    result = trainer.fit()
            except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
                raise RunError(f"the training failed: {classify(str(error)).reason}; see {state / 'ray.log'}") from None
    epochs = read_epochs(state)
    if not epochs or (epochs[-1]["epoch"] < total and not epochs[-1]["early_stopped"]):
        raise RunError(f"the training ended after {len(epochs)} of {total} epochs; see {state / 'ray.log'}")
    assert result.checkpoint is not None  # the last epoch's
    keep_model(Path(result.checkpoint.path), state)
    return epochs


def refuse_strange_checkpoints(folder: Path) -> None:
    """See that the checkpoints that Ray Train goes on from lie in its folder: it deletes all but the latest.

    Raises:
        RunError: its note of them is damaged, or names others.
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
                raise RunError(f"{path} is damaged: it names a checkpoint outside of its folder")
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Ctrl-C as ours: Ray Train's own handler ends the process as if all were well, and stays behind.

    Raises:
        KeyboardInterrupt: in the place of that.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


class Shown:
    """A line for each epoch as it is written, and on a terminal a bar with the time left."""

    def __init__(self, console: Any, state: Path, total: int) -> None:
        """Watch the epochs that a training writes into its folder."""
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
        """Begin watching."""
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say what is left to say, and end."""
        self._ended.set()
        self._thread.join()
        self._bar.stop()

    def _watch(self) -> None:
        from search.models.train_loop import WENT_ON, read_lines
        from search.monitor.progress import clock

        seen = len(read_lines(self._state))
        bar = self._bar.add_task("starting", total=self._total, left="")
        done, seconds, since = 0, 0.0, time.monotonic()
        while True:
            last = self._ended.wait(0.5)
            lines = read_lines(self._state)
            for one in lines[seen:]:
                if WENT_ON in one:
                    done, since = one[WENT_ON], time.monotonic()
                    self._console.print(f"{self._name}: going on after epoch {done} of {self._total}")
                    continue
                done, seconds, since = one["epoch"], one["epoch_seconds"], time.monotonic()
                score = "" if one["val_map"] is None else f"  mAP {one['val_map']:.2f}"
                self._console.print(
                    f"{self._name}: epoch {done}/{self._total}  loss {one['train_loss']:.3f}{score}  "
                    f"{one['images_per_second']:.0f} images/s  {clock((self._total - done) * seconds)} left"
                )
            seen = len(lines)
            if seconds:
                reached = min(done + min((time.monotonic() - since) / seconds, 1), self._total)
                self._bar.update(
                    bar,
                    description=f"{self._name}: epoch {min(done + 1, self._total)} of {self._total}",
                    completed=reached,
                    left=f"{clock((self._total - reached) * seconds)} left",
                )
            if last:
                return
