"""What is trained after the search itself: further seeds of what did well, and the confirmation."""

from enum import Enum
from typing import Protocol

from digits_core.config.train_config import TrainConfig
from results.record.run import RunRecord
from results.record.schema import ENDED
from results.record.trial import TrialRecord
from search.defaults import CONFIRM_SEEDS

CONFIRM_SEED = 100_000
"""Added to the search's seed for trainings that confirm; those of replicates follow on the seed itself."""

MAX_SEED = 2**31 - 1


class Idle(Enum):
    """Nothing can start now: something running must end first, or nothing is left to do."""

    WAIT = "wait"
    DONE = "done"


class Asked(Protocol):
    """What is asked to follow a search; attributes as those of `Plan`."""

    @property
    def replicates(self) -> int: ...  # noqa: D102
    @property
    def replicate_top(self) -> int: ...  # noqa: D102
    @property
    def confirm(self) -> int: ...  # noqa: D102


def most_further(asked: Asked, settings: int) -> int:
    """Trainings that may follow a search of so many settings, at most."""
    seeds = max(asked.replicates, CONFIRM_SEEDS) if asked.confirm else 0
    return min(asked.replicate_top, settings) * (asked.replicates - 1) + (asked.confirm + 1) * seeds


def next_further(record: RunRecord, asked: Asked) -> tuple[TrainConfig, str] | Idle:
    """The config and role of the next training after the search's own, or why there is none now."""
    running = sum(t.status not in ENDED for t in record.trials.values() if t.role == "search")
    if asked.replicates > 1:
        # What has ended and will stay among the best, whatever becomes of those that still run.
        certain = _survivors(record)[: max(asked.replicate_top - running, 0)]
        due = _due(record, certain, "replicate", range(1, asked.replicates))
        if due is not None:
            return due
        if running:
            return Idle.WAIT
    if asked.confirm:
        if any(t.status not in ENDED for t in record.trials.values() if t.role in ("search", "replicate")):
            return Idle.WAIT
        seeds = range(CONFIRM_SEED, CONFIRM_SEED + max(asked.replicates, CONFIRM_SEEDS))
        return _due(record, to_confirm(record, asked.confirm), "confirm", seeds) or Idle.DONE
    return Idle.DONE


def to_confirm(record: RunRecord, confirm: int) -> list[TrialRecord]:
    """The best settings that trained to their end, and the default whatever became of it."""
    leads = record.settings()
    default = [lead for lead in leads if lead.baseline == "default"]
    whole = [lead for lead in leads if lead.status == "finished" and record.value(lead) is not None]
    return [lead for lead in whole if lead not in default][:confirm] + default


def _survivors(record: RunRecord) -> list[TrialRecord]:
    """Settings whose first training came to its end, best first by that one alone, shorter trainings last."""
    short = record.short()
    leads = [lead for lead in record.trials.values() if lead.role == "search" and lead.status == "finished"]
    scored = [(value, lead) for lead in leads if (value := record.value(lead)) is not None]
    ranked = sorted(scored, key=lambda pair: (pair[1].trial_id in short, -pair[0], pair[1].trial_id))
    return [lead for _, lead in ranked]


def _due(record: RunRecord, leads: list[TrialRecord], role: str, steps: range) -> tuple[TrainConfig, str] | None:
    """The first seed that one of the settings lacks, seed after seed."""
    there = {(trial.config_hash, trial.seed) for trial in record.trials.values()}
    for step in steps:
        for lead in leads:
            seed = (lead.seed + step) % MAX_SEED
            if (lead.config_hash, seed) not in there:
                return TrainConfig.from_flat({**lead.config, "runtime.seed": seed}), role
    return None
