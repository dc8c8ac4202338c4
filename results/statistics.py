"""Intervals, tests of differences, and corrections for multiple comparisons.

docs/statistics.md describes the method.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit  # not scipy.stats: it takes a second to load

LEVEL = 0.95
"""Coverage of every interval; a difference is significant if its p-value is below 1 - LEVEL."""

ROUNDING = 1e-9
"""A standard deviation of resamples below this is rounding error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two scores with its uncertainty.

    Attributes:
        estimate: first minus second.
        low, high: the interval.
        p: two-sided p-value of no difference, before any correction.
        image_error: standard error from the sample of images.
        seed_error: standard error from the seeds; None if trained models are compared.
        replicates: mean number of replicates per side; 0 for models.
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
    """The Wilson score interval of a proportion.

    Args:
        point: the observed proportion, in [0, 1].
        size: sample size.
        quantile: number of standard errors to each side; if infinite, the interval is [0, 1].

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
    """The 95 % Wilson interval of a score over images, within [0, 1].

    A score that is not a share of images is treated as a share of an effective sample: the number of images with which
    a share has the variance that the bootstrap finds. If all resamples are equal, that is the number of images. Because
    the variance is estimated, Student's t is used instead of the normal distribution. Average precision is biased
    upwards on few images, so the lower end is lowered by the bias that the resamples show.

    Args:
        point: the score.
        resampled: float64 [resamples]; NaN if a resample has no score.
        num_images: images that count for the score.
        share: whether the score is the share of images that are read correctly.

    Source:
        Bias: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 10.
        Effective sample size and Student's t: Korn and Graubard 1998, Confidence intervals for proportions with small
        expected number of positive counts estimated from survey data; with Wilson's interval: Dean and Pagano 2015,
        Evaluating confidence interval methods for binomial proportions in clustered surveys.
    """
    tail = (1 - LEVEL) / 2
    if share:
        return wilson(point, num_images, -float(ndtri(tail)))
    variance = _spread(resampled) ** 2
    size = max(point * (1 - point) / variance, 1.0) if variance else float(num_images)
    low, high = wilson(point, size, -_student(num_images - 1, tail))
    solid = resampled[~np.isnan(resampled)]
    bias = float(solid.mean()) - point if len(solid) else 0.0
    return max(low - max(bias, 0.0), 0.0), high


def model_difference(
    first: float,
    second: float,
    first_resampled: NDArray[np.float64],
    second_resampled: NDArray[np.float64],
    num_images: int,
) -> Difference:
    """The difference of two trained models; the sample of images is the only source of variance.

    Args:
        first: score of the first model.
        second: score of the second model.
        first_resampled: float64 [resamples].
        second_resampled: float64 [resamples], for the same resamples of the images.
        num_images: images that count for the score.
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
    """The difference of two configurations with replicates; images and seeds are sources of variance.

    The intervals of the two parts are combined by the root of the sum of their squares.

    Args:
        first: scores of the first configuration, one per seed.
        second: scores of the second configuration, one per seed.
        first_resampled: float64 [seeds, resamples].
        second_resampled: float64 [seeds, resamples], for the same resamples of the images.
        num_images: images that count for the score.
        seed_variance: variance of a score over seeds, pooled over the replicated configurations of the run.
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
    """The difference of the same models scored at two threshold values; most of the variance cancels.

    Args:
        values: first minus second, one per model; at least two.
        resampled: float64 [models, resamples], first minus second for each resample of the images.
        num_images: images that count for the score.
    """
    freedom = len(values) - 1
    seeds = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    images = Images(image_error(resampled.mean(axis=0), num_images), num_images)
    return _difference(float(np.mean(values)), images, seeds, freedom, len(values))


def mean_interval(
    values: Sequence[float], resampled: NDArray[np.float64], num_images: int, seed_variance: float, freedom: int
) -> tuple[float, float]:
    """The interval of a configuration's mean score over images and seeds; arguments as in `setting_difference`."""
    mean = float(np.mean(values))
    seeds = -_student(max(freedom, 1), (1 - LEVEL) / 2) * math.sqrt(seed_variance / len(values))
    low, high = interval(mean, resampled.mean(axis=0), num_images)
    return max(mean - math.hypot(mean - low, seeds), 0.0), min(mean + math.hypot(high - mean, seeds), 1.0)


