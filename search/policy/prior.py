"""What a search knows before its first trial: the trials of earlier runs, and values that a person believes in."""

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from digits_core.config.parameter import Flat, Scalar
from digits_core.config.train_config import parameter_named
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from search.policy.surrogate import Features, Numbers, Settings, fit_ridge

FADE_TRIALS = 6.0
"""After so many trials of the search itself, earlier knowledge counts half as much as at the start."""

FIRST_DRAWS = 256
"""Random configurations of which the best predicted one is trained directly after the baselines."""

FEWEST_TO_FIT = 4
"""With fewer scores in total nothing is predicted from scores."""

BELIEF_WIDTH = 0.2
"""A value at this share of its range away from a believed one is one standard deviation less probable."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A trial of an earlier run.

    Attributes:
        config: the parameters that differ between its trials, by flat name.
        score: how good it was among the trials of its run, as a quantile of a normal distribution.
    """

    config: Flat
    score: float

    def to_json(self) -> str:
        """As text for run.json."""
        return json.dumps({"config": self.config, "score": self.score})

    @classmethod
    def from_json(cls, text: str) -> "Learned":
        """Read the text of `to_json`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, OverflowError, ConfigError: it is damaged.
        """
        tree = json.loads(text)
        score = float(tree["score"])
        if not math.isfinite(score):
            raise ValueError("the score is not finite")
        return cls({name: parameter_named(name).check(value) for name, value in tree["config"].items()}, score)


def normal_scores(trials: Sequence[TrialRecord], metric: str) -> dict[str, float]:
    """The rank of each trial with a score, as a quantile of a normal distribution, by trial id.

    A trial that early stopping ended earlier ranks below those that went on.
    """
    scored = [
        (math.inf if trial.status == "finished" else trial.num_epochs, float(best[metric]), trial.trial_id)
        for trial in trials
        if (best := trial.best(metric)) is not None and best.get(metric) is not None
    ]
    values = sorted((epochs, value) for epochs, value, _ in scored)
    found = {}
    for epochs, value, name in scored:
        below, upto = bisect_left(values, (epochs, value)), bisect_right(values, (epochs, value))
        found[name] = NormalDist().inv_cdf((below + upto) / 2 / len(values))  # equal scores share a rank
    return found


class Prior:
    """Predicts which configurations are good, from earlier runs, beliefs and the search itself."""

    def __init__(self, learned: Sequence[Learned], believed: Mapping[str, Scalar]) -> None:
        """Remember trials of earlier runs, and the values of parameters that are believed to be good."""
        self._learned, self._believed = list(learned), dict(believed)

    def share(self, done: int) -> float:
        """How much earlier knowledge still counts after so many scored trials of the search, from 1 down to 0."""
        return FADE_TRIALS / (FADE_TRIALS + done)

    def draws(self, done: int) -> int:
        """Draws of which the best predicted one is trained; 1 leaves the choice to the sampler."""
        return max(1, round(FIRST_DRAWS * self.share(done) ** 3))

    def predict(self, settings: Settings, seen: Settings, scores: Sequence[float]) -> Numbers:
        """The expected scores of configurations, in standard deviations of a run's scores.

        Args:
            settings: the configurations, by flat name: the parameters that the space draws.
            seen: the same of the trials of this search.
            scores: of these, from `normal_scores`.
        """
        share = self.share(len(seen))
        names = {name for one in settings for name in one}
        found = np.zeros(len(settings))
        if len(self._learned) + len(seen) >= FEWEST_TO_FIT:
            known: list[Mapping[str, Scalar]] = [*(one.config for one in self._learned), *seen]
            features = Features([*settings, *known], names)
            values = np.array([*(one.score for one in self._learned), *scores])
            weight = np.concatenate([np.full(len(self._learned), share), np.ones(len(seen))])
            found += fit_ridge(features.rows(known), values, weight).mean(features.rows(settings))
        for name, value in self._believed.items():
            if name in names:
                features = Features(settings, [name])
                distance = features.plain(settings) - features.plain([{name: value}])
                if distance.shape[1]:
                    found -= share * (distance**2).mean(axis=1) / (2 * BELIEF_WIDTH**2)
        return found


def seen_of(record: RunRecord, names: Iterable[str]) -> tuple[list[Flat], list[float]]:
    """The parameters `names` of the search's own trials with a score, and their normal scores."""
    searched = [trial for trial in record.trials.values() if trial.role == "search" and trial.status != "running"]
    scores = normal_scores(searched, record.metric)
    trials = [trial for trial in searched if trial.trial_id in scores]
    seen: list[Flat] = [{name: trial.config[name] for name in names if name in trial.config} for trial in trials]
    return seen, [scores[one.trial_id] for one in trials]
