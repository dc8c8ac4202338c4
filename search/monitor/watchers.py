"""Other tools that follow a search. None of them may block or end it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from digits_core.errors import reason_of
from results.record.run import RunRecord


class Watcher(Protocol):
    """Is called after every report and every end of a trial, from Ray's loop."""

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed."""

    def close(self, record: RunRecord) -> None:
        """The search has ended."""


class Watchers:
    """Several watchers; one that fails is removed, with a message."""

    def __init__(self, watchers: Sequence[Watcher], say: Callable[[str], None]) -> None:
        """Call each of `watchers`; `say` prints a sentence for the user."""
        self._watchers, self._say = list(watchers), say

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed."""
        for watcher in list(self._watchers):
            self._guard(watcher, lambda one: one.update(record, trial_id))

    def close(self, record: RunRecord) -> None:
        """The search has ended."""
        for watcher in list(self._watchers):
            self._guard(watcher, lambda one: one.close(record))

    def _guard(self, watcher: Watcher, tell: Callable[[Watcher], None]) -> None:
        try:
            tell(watcher)
        except Exception as error:  # an error of another tool must not end the search
            self._watchers.remove(watcher)
            reason = f"{type(error).__name__}: {reason_of(error)}"
            self._say(f"{type(watcher).__name__} failed ({reason}); the search continues without it")
