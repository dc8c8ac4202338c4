"""The policy of a search: what happens next, from the record and the plan only.

No Ray, no files, no clock. A resumed search reads its events and asks the same questions, so it continues as an
uninterrupted one would; `search.replay` asks them again.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from results.record.run import RunRecord
from results.record.schema import ENDED
from results.record.trial import TrialRecord
from search.policy.faults import Fault, change_to_retry
from search.policy.outlook import Outlook, outlook_of
from search.policy.plan import Plan
from search.policy.proposals import Proposed, Proposer
from search.policy.replicates import Idle, next_further
from search.policy.screen import Screen
from search.policy.stopping import Stopping

_NUMBERED = re.compile(r"t\d{4,9}")
"""The form of a trial's id."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start or continue a recorded trial."""

    trial_id: str


@dataclass(frozen=True, slots=True)
class Add:
    """Record a new trial; the next action starts it, unless it is screened out."""

    trial_id: str
    role: str
    proposed: Proposed


@dataclass(frozen=True, slots=True)
class Close:
    """Record the end of a trial that has trained all its epochs: the driver was killed before it did so."""

    trial_id: str


Action = Start | Add | Close | Idle


@dataclass(frozen=True, slots=True)
class End:
    """How a trial ended.

    Attributes:
        status: as in the leaderboard.
        reason: in words; None for a training that simply finished.
    """

    status: str
    reason: str | None = None


class Policy:
    """Decides what a search does. Its state between calls is a cache: all of it can be computed from the record."""

    def __init__(self, plan: Plan, screen: Screen | None = None) -> None:
        """Decide for a plan; `screen` measures the anchors of each configuration, None measures none."""
        self.plan, self.screen = plan, screen
        self._proposer = Proposer(plan, screen)
        self._stopping = Stopping(plan.scheduler, plan.base.optim.epochs)
        self._outlook: tuple[int, Outlook | None] = (-1, None)

    def next_action(self, record: RunRecord, running: Collection[str] = (), closing: Collection[str] = ()) -> Action:
        """What to do with a free slot.

        Args:
            record: the run's record.
            running: the trials in the other slots.
            closing: trials that have finished training; their ends are recorded once the disk has space.

        Raises:
            SpaceError: the space drew an invalid configuration.
        """
        for trial in record.trials.values():
            if is_open(trial) and trial.trial_id not in running and trial.trial_id not in closing:
                return Close(trial.trial_id) if trial.done else Start(trial.trial_id)
        found, role = None if self.settled(record) else self._proposer.next(record), "search"
        if found is None:
            due = next_further(record, self.plan)
            if isinstance(due, Idle):
                return Idle.WAIT if running else due  # a running trial may fail and need a restart
            config, role = due
            found = Proposed(config, coverage=None if self.screen is None else self.screen.measure(config))
        return Add(f"t{next_number(record):04d}", role, found)

    def outlook(self, record: RunRecord) -> Outlook | None:
        """What more trials would probably gain; None while too few have ended, for a grid, and for several aims."""
        if self.plan.sampler == "grid" or record.aims:
            return None
        if self._outlook[0] != record.num_events:  # Ray asks repeatedly while nothing happens
            self._outlook = record.num_events, outlook_of(record, self.plan.gain)
        return self._outlook[1]

    def settled(self, record: RunRecord) -> bool:
        """Whether `--until settled` ends the search for configurations; replicates and confirmations follow."""
        if not self.plan.until_settled:
            return False
        found = self.outlook(record)
        return found is not None and found.settled

    def judge(self, record: RunRecord, trial_id: str, epoch: int, value: float | None) -> str | None:
        """Why a trial stops at a score; None if it continues. Repeated calls return the same."""
        return self._stopping.judge(record, trial_id, epoch, value)

    def after_fault(self, trial: TrialRecord, fault: Fault) -> dict[str, Any] | End:
        """The change to the config for a restart of a trial, or how the trial ended."""
        if trial.done:  # the fault came after its last report
            return how_it_ended(trial)
        change = change_to_retry(trial, fault, self.plan.max_failures)
        if change is not None:
            return change
        starts = len(trial.faults) + 1
        return End(fault.status, fault.reason + (f" (start {starts})" if starts > 1 else ""))

    def kept(self, keep: int) -> int:
        """How many configurations keep their checkpoints during the run: replicates may change which are the best."""
        replicated = self.plan.replicate_top if self.plan.replicates > 1 else 0
        return max(keep, replicated, self.plan.confirm + 1)


def is_open(trial: TrialRecord) -> bool:
    """Whether a search still has to end this trial; a retraining is not a trial of the search."""
    return trial.status not in ENDED and trial.role != "retrain"


def how_it_ended(trial: TrialRecord, run_ends: str | None = None) -> End:
    """How a trial without an error ended.

    Args:
        trial: the trial with all its reports.
        run_ends: why the whole run ends early: `interrupted`, `time budget` or None.
    """
    if trial.trained_out and trial.done:
        patience = trial.config["optim.early_stop_epochs"]
        return End("finished", f"early stop: no better epoch in {patience}" if trial.early_stopped else None)
    if trial.cut is not None and trial.done:
        return End("stopped", trial.cut)
    return End("interrupted", "the time budget was used up" if run_ends == "time budget" else "the run was interrupted")


def next_number(record: RunRecord) -> int:
    """The number of the next trial, unused by recorded trials and by those that a repair of the record dropped."""
    names = [*record.trials, *record.lost_trials]
    return max([len(record.trials), *(int(name[1:]) + 1 for name in names if _NUMBERED.fullmatch(name))])
