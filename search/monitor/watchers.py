"""What else follows a search: the tools that people have. None of them may hold it up, or end it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from digits_core.errors import reason_of
from results.record.run import RunRecord


class Watcher(Protocol):
    """Is told of every report and every end of a trial, from Ray's loop."""

    def update(self, record: RunRecord, trial_id: str) -> None:
        """Something became of a trial."""

    def close(self, record: RunRecord) -> None:
        """The search has ended."""


class Watchers:
    """Several of them; one that fails is left out from then on, with a sentence."""

    def __init__(self, watchers: Sequence[Watcher], say: Callable[[str], None]) -> None:
        """Tell each of `watchers`; `say` tells the person at the terminal a sentence."""
        self._watchers, self._say = list(watchers), say

    def update(self, record: RunRecord, trial_id: str) -> None:
        """Something became of a trial."""
        for watcher in list(self._watchers):
            self._guard(watcher, lambda one: one.update(record, trial_id))

    def close(self, record: RunRecord) -> None:
        """The search has ended."""
        for watcher in list(self._watchers):
            self._guard(watcher, lambda one: one.close(record))

    def _guard(self, watcher: Watcher, tell: Callable[[Watcher], None]) -> None:
        try:
            tell(watcher)
        except Exception as error:  # whatever a tool of somebody else does, the search goes on
            self._watchers.remove(watcher)
            reason = f"{type(error).__name__}: {reason_of(error)}"
            self._say(f"{type(watcher).__name__} is left out from here on ({reason}); the search goes on")
