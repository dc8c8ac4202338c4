"""The common part of experiment trackers: what they are told about trials, and that they never hold up a search."""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from digits_core.config.parameter import Flat
from digits_core.errors import printable, reason_of
from results.record.run import RunRecord
from results.record.schema import EPOCH_NUMBERS
from results.record.trial import TrialRecord

PAUSE_SECONDS = 5.0
"""Pause between two of the three attempts."""

PATIENCE_SECONDS = 30.0
"""How long the end of a search waits for data that is not sent yet."""

MAX_VALUE = 500
"""Maximum length of a text that is sent."""


class Described(NamedTuple):
    """What a tracker is told about a trial once.

    Attributes:
        parameters: all parameters of its configuration.
        tags: its role, its changed parameters in words (`setting`), and its `baseline` if it is one.
    """

    parameters: Flat
    tags: dict[str, str]


class Change(NamedTuple):
    """What is new about a trial.

    Attributes:
        trial_id: the trial.
        status: its status now.
        reason: why it ended, if that is known.
        best: the numbers of its best epoch so far; None without a score.
        epochs: the numbers of its new epochs.
        described: with the first change of a trial; None later.
    """

    trial_id: str
    status: str
    reason: str | None
    best: dict[str, Any] | None
    epochs: list[dict[str, Any]]
    described: Described | None


class Tracker:
    """Sends the changes of trials in order, from a separate thread; stops with a message after three failures.

    A tracker implements `send`, and `end` if something is open at the end of the search.
    """

    NAME = ""
    """The name of the tool in messages."""

    def __init__(self, place: str, run: str, space: str, base: Flat, metric: str, say: Callable[[str], None]) -> None:
        """Send to a tracker.

        Args:
            place: its address, or its project.
            run: the run folder's name.
            space: the space.
            base: the config that configurations change.
            metric: the metric that the search maximises.
            say: prints a sentence for the user.
        """
        self.place, self.run, self.space, self.metric = place, run, space, metric
        self._base, self._say = base, say
        self._jobs: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._told: dict[str, tuple[int, str]] = {}
        self._broken = False
        self._thread = threading.Thread(target=self._send_all, name=self.NAME.lower(), daemon=True)
        self._thread.start()

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed: queue what to send."""
        trial = record.trials[trial_id]
        told = self._told.get(trial_id)
        epochs, status = told or (0, "")
        if self._broken or (epochs, status) == (trial.num_epochs, trial.status):
            return
        self._told[trial_id] = trial.num_epochs, trial.status
        best = trial.best(self.metric)
        self._jobs.put(
            Change(
                trial_id,
                trial.status,
                None if trial.stop_reason is None else trial.stop_reason[:MAX_VALUE],
                None if best is None else dict(best),
                [dict(one) for epoch, one in sorted(trial.epochs.items()) if epoch > epochs],
                self._describe(trial) if told is None else None,
            )
        )

    def close(self, record: RunRecord) -> None:
        """Wait up to `PATIENCE_SECONDS` for data that is not sent yet."""
        self._jobs.put(None)
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive() and not self._broken:
            self._say(f"{self._words} did not accept all data within {PATIENCE_SECONDS:.0f} s")

    def send(self, change: Change) -> None:
        """Send a change; called by the tracker's own thread, again if it fails."""
        raise NotImplementedError

    def end(self) -> None:
        """Close what is open, after the last change; called by the tracker's own thread."""

    @property
    def _words(self) -> str:
        return f"{self.NAME} at {printable(self.place)}"

    def _describe(self, trial: TrialRecord) -> Described:
        changed = [
            f"{name.rpartition('.')[2]} {value}"
            for name, value in trial.config.items()
            if name in self._base and value != self._base[name] and not name.startswith("runtime.")
        ]
        tags = {
            "role": trial.role,
            "setting": (", ".join(changed) or "default")[:MAX_VALUE],
            **({"baseline": trial.baseline} if trial.baseline else {}),
        }
        return Described(dict(trial.config), tags)

    def _send_all(self) -> None:
        while (change := self._jobs.get()) is not None:
            self._try(partial(self.send, change))
        self._try(self.end)

    def _try(self, job: Callable[[], None]) -> None:
        """Do something up to three times; after that the tracker is broken and nothing more is done."""
        for last in (False, False, True):
            if self._broken:
                return
            try:
                job()
                return
            except Exception as error:  # an error of the tracker must not end the search
                if not last:
                    time.sleep(PAUSE_SECONDS)
                    continue
                self._broken = True
                self._say(f"{self._words} failed ({reason_of(error)}); the search continues without it")


def numbers_of(epoch: dict[str, Any]) -> dict[str, float]:
    """The measured numbers of an epoch by their names, without missing ones; `epoch` is one of them."""
    return {
        name: float(value)
        for name in ("epoch", *EPOCH_NUMBERS)
        if isinstance(value := epoch.get(name), int | float) and not isinstance(value, bool)
    }
