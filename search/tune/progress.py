"""Carries the progress of trials to the driver through Ray's key-value store: no process, no file of a trial."""

import contextlib
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from results.record.run import RunRecord
from search.monitor.epoch_progress import PAUSE_SECONDS, Reached, drop_progress, from_text, to_text, write_progress

NAMESPACE = "digit-search"

FAULTS = (ray.exceptions.RayError, AttributeError, ImportError)
"""Errors if Ray's store does not answer, is not connected any more, or is elsewhere in another version of Ray."""

LAST_SECONDS = 5.0
"""How long the end of a search waits for a store that does not answer."""


def _store() -> Any:
    """Ray's key-value store, which its own libraries use; it is in the memory of the head."""
    from ray.experimental import internal_kv

    return internal_kv


def sender(place: str, trial_id: str) -> Callable[[Reached], None]:
    """The function of a trial that sends its progress to the `place` of its search."""

    def send(reached: Reached) -> None:
        with contextlib.suppress(*FAULTS):
            _store()._internal_kv_put(f"{place}/{trial_id}", to_text(reached), namespace=NAMESPACE)

    return send


class ProgressFollower:
    """Reads the progress of the running trials in the driver, and writes it for `digit-search status`.

    Attributes:
        place: where the trials of this search send to.
        reached: the last progress of each running trial.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        """Follow the trials of a record; Ray must be running when it starts."""
        self.place, self.reached = uuid.uuid4().hex, dict[str, Reached]()
        self._folder, self._record = folder, record
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="progress", daemon=True)

    def __enter__(self) -> "ProgressFollower":
        """Start following."""
        drop_progress(self._folder)  # of a driver that was killed
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop, and delete what is left of it."""
        self._ended.set()
        self._thread.join(LAST_SECONDS)
        drop_progress(self._folder)

    def _follow(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            before = dict(self.reached)
            self._look()
            if self.reached != before:
                write_progress(self._folder, self.reached)
        with contextlib.suppress(*FAULTS):
            _store()._internal_kv_del(f"{self.place}/", del_by_prefix=True, namespace=NAMESPACE)

    def _look(self) -> None:
        """Read what each running trial has sent."""
        running = [one.trial_id for one in list(self._record.trials.values()) if one.status == "running" and one.since]
        for name in [name for name in self.reached if name not in running]:
            del self.reached[name]
        for name in running:
            with contextlib.suppress(*FAULTS):
                found = from_text(_store()._internal_kv_get(f"{self.place}/{name}", namespace=NAMESPACE))
                if found is not None:
                    self.reached[name] = found
