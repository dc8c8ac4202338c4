"""What is trained after the search itself: further seeds of what did well, and the confirmation."""

from digits_core.config import TrainConfig
from results.record import RunRecord, TrialRecord
from results.schema import ENDED
from search.defaults import CONFIRM_SEEDS

CONFIRM_SEED = 100_000
"""Added to the search's seed for trainings that confirm; those of replicates follow on the seed itself."""

MAX_SEED = 2**31 - 1


class Waiting:
    """Something will be due once what runs now has ended."""


class FurtherTrials:
    """Decides from the record alone, so that a resumed run goes on where it stood."""

    def __init__(self, record: RunRecord, *, replicates: int, top: int, confirm: int) -> None:
        """Plan what follows a search.

        Args:
            record: the run's, as it grows.
            replicates: trainings of each of the best settings in all, the search's own among them.
            top: how many settings get them.
            confirm: how many settings are confirmed, beside the default; 0 confirms none.
        """
        self._record, self._replicates, self._top, self._confirm = record, replicates, top, confirm

    def most(self, settings: int) -> int:
        """Trainings that may follow a search of so many settings, at most."""
        seeds = max(self._replicates, CONFIRM_SEEDS) if self._confirm else 0
        return min(self._top, settings) * (self._replicates - 1) + (self._confirm + 1) * seeds

    def next(self) -> tuple[TrainConfig, str] | type[Waiting] | None:
        """The config and role of the next training; Waiting, or None when all is done."""
        running = sum(t.status not in ENDED for t in self._record.trials.values() if t.role == "search")
        if self._replicates > 1:
            # What has ended and will stay among the best, whatever becomes of those that still run.
            certain = self._survivors()[: max(self._top - running, 0)]
            due = self._due(certain, "replicate", range(1, self._replicates))
            if due is not None:
                return due
            if running:
                return Waiting
        if self._confirm:
            if any(t.status not in ENDED for t in self._record.trials.values() if t.role in ("search", "replicate")):
                return Waiting
            seeds = range(CONFIRM_SEED, CONFIRM_SEED + max(self._replicates, CONFIRM_SEEDS))
            return self._due(self.to_confirm(), "confirm", seeds)
        return None

    def to_confirm(self) -> list[TrialRecord]:
        """The best settings that trained to their end, and the default whatever became of it."""
        leads = self._record.settings()
        default = [lead for lead in leads if lead.baseline == "default"]
        whole = [lead for lead in leads if lead.status == "finished" and self._record.value(lead) is not None]
        return [lead for lead in whole if lead not in default][: self._confirm] + default

    def _survivors(self) -> list[TrialRecord]:
        """Settings whose first training came to its end, best first by that one alone, shorter trainings last."""
        short = self._record.short()
        leads = [lead for lead in self._record.trials.values() if lead.role == "search" and lead.status == "finished"]
        scored = [(value, lead) for lead in leads if (value := self._record.value(lead)) is not None]
        ranked = sorted(scored, key=lambda pair: (pair[1].trial_id in short, -pair[0], pair[1].trial_id))
        return [lead for _, lead in ranked]

    def _due(self, leads: list[TrialRecord], role: str, steps: range) -> tuple[TrainConfig, str] | None:
        """The first seed that one of the settings lacks, seed after seed."""
        there = {(trial.config_hash, trial.seed) for trial in self._record.trials.values()}
        for step in steps:
            for lead in leads:
                seed = (lead.seed + step) % MAX_SEED
                if (lead.config_hash, seed) not in there:
                    return TrainConfig.from_flat({**lead.config, "runtime.seed": seed}), role
        return None
