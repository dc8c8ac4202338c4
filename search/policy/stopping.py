"""The schedulers by name: ASHA, the median rule, or none. Each decides from the recorded scores only.

A rule is plain arithmetic over the scores in the order of their arrival: from the same reports it reaches the same
state and the same decisions. Ray's own schedulers keep their state in the driver's memory, and `Tuner.restore` starts
with empty ones (https://github.com/ray-project/ray/issues/30838).
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from results.record.front import front_numbers
from results.record.run import RunRecord
from results.record.schema import AIMS
from search.defaults import GRACE_EPOCHS, MEDIAN_MIN_TRIALS, REDUCTION_FACTOR, is_rung


class Rule(Protocol):
    """Decides which trials continue.

    Attributes:
        epochs: epochs of a full training; after the last one nothing is decided.
    """

    epochs: int

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """Add one score; returns why the trial must stop, or None if it continues.

        A repeated epoch, for example after a fault, changes nothing and gets the same decision as the first time.
        """


class Asha:
    """Asynchronous successive halving, the variant that stops trials instead of pausing them.

    At epochs 2, 4, 8, ... a trial continues if its score is in the better half of the trials that reached this epoch
    before it.

    Source:
        Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning; in an uninterrupted search it makes the
        same decisions as Ray's AsyncHyperBandScheduler.
    """

    def __init__(self, metric: str, epochs: int, *, grace: int = GRACE_EPOCHS, factor: int = REDUCTION_FACTOR) -> None:
        """Start with empty rungs: the first at epoch `grace`, each next one at `factor` times the epoch before."""
        self.epochs = epochs
        self._metric, self._grace, self._factor = metric, grace, factor
        self._rungs: dict[int, dict[str, float]] = {}
        self._cuts: dict[tuple[str, int], str] = {}

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """See `Rule`."""
        if not is_rung(epoch, self._grace, self._factor):
            return None
        rung = self._rungs.setdefault(epoch, {})
        if trial in rung:
            return self._cuts.get((trial, epoch))
        before = dict(rung)
        rung[trial] = value
        reason = self._reason(trial, value, before, epoch) if before and epoch < self.epochs else None
        if reason is not None:
            self._cuts[trial, epoch] = reason
        return reason

    def _reason(self, trial: str, value: float, before: dict[str, float], epoch: int) -> str | None:
        """Why a trial stops at a rung; None if it continues. `before` has the scores of the trials that came first."""
        cut = float(np.percentile(list(before.values()), 100 * (1 - 1 / self._factor)))
        if value >= cut:
            return None
        return (
            f"asha: {self._metric} {value:.3f} at epoch {epoch} lies under the cut {cut:.3f} that keeps the best "
            f"1/{self._factor} of those that came this far before"
        )


class ParetoAsha(Asha):
    """Asynchronous successive halving for several aims.

    At a rung the trials are sorted into fronts: those that no other trial is better than, then those that only they
    are better than, and so on. A trial continues if at most 1 / factor of the trials before it are in better fronts.

    Source:
        Schmucker et al. 2021, Multi-objective asynchronous successive halving (MO-ASHA), with non-dominated sorting.
    """

    def __init__(
        self,
        metric: str,
        epochs: int,
        costs: Callable[[str], tuple[float, ...]],
        *,
        grace: int = GRACE_EPOCHS,
        factor: int = REDUCTION_FACTOR,
    ) -> None:
        """Start with empty rungs as `Asha`; `costs` returns those of a trial."""
        super().__init__(metric, epochs, grace=grace, factor=factor)
        self._costs = costs

    def _reason(self, trial: str, value: float, before: dict[str, float], epoch: int) -> str | None:
        points = [(score, *self._costs(name)) for name, score in {**before, trial: value}.items()]
        *others, mine = front_numbers(points)
        better = sum(one < mine for one in others)
        if better <= len(before) / self._factor:
            return None
        return (
            f"asha: {better} of {len(before)} trials that came this far before are in better fronts of {self._metric} "
            f"and cost at epoch {epoch}, more than 1/{self._factor} of them"
        )


class Median:
    """Stops a trial whose best score is below the median of the running means of the other trials.

    Source:
        Golovin et al. 2017, Google Vizier, section 3.2.2. Ray's MedianStoppingRule also pauses trials while there is
        nothing to compare with; this rule does not, because a paused trial occupies a slot.
    """

    def __init__(self, metric: str, epochs: int) -> None:
        """Start without any score."""
        self.epochs = epochs
        self._metric = metric
        self._scores: dict[str, dict[int, float]] = {}
        self._cuts: dict[tuple[str, int], str] = {}

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """See `Rule`."""
        mine = self._scores.setdefault(trial, {})
        if epoch in mine:
            return self._cuts.get((trial, epoch))
        mine[epoch] = value
        if epoch >= self.epochs:
            return None
        means = [
            float(np.mean([score for at, score in scores.items() if at <= epoch]))
            for other, scores in self._scores.items()
            if other != trial and max(scores) >= epoch
        ]
        best = max(mine.values())
        median = float(np.median(means)) if means else 0.0
        if len(means) < MEDIAN_MIN_TRIALS or best >= median:
            return None
        self._cuts[trial, epoch] = (
            f"median: best {self._metric} {best:.3f} by epoch {epoch} is under {median:.3f}, the median of the running "
            f"means of {len(means)} other trials"
        )
        return self._cuts[trial, epoch]


class NoStopping:
    """Every trial trains to its end."""

    def __init__(self, metric: str, epochs: int) -> None:
        """Store only the number of epochs."""
        self.epochs = epochs

    def decide(self, trial: str, epoch: int, value: float) -> str | None:
        """See `Rule`."""
        return None


RULES: dict[str, type[Asha] | type[Median] | type[NoStopping]] = {"asha": Asha, "median": Median, "none": NoStopping}
"""The rule of each value of `--scheduler`."""


def fresh_rule(name: str, epochs: int, record: RunRecord) -> Rule:
    """The rule of `--scheduler NAME`, with the grace period and factor that the run started with."""
    if name == "asha":
        grace, factor = record.asha
        if record.aims:
            return ParetoAsha(
                record.metric,
                epochs,
                lambda trial: tuple(record.trials[trial].cost.get(AIMS[one], math.inf) for one in record.aims),
                grace=grace,
                factor=factor,
            )
        return Asha(record.metric, epochs, grace=grace, factor=factor)
    return RULES[name](record.metric, epochs)


class Stopping:
    """Applies the rule of `--scheduler NAME` to the recorded scores and then to a new one.

    Its state between calls is a cache: all of it can be computed from the record.
    """

    def __init__(self, name: str, epochs: int) -> None:
        """Use the rule of that name; `epochs` is the length of a full training."""
        self._name, self._epochs = name, epochs
        self._rule: Rule | None = None
        self._known = 0

    def judge(self, record: RunRecord, trial_id: str, epoch: int, value: float | None) -> str | None:
        """Why a trial stops at a score that is about to be recorded, or was just recorded; None if it continues.

        Only trials of the search are stopped. Replicates and confirmations train to their end.
        """
        if self._rule is None:
            self._rule = fresh_rule(self._name, self._epochs, record)
        for one in record.arrivals[self._known :]:
            self._decide(record, one.trial_id, one.epoch, one.value)
        self._known = len(record.arrivals)
        return self._decide(record, trial_id, epoch, value)

    def _decide(self, record: RunRecord, trial_id: str, epoch: int, value: float | None) -> str | None:
        assert self._rule is not None
        if value is None or not math.isfinite(value) or record.trials[trial_id].role != "search":
            return None
        return self._rule.decide(trial_id, epoch, value)