def single_run_reach(seed_variance: float, freedom: int) -> float:
    """The difference that two trainings of one configuration stay below in 95 % of cases, by their seeds only.

    Args:
        seed_variance: an estimate, for example from `pooled_variance`.
        freedom: its degrees of freedom, at least 1.
    """
    return -_student(freedom, (1 - LEVEL) / 2) * math.sqrt(2 * seed_variance)


def pooled_variance(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Pooled variance within groups and its degrees of freedom (0 if no group has two values)."""
    freedom = sum(len(group) - 1 for group in groups if len(group) > 1)
    squares = sum(float(((np.asarray(group) - np.mean(group)) ** 2).sum()) for group in groups if len(group) > 1)
    return (squares / freedom if freedom else 0.0), freedom


def holm(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values corrected for multiple comparisons; compare each with 1 - LEVEL.

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(values, kind="stable")
    raised = np.asarray(values, dtype=np.float64)[order] * (len(order) - np.arange(len(order)))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected


def image_error(differences: NDArray[np.float64], num_images: int) -> float:
    """The standard error of a difference from the sample of images.

    If all resamples have the same difference, it is 2 / num_images: with no observed difference, a true difference of
    about 4 / num_images in each direction is still possible.

    Args:
        differences: float64 [resamples], first minus second; NaN if a resample has no score.
        num_images: images that count for the score.

    Source:
        Tango 1998, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design: without discordant pairs the interval extends to z² / (n + z²) on each side.
    """
    return _spread(differences) or 2 / num_images


def image_p_values(sizes: NDArray[np.float64], errors: NDArray[np.float64], num_images: int) -> NDArray[np.float64]:
    """p-values of differences whose only source of variance is the sample of images; see `Images`.

    Args:
        sizes: float64, absolute differences.
        errors: float64 of the same shape, their standard errors from `image_error`.
        num_images: images that count for the score.

    Returns:
        float64 of the same shape.
    """
    if num_images < 2:
        return np.ones_like(sizes)
    return np.asarray(2 * stdtr(num_images - 1, -sizes / np.sqrt(errors**2 + sizes**2 / num_images)))


@dataclass(frozen=True, slots=True)
class Images:
    """The part of a difference's error that comes from the sample of images.

    The test uses the standard error under the hypothesis of no difference: a few images that all favour one side are
    not significant, even if all resamples agree. For a share of images this is McNemar's test. Because Student's t is
    used, no difference is significant with fewer than seven images.

    Attributes:
        error: standard error from `image_error`.
        number: images that count for the score.

    Source:
        McNemar 1947, Note on the sampling error of the difference between correlated proportions or percentages;
        Fagerland, Lydersen and Laake 2013, The McNemar test for binary matched-pairs data, on its error rates.
    """

    error: float
    number: int

    def reach(self, tail: float) -> float:
        """Half the width of the interval that excludes the probability `tail` at each end."""
        student = _student(self.number - 1, tail)
        left = 1 - student**2 / self.number
        return -student * self.error / math.sqrt(left) if left > 0 else math.inf


def _spread(values: NDArray[np.float64]) -> float:
    """Standard deviation of the resamples that have a score; 0 if they are all equal."""
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
    """Half the width of the interval that excludes a probability of exp(log_level)."""
    tail = math.exp(log_level) / 2
    return math.hypot(images.reach(tail), _student(freedom, tail) * seeds if seeds else 0.0)


def _p_value(size: float, images: Images, seeds: float, freedom: float) -> float:
    """The probability that is excluded by the interval whose end is exactly at 0."""
    if not seeds:
        return float(image_p_values(np.array(size), np.array(images.error), images.number))
    low, high = -200.0, 0.0
    for _ in range(60):  # the interval shrinks as the excluded probability grows
        middle = (low + high) / 2
        low, high = (middle, high) if _reach(middle, images, seeds, freedom) > size else (low, middle)
    return math.exp(high)
