"""How many replicates or images a difference needs to be significant."""

import math
from typing import NamedTuple

from scipy.special import ndtri

from results.statistics import LEVEL, ROUNDING, Difference

POWER = 0.8
"""Probability of finding a difference of the observed size with the proposed number of replicates or images."""

MAX_SENSIBLE = 1000
"""The largest number of replicates that is proposed."""

MOST_TIMES = 100
"""The largest number of images that is proposed, as a multiple of those there are."""


class Way(NamedTuple):
    """One way to make a difference significant, at LEVEL and POWER.

    Attributes:
        replicates: more trainings of each side; 0 if the number stays.
        images: more images that count for the score; 0 if the number stays.
    """

    replicates: int
    images: int


def ways_to_show(difference: Difference, num_images: int, comparisons: int = 1) -> list[Way]:
    """The numbers of replicates or images with which a difference of this size is significant.

    They assume that the difference and the variances stay the same. A difference is found with probability POWER if
    its standard error is the difference divided by z(level) + z(POWER). The error has a part from the images and a part
    from the seeds, each in inverse proportion to its number, so either number is raised while the other part stays. If
    neither number is enough, both are raised, and each part gets half of the variance. Because the variance over seeds
    is estimated, each side gets z(level)² / 4 more replicates.

    Args:
        difference: one that is not significant.
        num_images: images that count for the score.
        comparisons: number of comparisons made together; the strictest of Holm's levels is used.

    Returns:
        Each number that is enough alone, the one against the larger part of the error first; if none is, one way with
        both. Empty for equal scores.

    Source:
        The number for two groups: Julious 2004, Sample sizes for clinical trials with normal data.
        The addition for an estimated variance: Guenther 1981, Sample size formulas for normal theory t tests.
    """
    size, level = abs(difference.estimate), float(ndtri(1 - (1 - LEVEL) / 2 / comparisons))
    if size < ROUNDING:
        return []
    allowed = (size / (level + float(ndtri(POWER)))) ** 2
    images, seeds = difference.image_error**2, (difference.seed_error or 0.0) ** 2

    def replicates_for(variance: float) -> int:
        wanted = seeds * difference.replicates / variance + level**2 / 4
        return max(math.ceil(wanted - difference.replicates), 1)

    def images_for(variance: float) -> int:
        return max(math.ceil(num_images * (images / variance - 1)), 1)

    found = []
    if seeds and allowed > images:
        found.append(Way(replicates_for(allowed - images), 0))
    if allowed > seeds:
        found.append(Way(0, images_for(allowed - seeds)))
    if images > seeds:
        found.reverse()
    return found or [Way(replicates_for(allowed / 2), images_for(allowed / 2))]


def sensible(way: Way, num_images: int) -> bool:
    """Whether anybody could do it: at most MAX_SENSIBLE more replicates and MOST_TIMES the images."""
    return way.replicates <= MAX_SENSIBLE and way.images <= MOST_TIMES * num_images


def rounded_images(images: int) -> str:
    """A number of images with two digits, as text."""
    return f"{float(f'{images:.1g}') if images < 10 else float(f'{images:.2g}'):,.0f}"


def needed(difference: Difference, num_images: int, comparisons: int = 1, unit: str = "replicates of each") -> str:
    """The first sensible of the ways to show a difference of this size, as words; arguments as in `ways_to_show`.

    For equal scores it states the difference that would often be missed.

    Args:
        difference: one that is not significant.
        num_images: images that count for the score.
        comparisons: number of comparisons made together.
        unit: the unit of replicates in the sentence.
    """
    ways = ways_to_show(difference, num_images, comparisons)
    if not ways:
        reach = float(ndtri(1 - (1 - LEVEL) / 2 / comparisons) + ndtri(POWER))
        return (
            f"the scores are equal; a difference under {min(reach * difference.error, 1.0):.3f} would often be missed"
        )
    way = next((one for one in ways if sensible(one, num_images)), ways[0])
    if way.images > MOST_TIMES * num_images:
        return f"a difference this small needs more than {MOST_TIMES} times as many images as now ({num_images:,})"
    if way.replicates > MAX_SENSIBLE:
        return f"a difference this small needs more than {MAX_SENSIBLE:,} {unit}"
    if not way.images:
        return f"needs about {way.replicates} more {unit}"
    more = f" and {way.replicates} more {unit}" if way.replicates else ""
    return f"needs about {rounded_images(way.images)} more images{more}"
