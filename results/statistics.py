"""Which differences are real: intervals, the two sources of luck, corrections (numpy, scipy's distributions).

docs/statistics.md tells the method in words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit  # the distributions alone: scipy.stats takes a second to load

LEVEL = 0.95
"""Coverage of every interval; a verdict needs a p-value under 1 - LEVEL."""

POWER = 0.8
"""How surely a difference of the size seen would be found with the replicates or images that are proposed."""

MAX_SENSIBLE = 1000
"""More replicates than this are not proposed."""

ROUNDING = 1e-9
"""A spread of resamples below this is rounding."""


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


def wilson(point: float, size: float, quantile: float) -> tuple[float, float]:
    """The score interval of a share.

    Args:
        point: the share seen, in [0, 1].
        size: of how many it is a share.
        quantile: standard errors to either side; with infinitely many the interval is all of [0, 1].

    Source:
        Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if math.isinf(quantile):
        return 0.0, 1.0
    square = quantile**2 / size
    middle = (point + square / 2) / (1 + square)
    half = math.sqrt(square * (point * (1 - point) + square / 4)) / (1 + square)
    return max(min(middle - half, point), 0.0), min(max(middle + half, point), 1.0)


def interval(
    point: float, resampled: NDArray[np.float64], num_images: int, *, share: bool = False
) -> tuple[float, float]:
    """The 95 % interval of a score over images, within [0, 1]: Wilson's.

    A score that is no share of images counts as a share of as many as give it the variance that the bootstrap finds:
    its effective sample size. Where no resample differs, that is the number of images. The variance is an estimate
    from the images, so Student's t takes the place of the normal distribution.

    Args:
        point: the score on the images as they are.
        resampled: float64 [resamples]; NaN where a resample has none.
        num_images: images that bear on the score.
        share: whether the score is the share of the images that are right.

    Source:
        Effective sample size and Student's t: Korn and Graubard 1998, Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data; with Wilson's interval: Dean and Pagano 2015,
        Evaluating confidence interval methods for binomial proportions in clustered surveys.
    """
    tail = (1 - LEVEL) / 2
    if share:
        return wilson(point, num_images, -float(ndtri(tail)))
    variance = _spread(resampled) ** 2
    size = max(point * (1 - point) / variance, 1.0) if variance else float(num_images)
    return wilson(point, size, -_student(num_images - 1, tail))


def model_difference(
    first: float,
    second: float,
    first_resampled: NDArray[np.float64],
    second_resampled: NDArray[np.float64],
    num_images: int,
) -> Difference:
    """Two trained models as they are, on images like these: the images are the only luck.

    Args:
        first: its score.
        second: that of the other.
        first_resampled: float64 [resamples].
        second_resampled: the same under the same resamples of the same images.
        num_images: images that bear on the score.
    """
    images = Images(image_error(first_resampled - second_resampled, num_images), num_images)
    return _difference(first - second, images, None, math.inf, 0.0)


def setting_difference(
    first: Sequence[float],
    second: Sequence[float],
    first_resampled: NDArray[np.float64],
    second_resampled: NDArray[np.float64],
    num_images: int,
    seed_variance: float,
    freedom: int,
) -> Difference:
    """Two settings, each trained with fresh seeds: images and seeds are luck.

    The two parts' own intervals are joined by the root of the sum of their squares.

    Args:
        first: scores, one per seed.
        second: those of the other.
        first_resampled: float64 [seeds, resamples].
        second_resampled: the same under the same resamples of the same images.
        num_images: images that bear on the score.
        seed_variance: variance of a score over seeds, pooled over the run's replicated settings.
        freedom: its degrees of freedom.

    Source:
        Zou and Donner 2008, Construction of confidence limits about effect measures (recovering variances from the
        limits of each part).
    """
    means = first_resampled.mean(axis=0) - second_resampled.mean(axis=0)
    images = Images(image_error(means, num_images), num_images)
    seeds = math.sqrt(seed_variance * (1 / len(first) + 1 / len(second)))
    per_side = 2 / (1 / len(first) + 1 / len(second))
    return _difference(float(np.mean(first) - np.mean(second)), images, seeds, freedom, per_side)


def paired_difference(values: Sequence[float], resampled: NDArray[np.float64], num_images: int) -> Difference:
    """Two readings of the same trained models: each model is compared with itself, so most of its luck cancels.

    Args:
        values: first minus second, one per model; two at least.
        resampled: float64 [models, resamples], the same under each resample of the images.
        num_images: images that bear on the score.
    """
    freedom = len(values) - 1
    seeds = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    images = Images(image_error(resampled.mean(axis=0), num_images), num_images)
    return _difference(float(np.mean(values)), images, seeds, freedom, len(values))


def mean_interval(
    values: Sequence[float], resampled: NDArray[np.float64], num_images: int, seed_variance: float, freedom: int
) -> tuple[float, float]:
    """The interval of a setting's mean score, images and seeds being luck; arguments as in `setting_difference`."""
    mean = float(np.mean(values))
    seeds = -_student(max(freedom, 1), (1 - LEVEL) / 2) * math.sqrt(seed_variance / len(values))
    low, high = interval(mean, resampled.mean(axis=0), num_images)
    return max(mean - math.hypot(mean - low, seeds), 0.0), min(mean + math.hypot(high - mean, seeds), 1.0)


