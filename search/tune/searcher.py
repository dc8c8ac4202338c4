"""Ray Tune's Searcher over the record: what is to go on, then new settings, then what follows a search.

Ray's own OptunaSearch tells Optuna that a trial stopped by the scheduler is COMPLETE, draws settings twice that are the
same once anchors are rounded, and knows no baselines; so this one takes its place. It decides nothing: a trial is
written into the record before it starts, and what is left to do is read from there.
"""

import re
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from results.record import RunRecord, TrialRecord
from results.schema import ENDED
from search.policy.further import FurtherTrials, Waiting
from search.policy.proposals import Proposed, Proposer

_NUMBERED = re.compile(r"t\d{4,9}")
"""The id of a trial of the search."""

Write = Callable[[str, str, Proposed], None]
"""Writes a new trial down: its id, its role and what it trains."""


class SettingSearcher(Searcher):
    """Hands trials to Ray Tune."""

    def __init__(
        self,
        record: RunRecord,
        proposer: Proposer,
        further: FurtherTrials,
        *,
        metric: str,
        write: Write,
        start: Callable[[TrialRecord], dict[str, Any]],
        held: Callable[[], bool] = lambda: False,
        ending: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Serve a run.

        Args:
            record: the run's, as it grows.
            proposer: gives new settings.
            further: gives what is trained after them.
            metric: the reported score to maximise, for Ray's check of reports.
            write: writes a new trial into the record.
            start: what Ray hands to a trial, beside its id, role and config.
            held: whether nothing may start now, as on a full disk.
            ending: why the run ends early, or None. Ray itself does not ask this while it waits for a first trial.
        """
        super().__init__(metric=metric, mode="max")
        self._record, self._proposer, self._further = record, proposer, further
        self._write, self._start, self._held, self._ending = write, start, held, ending
        self._running: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What to start next, FINISHED, or None to be asked again later."""
        if self._ending() is not None:
            return str(Searcher.FINISHED)
        held = self._held()
        if held and self._running:
            return None
        trial = self._to_go_on() or self._new()
        if trial is None or trial is Waiting:
            # A fault may yet bring back one of those that run.
            return None if trial is Waiting or self._running else str(Searcher.FINISHED)
        if held:
            return None
        assert isinstance(trial, TrialRecord)
        self._running[trial_id] = trial.trial_id
        return {"trial_id": trial.trial_id, "role": trial.role, "config": dict(trial.config), **self._start(trial)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A slot is free; Ray asks for the next trial only after the recorder has written down why."""
        self._running.pop(trial_id, None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to do: the record has it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the record has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the record has it."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its parts with a run; an open record has no place there."""
        return {}

    def _to_go_on(self) -> TrialRecord | None:
        """The first trial that has something left to train and that nothing runs."""
        running = set(self._running.values())
        left = (trial for trial in self._record.trials.values() if trial.trial_id not in running and to_go_on(trial))
        return next(left, None)

    def _new(self) -> TrialRecord | type[Waiting] | None:
        """A new trial, written down; None when nothing is left to do."""
        while (found := self._proposer.next(self._record)) is not None:
            trial = self._add("search", found)
            if found.screened is None:
                return trial
        due = self._further.next()
        if due is None or due is Waiting:
            return due
        assert isinstance(due, tuple)
        config, role = due
        screen = self._proposer.screen
        return self._add(role, Proposed(config, coverage=None if screen is None else screen.measure(config)))

    def _add(self, role: str, found: Proposed) -> TrialRecord:
        name = trial_name(next_number(self._record))
        self._write(name, role, found)
        return self._record.trials[name]


def to_go_on(trial: TrialRecord) -> bool:
    """Whether something is left to train of a trial, if nothing runs it now."""
    return trial.status not in ENDED and not trial.done and trial.role != "retrain"


def next_number(record: RunRecord) -> int:
    """The number of the next trial: its id is that of no trial on record, and of none that a repair dropped."""
    names = [*record.trials, *record.lost_trials]
    return max([len(record.trials), *(int(name[1:]) + 1 for name in names if _NUMBERED.fullmatch(name))])


def trial_name(number: int) -> str:
    """The id of trial `number`, from 0."""
    return f"t{number:04d}"
