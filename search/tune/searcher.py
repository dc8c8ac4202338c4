"""Ray Tune's searcher: starts the trials that the policy decides on. It decides nothing itself.

It replaces Ray's OptunaSearch, which tells Optuna that a trial stopped by the scheduler is COMPLETE, draws
configurations twice that are equal after anchors are rounded, and has no baselines.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ray.tune.search import Searcher

from results.record.run import RunRecord
from results.record.trial import TrialRecord
from search.policy.decisions import Add, Close, Policy, Start
from search.policy.proposals import Proposed
from search.policy.replicates import Idle


class Recording(Protocol):
    """Writes new trials and their ends into the record."""

    @property
    def record(self) -> RunRecord:
        """The record of the run."""

    @property
    def closing(self) -> set[str]:
        """Trials whose ends are recorded once the disk has space."""

    def add(self, name: str, role: str, found: Proposed) -> None:
        """Record a new trial, and its end if it is screened out."""

    def settle(self, name: str) -> None:
        """Record the end of a trial that has finished training."""


class PolicySearcher(Searcher):
    """Passes trials to Ray Tune."""

    def __init__(
        self,
        policy: Policy,
        recorder: Recording,
        *,
        metric: str,
        start: Callable[[TrialRecord], dict[str, Any]],
        held: Callable[[], bool] = lambda: False,
        ending: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Start the trials of a run.

        Args:
            policy: decides which trial is next.
            recorder: records each decision before the trial starts.
            metric: the score to maximise; Ray checks that reports contain it.
            start: returns what Ray passes to a trial in addition to its id, role and config.
            held: whether no trial may start now, for example because the disk is full.
            ending: why the run ends early, or None. Ray does not call its stopper before the first trial.
        """
        super().__init__(metric=metric, mode="max")
        self._policy, self._recorder = policy, recorder
        self._start, self._held, self._ending = start, held, ending
        self._running: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What to start next, FINISHED, or None to be asked again later."""
        if self._ending() is not None:
            return str(Searcher.FINISHED)
        held = self._held()
        while not (held and self._running):
            record, recorder = self._recorder.record, self._recorder
            action = self._policy.next_action(record, set(self._running.values()), recorder.closing)
            match action:
                case Idle.DONE:
                    return str(Searcher.FINISHED)
                case Close(name):
                    recorder.settle(name)
                case _ if action is Idle.WAIT or held:
                    return None
                case Add(name, role, proposed):
                    recorder.add(name, role, proposed)
                case Start(name):
                    trial = record.trials[name]
                    self._running[trial_id] = name
                    return {"trial_id": name, "role": trial.role, "config": dict(trial.config), **self._start(trial)}
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A slot is free; Ray asks for the next trial only after the recorder has recorded this end."""
        self._running.pop(trial_id, None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing to do: the recorder records the report."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the record contains everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the record contains everything."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its searcher; an open record cannot be pickled."""
        return {}
