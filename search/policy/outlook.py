"""What more trials of a search would probably gain, from its record only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from results.record.run import RunRecord
from results.record.trial import TrialRecord

FEWEST_TRIALS = 8
"""Sampled configurations with a score that an outlook needs."""

FEWEST_MORE = 10
"""The outlook is for as many further configurations as were sampled, and at least for so many."""

FEWEST_SPACINGS = 3
"""Differences between neighbours among the best scores from which the upper end of the scores is estimated; with more
scores a third of them. Fewer call a search settled too early by chance, more call it settled late."""

SETTLED = 0.1
"""A search is settled if more trials gain more than asked for with at most this probability."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What further configurations would gain.

    Attributes:
        trials: sampled configurations with a score until now.
        more: further configurations.
        gain: an increase of the best score.
        chance: the probability that they increase it by more than `gain`.
        expected: the increase that is expected, 0 or more.
    """

    trials: int
    more: int
    gain: float
    chance: float
    expected: float

    @property
    def settled(self) -> bool:
        """Whether more trials are unlikely to gain more than `gain`."""
        return self.chance <= SETTLED

    def to_event(self) -> dict[str, float]:
        """The values of its event."""
        return asdict(self)


def outlook_of(record: RunRecord, gain: float) -> Outlook | None:
    """The outlook after the trials that have ended; None with fewer than FEWEST_TRIALS.

    Args:
        record: the record of the search.
        gain: the increase of the best score whose probability is computed.
    """
    searched = (one for one in record.trials.values() if one.role == "search")
    ended = [one for one in searched if one.status in ("finished", "stopped")]
    scores = whole_scores(ended, record.metric)
    sampled = [scores[one.trial_id] for one in ended if one.baseline is None and one.trial_id in scores]
    if len(sampled) < FEWEST_TRIALS:
        return None
    more, best = max(FEWEST_MORE, len(sampled)), max(scores.values())
    steps = np.linspace(0, 1, 1001)
    expected = float(np.trapezoid(chances_of(sampled, best + steps, more), steps))
    return Outlook(len(sampled), more, gain, chance_of(sampled, best + gain, more), expected)


def chance_of(scores: Sequence[float], above: float, more: int) -> float:
    """The probability that further configurations have a score above a value, see `chances_of`."""
    return float(chances_of(scores, np.array(above), more))


def chances_of(scores: Sequence[float], above: NDArray[np.float64], more: int) -> NDArray[np.float64]:
    """The probability that further configurations, drawn like those before, have a score above each value.

    The best of n scores is exceeded by the next one with probability 1 / (n + 1). Above it, scores fall off like an
    exponential distribution, whose scale is known from the spacings of the best scores: the i-th spacing times i has
    this scale. The probability is averaged over all scales that fit the spacings.

    Args:
        scores: those so far, at least two.
        above: the values, at least the best of the scores.
        more: the number of further configurations.

    Source:
        Rényi 1953 (spacings of an exponential distribution); Weissman 1978, Estimation of parameters and large
        quantiles based on the k largest observations. The average over scales, with the prior 1 / scale, is a Lomax
        distribution.
    """
    ranked = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    number = min(max(FEWEST_SPACINGS, len(ranked) // 3), len(ranked) - 1)
    spacings = (ranked[:number] - ranked[1 : number + 1]) * np.arange(1, number + 1)
    total = max(float(spacings.sum()), 1e-9)
    exceeds = (1 + np.maximum(above - ranked[0], 0.0) / total) ** -number / (len(ranked) + 1)
    return np.asarray(1 - (1 - exceeds) ** more)


def whole_scores(trials: list[TrialRecord], metric: str) -> dict[str, float]:
    """The score of each trial at the end of a whole training, by id.

    For a trial that was stopped early, the mean increase of the finished trials after the same epoch is added.
    """
    finished = [one for one in trials if one.status == "finished" and one.best(metric) is not None]
    gained: dict[int, float] = {}  # after each epoch: early stopping has few of them
    found = {}
    for trial in trials:
        best = trial.best(metric)
        if best is None:
            continue
        value, epoch = float(best[metric]), trial.num_epochs
        if trial.status == "stopped":
            if epoch not in gained:
                later = [_increase(one, metric, epoch) for one in finished if one.num_epochs > epoch]
                gained[epoch] = float(np.mean(later)) if later else 0.0
            value += gained[epoch]
        found[trial.trial_id] = value
    return found


def _increase(trial: TrialRecord, metric: str, epoch: int) -> float:
    """How much the best score of a trial increased after an epoch."""
    scores = [(at, float(values[metric])) for at, values in trial.epochs.items() if values.get(metric) is not None]
    before = [value for at, value in scores if at <= epoch]
    return max(value for _, value in scores) - max(before) if before else 0.0
