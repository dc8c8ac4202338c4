"""Which differences are real: intervals, the two sources of luck, corrections (numpy, scipy's distributions).

docs/statistics.md tells the method in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit  # the distributions alone: scipy.stats takes a second to load

LEVEL = 0.95
"""Coverage of every interval; a verdict needs a p-value under 1 - LEVEL."""

POWER = 0.8
"""How surely a difference of the size seen would be found with the replicates or images that are proposed."""

MAX_SENSIBLE = 1000
"""More replicates than this are not proposed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two scores, and how far luck may have made it.

    Attributes:
        estimate: first minus second.
        low, high: the interval.
        p: two-sided, of no difference; before any correction.
        image_error: standard error from the choice of images.
        seed_error: standard error from the seeds; None when two trained models are compared as they are.
        replicates: fresh seeds per side, on average; 0 for models.
    """

    estimate: float
    low: float
    high: float
    p: float
    image_error: float
    seed_error: float | None
    replicates: float

    @property
    def error(self) -> float:
        """Standard error of the estimate."""
        return math.hypot(self.image_error, self.seed_error or 0.0)

    def swapped(self) -> "Difference":
        """Second minus first."""
        return Difference(
            -self.estimate,
            -self.high,
            -self.low,
            self.p,
            self.image_error,
            self.seed_error,
            self.replicates,
        )


def interval(point: float, resampled: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of a score over images, within [0, 1].

    Percentiles of the bootstrap, moved so that its mean lies on the score: an image drawn twice confirms
    itself, which lifts AP a little in every resample.

    Args:
        point: the score on the images as they are.
        resampled: float64 [resamples]; NaN where a resample has none.

    Source:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 10 (bias) and 13 (percentiles).
    """
    solid = resampled[~np.isnan(resampled)]
    if not len(solid):
        return 0.0, 1.0
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(solid, [tail, 1 - tail]) + point - solid.mean()
    return float(min(max(low, 0.0), point)), float(max(min(high, 1.0), point))


def model_difference(
    first: float, second: float, first_resampled: NDArray[np.float64], second_resampled: NDArray[np.float64]
) -> Difference:
    """Two trained models as they are, on images like these: the images are the only luck.

    Args:
        first: its score.
        second: that of the other.
        first_resampled: float64 [resamples].
        second_resampled: the same under the same resamples of the same images.
    """
    error = _spread(first_resampled - second_resampled)
    return _difference(first - second, error, None, math.inf, 0.0)


def setting_difference(
    first: Sequence[float],
    second: Sequence[float],
    first_resampled: NDArray[np.float64],
    second_resampled: NDArray[np.float64],
    seed_variance: float,
    freedom: int,
) -> Difference:
    """Two settings, each trained with fresh seeds: images and seeds are luck.

    The two parts' own intervals, normal for the images and Student's t for the seeds, are joined by the root of
    the sum of their squares.

    Args:
        first: scores, one per seed.
        second: those of the other.
        first_resampled: float64 [seeds, resamples].
        second_resampled: the same under the same resamples of the same images.
        seed_variance: variance of a score over seeds, pooled over the run's replicated settings.
        freedom: its degrees of freedom.

    Source:
        Zou and Donner 2008, Construction of confidence limits about effect measures (recovering variances from the
        limits of each part).
    """
    images = _spread(first_resampled.mean(axis=0) - second_resampled.mean(axis=0))
    seeds = math.sqrt(seed_variance * (1 / len(first) + 1 / len(second)))
    per_side = 2 / (1 / len(first) + 1 / len(second))
    return _difference(float(np.mean(first) - np.mean(second)), images, seeds, freedom, per_side)


def paired_difference(values: Sequence[float], resampled: NDArray[np.float64]) -> Difference:
    """Two readings of the same trained models: each model is compared with itself, so most of its luck cancels.

    Args:
        values: first minus second, one per model; two at least.
        resampled: float64 [models, resamples], the same under each resample of the images.
    """
    freedom = len(values) - 1
    seeds = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return _difference(float(np.mean(values)), _spread(resampled.mean(axis=0)), seeds, freedom, len(values))


