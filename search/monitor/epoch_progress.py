"""How far trials are inside an epoch: sent at most once a second, kept in a file that is never part of the record."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from digits_core.files import read_text
from results.record.trial import TrialRecord

PROGRESS_FILE = ".progress.json"
"""Exists only while a search or a retraining runs; a copy of the run folder does not contain it."""

PAUSE_SECONDS = 1.0
"""Minimum time between two messages of a trial, and between two looks of the driver."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a training is in its epoch.

    Attributes:
        start: number of earlier starts of the training.
        epoch: from 1.
        share: as in `digits_core.training.reports.EpochProgress`.
    """

    start: int
    epoch: int
    share: float

    def words(self, epochs: int) -> str:
        """`epoch 1/12, 43 %`, or `epoch 1/12, evaluation`; `epochs` is the number of epochs of the training."""
        doing = "evaluation" if self.share >= 1 else f"{int(100 * self.share)} %"
        return f"epoch {self.epoch}/{epochs}, {doing}"


class Pulse:
    """Sends the newest of many values in a thread of its own, so that the training never waits for a receiver."""

    def __init__(
        self, send: Callable[[Reached], None], *, start: int = 0, wait: Callable[[float], bool] | None = None
    ) -> None:
        """Prepare to send.

        Args:
            send: sends a value; may block.
            start: number of earlier starts of the training.
            wait: waits so many seconds and returns whether the training has ended; None uses the clock.
        """
        self._send, self._start = send, start
        self._ended = threading.Event()
        self._wait = wait or self._ended.wait
        self._newest: Reached | None = None

    def __enter__(self) -> "Pulse":
        """Start the thread."""
        threading.Thread(target=self.follow, name="pulse", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread, without waiting for a receiver that does not answer."""
        self._ended.set()

    def put(self, epoch: int, share: float) -> None:
        """Set the newest value; returns at once."""
        self._newest = Reached(self._start, epoch, share)

    def follow(self) -> None:
        """Send the newest value after each pause if it has changed, until the training ends."""
        sent = None
        while not self._wait(PAUSE_SECONDS):
            newest = self._newest
            if newest is not None and newest != sent:
                self._send(newest)
                sent = newest


def progress_of(trial: TrialRecord, found: Mapping[str, Reached]) -> Reached | None:
    """The progress of a running trial inside its epoch; None before the first batch of the epoch.

    Args:
        trial: the trial.
        found: the last progress of each trial; that of an earlier epoch or an earlier start does not count.
    """
    reached = found.get(trial.trial_id)
    now = (len(trial.faults), trial.num_epochs + 1)
    return reached if reached is not None and (reached.start, reached.epoch) == now else None


def to_text(reached: Reached) -> str:
    """A value as JSON."""
    return json.dumps([reached.start, reached.epoch, round(reached.share, 4)])


def from_text(text: str | bytes | None) -> Reached | None:
    """A value from JSON; None if the text is something else."""
    try:
        return None if text is None else _reached(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _reached(tree: object) -> Reached | None:
    match tree:
        case [int(start), int(epoch), int(share) | float(share)] if 0 < share <= 1:
            return Reached(start, epoch, float(share))
    return None


def write_progress(folder: Path, found: Mapping[str, Reached]) -> None:
    """Write the progress of each trial; a file that cannot be written is left out, because it is only shown."""
    half = folder / f"{PROGRESS_FILE}.{os.getpid()}.half"
    with contextlib.suppress(OSError):
        text = json.dumps({name: json.loads(to_text(one)) for name, one in found.items()})
        half.write_text(text, encoding="utf-8")
        half.replace(folder / PROGRESS_FILE)


def read_progress(folder: Path) -> dict[str, Reached]:
    """The progress of each trial; empty without a readable file."""
    try:
        tree = json.loads(read_text(folder / PROGRESS_FILE))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(tree, dict):
        return {}
    found = {name: _reached(value) for name, value in tree.items()}
    return {name: one for name, one in found.items() if one is not None}


def drop_progress(folder: Path) -> None:
    """Delete the file."""
    with contextlib.suppress(OSError):
        (folder / PROGRESS_FILE).unlink()