def single_run_reach(seed_variance: float, freedom: int) -> float:
    """How far apart two single trainings of one setting lie, in 95 % of cases, by their seeds alone.

    Args:
        seed_variance: estimated, as by `pooled_variance`.
        freedom: its degrees of freedom, at least 1.
    """
    return -_student(freedom, (1 - LEVEL) / 2) * math.sqrt(2 * seed_variance)


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
    changed neither the difference nor the spread. Of equal scores it says which difference would have been found.

    Args:
        difference: not told apart as it is.
        num_images: that it was measured on.
        comparisons: how many are judged together; the strictest of Holm's levels is asked for.
        unit: what more of either side is called.
    """
    size = abs(difference.estimate)
    reach = float(ndtri(1 - (1 - LEVEL) / 2 / comparisons) + ndtri(POWER))
    if size < ROUNDING:
        return (
            f"the scores are equal; a difference under {min(reach * difference.error, 1.0):.3f} would often be missed"
        )
    allowed = (size / reach) ** 2
    left = allowed - difference.image_error**2
    if difference.seed_error is not None and left > 0:
        more = math.ceil(difference.seed_error**2 * difference.replicates / left - difference.replicates)
        if more <= MAX_SENSIBLE:
            return f"needs about {max(more, 1)} more {unit}"
        return f"a difference this small needs more than {MAX_SENSIBLE:,} {unit}"
    share = 1.0 if difference.seed_error is None else 0.5  # the other half is left to the seeds
    images = math.ceil(num_images * (difference.image_error**2 / (allowed * share) - 1))
    if images > 100 * num_images:
        return "a difference this small needs more than a hundred times the images"
    rounded = float(f"{max(images, 1):.1g}") if images < 10 else float(f"{images:.2g}")
    return f"needs about {rounded:,.0f} more images" + (" and more replicates" if difference.seed_error else "")


def image_error(differences: NDArray[np.float64], num_images: int) -> float:
    """The standard error of a difference from the choice of images.

    Where the difference is the same in every resample, it is taken as 2 / num_images: images without any difference
    still leave open one of about 4 images to either side.

    Args:
        differences: float64 [resamples], first minus second; NaN where a resample has none.
        num_images: images that bear on the score.

    Source:
        Tango 1998, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design: without any discordant pair its interval reaches z² / (n + z²) to either side.
    """
    return _spread(differences) or 2 / num_images


def image_p_values(sizes: NDArray[np.float64], errors: NDArray[np.float64], num_images: int) -> NDArray[np.float64]:
    """p-values of differences of which images are the only luck; see `Images`.

    Args:
        sizes: float64, how large the differences are.
        errors: float64 of the same shape, their standard errors, as `image_error` gives them.
        num_images: images that bear on the score.

    Returns:
        float64 of the same shape.
    """
    if num_images < 2:
        return np.ones_like(sizes)
    return np.asarray(2 * stdtr(num_images - 1, -sizes / np.sqrt(errors**2 + sizes**2 / num_images)))


@dataclass(frozen=True, slots=True)
class Images:
    """The part of a difference's error that the choice of images makes.

    A difference is held against the spread that there would be without it: a few images that all speak for one side
    are no proof, however alike the resamples look. On a share of images that is McNemar's test. With Student's t in
    place of the normal distribution nothing can be told from fewer than seven images.

    Attributes:
        error: standard error, as `image_error` gives it.
        number: images that bear on the score.

    Source:
        McNemar 1947, Note on the sampling error of the difference between correlated proportions or percentages;
        Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data, on its error rates.
    """

    error: float
    number: int

    def reach(self, tail: float) -> float:
        """How far the interval reaches to either side that leaves out `tail` at each end."""
        student = _student(self.number - 1, tail)
        left = 1 - student**2 / self.number
        return -student * self.error / math.sqrt(left) if left > 0 else math.inf


def _spread(values: NDArray[np.float64]) -> float:
    """Standard deviation of the resamples that have a score; 0 where they are all the same."""
    solid = values[~np.isnan(values)]
    found = float(solid.std(ddof=1)) if len(solid) > 1 else 0.0
    return found if found > ROUNDING else 0.0


def _student(freedom: float, tail: float) -> float:
    """The quantile of Student's t; minus infinity without degrees of freedom."""
    return float(stdtrit(freedom, tail)) if freedom >= 1 else -math.inf


def _difference(estimate: float, images: Images, seeds: float | None, freedom: float, replicates: float) -> Difference:
    reach = _reach(math.log(1 - LEVEL), images, seeds or 0.0, freedom)
    p = _p_value(abs(estimate), images, seeds or 0.0, freedom)
    low, high = max(estimate - reach, -1.0), min(estimate + reach, 1.0)
    return Difference(estimate, low, high, p, images.error, seeds, replicates)


def _reach(log_level: float, images: Images, seeds: float, freedom: float) -> float:
    """Half the interval that leaves out a share of exp(log_level)."""
    tail = math.exp(log_level) / 2
    return math.hypot(images.reach(tail), _student(freedom, tail) * seeds if seeds else 0.0)


def _p_value(size: float, images: Images, seeds: float, freedom: float) -> float:
    """The share that an interval just reaching from the estimate to 0 leaves out."""
    if not seeds:
        return float(image_p_values(np.array(size), np.array(images.error), images.number))
    low, high = -200.0, 0.0
    for _ in range(60):  # the reach falls as the share left out grows
        middle = (low + high) / 2
        low, high = (middle, high) if _reach(middle, images, seeds, freedom) > size else (low, middle)
    return math.exp(high)