def mean_interval(
    values: Sequence[float], resampled: NDArray[np.float64], seed_variance: float, freedom: int
) -> tuple[float, float]:
    """The interval of a setting's mean score, images and seeds being luck; arguments as in `setting_difference`."""
    seeds = math.sqrt(seed_variance / len(values))
    reach = _reach(math.log(1 - LEVEL), _spread(resampled.mean(axis=0)), seeds, max(freedom, 1))
    mean = float(np.mean(values))
    return max(mean - reach, 0.0), min(mean + reach, 1.0)


def single_run_reach(seed_variance: float, freedom: int) -> float:
    """How far apart two single trainings of one setting lie, in 95 % of cases, by their seeds alone.

    Args:
        seed_variance: estimated, as by `pooled_variance`.
        freedom: its degrees of freedom, at least 1.
    """
    return -float(stdtrit(freedom, (1 - LEVEL) / 2)) * math.sqrt(2 * seed_variance)


def pooled_variance(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Variance within groups, over all of them, and its degrees of freedom (0 when nothing is repeated)."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    squares = sum(float(((np.asarray(group) - np.mean(group)) ** 2).sum()) for group in groups if len(group) > 1)
    return (squares / freedom if freedom else 0.0), freedom


def holm(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values corrected for being many; each may be compared with 1 - LEVEL as if it stood alone.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(values, kind="stable")
    raised = np.asarray(values, dtype=np.float64)[order] * (len(order) - np.arange(len(order)))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected


def needed(difference: Difference, num_images: int, comparisons: int = 1, unit: str = "replicates of each") -> str:
    """What it would take to tell a difference of this size, in words.

    Replicates where the seeds are what hides it, else images; with LEVEL and POWER, as if more of either
    changed neither the difference nor the spread.

    Args:
        difference: not told apart as it is.
        num_images: that it was measured on.
        comparisons: how many are judged together; the strictest of Holm's levels is asked for.
        unit: what more of either side is called.
    """
    size = abs(difference.estimate)
    reach = float(ndtri(1 - (1 - LEVEL) / 2 / comparisons) + ndtri(POWER))
    if size == 0:
        return "no number of replicates or images would tell them apart"
    allowed = (size / reach) ** 2
    left = allowed - difference.image_error**2
    if difference.seed_error is not None and left > 0:
        more = math.ceil(difference.seed_error**2 * difference.replicates / left - difference.replicates)
        if more <= MAX_SENSIBLE:
            return f"needs about {max(more, 1)} more {unit}"
        return f"so small a difference would need over {MAX_SENSIBLE} replicates"
    share = 1.0 if difference.seed_error is None else 0.5  # the other half is left to the seeds
    images = math.ceil(num_images * (difference.image_error**2 / (allowed * share) - 1))
    if images > 100 * num_images:
        return "so small a difference would need over a hundred times the images"
    rounded = float(f"{max(images, 1):.1g}") if images < 10 else float(f"{images:.2g}")
    return f"needs about {rounded:,.0f} more images" + (" and more replicates" if difference.seed_error else "")


def _spread(values: NDArray[np.float64]) -> float:
    solid = values[~np.isnan(values)]
    return float(solid.std(ddof=1)) if len(solid) > 1 else 0.0


def _difference(estimate: float, images: float, seeds: float | None, freedom: float, replicates: float) -> Difference:
    reach = _reach(math.log(1 - LEVEL), images, seeds or 0.0, freedom)
    p = _p_value(abs(estimate), images, seeds or 0.0, freedom)
    return Difference(estimate, estimate - reach, estimate + reach, p, images, seeds, replicates)


def _reach(log_level: float, images: float, seeds: float, freedom: float) -> float:
    """Half the interval that leaves out a share of exp(log_level)."""
    tail = math.exp(log_level) / 2
    student = -float(stdtrit(freedom, tail)) if seeds else 0.0
    return math.hypot(-float(ndtri(tail)) * images, student * seeds)


def _p_value(size: float, images: float, seeds: float, freedom: float) -> float:
    """The share that an interval just reaching from the estimate to 0 leaves out."""
    if not images and not seeds:
        return 0.0 if size else 1.0
    if not seeds:
        return float(2 * ndtr(-size / images))
    low, high = -200.0, 0.0
    for _ in range(60):  # the reach falls as the share left out grows
        middle = (low + high) / 2
        low, high = (middle, high) if _reach(middle, images, seeds, freedom) > size else (low, middle)
    return math.exp(high)
