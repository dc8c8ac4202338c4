"""Logs a search to trackio: a project, and in it a run per trial. trackio keeps it in SQLite files of this machine."""

import re
from collections.abc import Callable
from contextvars import Context
from typing import Any

from digits_core.config.parameter import Flat
from digits_core.errors import UsageError, printable, refuse_credentials
from results.record.schema import ENDED, FAILED
from search.monitor.tracker import Change, Described, Tracker, numbers_of

MOST_LETTERS = 100
"""Longest name of a project."""


def check_trackio(project: str) -> None:
    """Check the package trackio and the name of the project; writes nothing.

    Raises:
        UsageError: the package is missing, or the name cannot be used.
    """
    refuse_credentials("--trackio", project)
    try:
        import trackio  # noqa: F401
    except ImportError:
        raise UsageError("--trackio needs the package trackio: pip install 'digit-search[trackio]'") from None
    if not re.fullmatch(rf"[A-Za-z0-9][\w-]{{0,{MOST_LETTERS - 1}}}", project, re.ASCII):
        raise UsageError(
            f"--trackio {printable(project)}: the name of a project has letters, digits, '-' and '_', at most "
            f"{MOST_LETTERS}"
        )


class Trackio(Tracker):
    """Sends to a project of trackio; `place` is its name."""

    NAME = "trackio"

    def __init__(self, place: str, run: str, space: str, base: Flat, metric: str, say: Callable[[str], None]) -> None:
        """As `Tracker`; the trials of a search are a group."""
        self._open_runs: dict[str, Any] = {}
        self._known: dict[str, int] = {}
        super().__init__(place, run, space, base, metric, say)

    def send(self, change: Change) -> None:
        """Log the new epochs of a trial; at its end its best score, and an alert if it failed."""
        name = change.trial_id
        if name not in self._open_runs:
            self._open(change)
        run = self._open_runs[name]
        new = [one for one in change.epochs if one["epoch"] > self._known[name]]
        logged = change.described is not None and self._known[name] > 0 and not new  # by an earlier driver
        for one in new:
            run.log(numbers_of(one), step=one["epoch"])
            self._known[name] = one["epoch"]
        if change.status not in ENDED:
            return
        if change.best is not None and not logged:
            run.log({f"best_{self.metric}": float(change.best[self.metric])}, step=self._known[name])
        if change.status in FAILED and not logged:
            run.alert(title=f"{name} {change.status}", text=change.reason)
        del self._open_runs[name]
        run.finish()

    def end(self) -> None:
        """Write what is not written yet of trials that have not ended."""
        while self._open_runs:
            _, run = self._open_runs.popitem()
            run.finish()

    def _open(self, change: Change) -> None:
        """Create the run of a trial, or continue that of an earlier driver of the same search."""
        import trackio

        described = change.described or Described({}, {})
        # In a context of its own: trackio has one current run in each, and would finish that of another trial.
        run = Context().run(
            trackio.init,
            project=self.place,
            name=f"{self.run} {change.trial_id}",
            group=self.run,
            config={"space": self.space, **described.tags, **described.parameters},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._open_runs[change.trial_id] = run
        # Steps are epochs. Without this attribute, in another version of trackio, epochs are logged again.
        self._known[change.trial_id] = getattr(run, "_next_step", 1) - 1
