"""The policy of a search: what happens next, read from the record and the plan alone.

No Ray, no files, no clock. A search that was interrupted reads its events and asks the same questions, so it goes on as
it would have; `search.replay` asks them again.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from results.record.run import RunRecord
from results.record.schema import ENDED
from results.record.trial import TrialRecord
from search.policy.faults import Fault, change_to_retry
from search.policy.plan import Plan
from search.policy.proposals import Proposed, Proposer
from search.policy.replicates import Idle, next_further
from search.policy.screen import Screen
from search.policy.stopping import Stopping

_NUMBERED = re.compile(r"t\d{4,9}")
"""The id of a trial of the search."""


@dataclass(frozen=True, slots=True)
class Start:
    """A trial on record goes on, or begins."""

    trial_id: str


@dataclass(frozen=True, slots=True)
class Add:
    """A new trial is to be written down; the next action starts it, unless the screen keeps it from being trained."""

    trial_id: str
    role: str
    proposed: Proposed


@dataclass(frozen=True, slots=True)
class Close:
    """A trial has nothing left to train, and its end is not on record: the driver was killed before it."""

    trial_id: str


Action = Start | Add | Close | Idle


@dataclass(frozen=True, slots=True)
class End:
    """How a trial ended.

    Attributes:
        status: as in the leaderboard.
        reason: in words; None for a training that came to its plain end.
    """

    status: str
    reason: str | None = None


class Policy:
    """Decides what a search does. What it keeps between calls follows from the record and only saves time."""

    def __init__(self, plan: Plan, screen: Screen | None = None) -> None:
        """Decide for a plan; `screen` measures the anchors of each setting, None measures none."""
        self.plan, self.screen = plan, screen
        self._proposer = Proposer(plan, screen)
        self._stopping = Stopping(plan.scheduler, plan.base.optim.epochs)

    def next_action(self, record: RunRecord, running: Collection[str] = (), closing: Collection[str] = ()) -> Action:
        """What to do with a free slot.

        Args:
            record: the run's.
            running: the trials in the other slots.
            closing: trials that have trained; their ends are written once the disk has room.

        Raises:
            SpaceError: the space drew a setting that cannot be.
        """
        for trial in record.trials.values():
            if is_open(trial) and trial.trial_id not in running and trial.trial_id not in closing:
                return Close(trial.trial_id) if trial.done else Start(trial.trial_id)
        found, role = self._proposer.next(record), "search"
        if found is None:
            due = next_further(record, self.plan)
            if isinstance(due, Idle):
                return Idle.WAIT if running else due  # a fault may yet bring back one of those that run
            config, role = due
            found = Proposed(config, coverage=None if self.screen is None else self.screen.measure(config))
        return Add(f"t{next_number(record):04d}", role, found)

    def judge(self, record: RunRecord, trial_id: str, epoch: int, value: float | None) -> str | None:
        """Why a trial stops at a score; None lets it go on. Asked again, it says the same."""
        return self._stopping.judge(record, trial_id, epoch, value)

    def after_fault(self, trial: TrialRecord, fault: Fault) -> dict[str, Any] | End:
        """The change to its config that a trial is started again with, or how it ended."""
        if trial.done:  # it broke off after its last word
            return how_it_ended(trial)
        change = change_to_retry(trial, fault, self.plan.max_failures)
        if change is not None:
            return change
        starts = len(trial.faults) + 1
        return End(fault.status, fault.reason + (f" (start {starts})" if starts > 1 else ""))

    def kept(self, keep: int) -> int:
        """Settings whose checkpoints stay while the run goes on: replicates may yet change which are the best."""
        replicated = self.plan.replicate_top if self.plan.replicates > 1 else 0
        return max(keep, replicated, self.plan.confirm + 1)


def is_open(trial: TrialRecord) -> bool:
    """Whether the end of a trial is still to come; that of a retraining is not a search's affair."""
    return trial.status not in ENDED and trial.role != "retrain"


def how_it_ended(trial: TrialRecord, run_ends: str | None = None) -> End:
    """How a trial ended that no error ended.

    Args:
        trial: with all its reports.
        run_ends: why the whole run ends early: `interrupted`, `time budget` or None.
    """
    if trial.trained_out and trial.done:
        patience = trial.config["optim.early_stop_epochs"]
        return End("finished", f"early stop: no better epoch in {patience}" if trial.early_stopped else None)
    if trial.cut is not None and trial.done:
        return End("stopped", trial.cut)
    return End("interrupted", "the time budget was used up" if run_ends == "time budget" else "the run was interrupted")


def next_number(record: RunRecord) -> int:
    """The number of the next trial: its id is that of no trial on record, and of none that a repair dropped."""
    names = [*record.trials, *record.lost_trials]
    return max([len(record.trials), *(int(name[1:]) + 1 for name in names if _NUMBERED.fullmatch(name))])
