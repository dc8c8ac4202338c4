"""Ray Tune's Searcher over the policy: what it decides becomes a trial of Ray's.

Ray's own OptunaSearch tells Optuna that a trial stopped by the scheduler is COMPLETE, draws settings twice that are the
same once anchors are rounded, and knows no baselines; so this one takes its place. It decides nothing.
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
    """What writes new trials and their ends into the record."""

    @property
    def record(self) -> RunRecord:
        """The run's, as it grows."""

    @property
    def closing(self) -> set[str]:
        """Trials whose ends wait for room on the disk."""

    def add(self, name: str, role: str, found: Proposed) -> None:
        """Write down a new trial, and its end where the screen keeps it from being trained."""

    def settle(self, name: str) -> None:
        """End a trial that has nothing left to train."""


class PolicySearcher(Searcher):
    """Hands trials to Ray Tune."""

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
        """Serve a run.

        Args:
            policy: decides.
            recorder: writes down what was decided, before it is done.
            metric: the reported score to maximise, for Ray's check of reports.
            start: what Ray hands to a trial, beside its id, role and config.
            held: whether nothing may start now, as on a full disk.
            ending: why the run ends early, or None. Ray itself does not ask this while it waits for a first trial.
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
