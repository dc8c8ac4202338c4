"""What is trained after the search itself: replicates of the best configurations, and confirmations."""

from enum import Enum
from typing import Protocol

from digits_core.config.train_config import TrainConfig
from results.record.run import RunRecord
from results.record.schema import ENDED
from results.record.trial import TrialRecord
from search.defaults import CONFIRM_SEEDS

CONFIRM_SEED = 100_000
"""Added to the search's seed for confirmations; replicates use the numbers directly after the search's seed."""

MAX_SEED = 2**31 - 1


class Idle(Enum):
    """Nothing can start now: WAIT for a running trial to end, or the search is DONE."""

    WAIT = "wait"
    DONE = "done"


class Asked(Protocol):
    """The trainings to run after a search; attributes as in `Plan`."""

    @property
    def replicates(self) -> int: ...  # noqa: D102
    @property
    def replicate_top(self) -> int: ...  # noqa: D102
    @property
    def confirm(self) -> int: ...  # noqa: D102


def most_further(asked: Asked, settings: int) -> int:
    """The maximum number of trainings after a search of `settings` configurations."""
    seeds = max(asked.replicates, CONFIRM_SEEDS) if asked.confirm else 0
    return min(asked.replicate_top, settings) * (asked.replicates - 1) + (asked.confirm + 1) * seeds


def next_further(record: RunRecord, asked: Asked) -> tuple[TrainConfig, str] | Idle:
    """The config and role of the next replicate or confirmation, or why none can start now."""
    running = sum(t.status not in ENDED for t in record.trials.values() if t.role == "search")
    if asked.replicates > 1:
        # Ended configurations that stay among the best, whatever scores the running ones reach.
        certain = record.whole_first_trainings()[: max(asked.replicate_top - running, 0)]
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
    """The best configurations that trained to their end, and the default with any status."""
    leads = record.settings()
    default = [lead for lead in leads if lead.baseline == "default"]
    whole = [lead for lead in leads if lead.status == "finished" and record.value(lead) is not None]
    return [lead for lead in whole if lead not in default][:confirm] + default


def _due(record: RunRecord, leads: list[TrialRecord], role: str, steps: range) -> tuple[TrainConfig, str] | None:
    """The first missing training: every configuration gets a seed before any gets the next seed."""
    there = {(trial.config_hash, trial.seed) for trial in record.trials.values()}
    for step in steps:
        for lead in leads:
            seed = (lead.seed + step) % MAX_SEED
            if (lead.config_hash, seed) not in there:
                return TrainConfig.from_flat({**lead.config, "runtime.seed": seed}), role
    return None
