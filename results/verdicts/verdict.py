"""One comparison: its verdict, and the sentence that states it."""

from dataclasses import dataclass
from typing import Literal

from results.statistics import LEVEL, Difference
from results.verdicts.effort import Way, needed, sensible, ways_to_show

Level = Literal["models", "settings", "groups"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison.

    Attributes:
        first, second: names of the two sides.
        level: whether trained models, configurations (`settings`) or groups of configurations are compared.
        difference: first minus second; None if they are not compared or are the same models.
        p: p-value, corrected if several comparisons are made together; 1 for the same models, None if not compared.
        words: the verdict as a sentence.
        ways: how a difference of this size could be shown; empty for a significant one, and if nothing sensible can.
    """

    first: str
    second: str
    level: Level
    difference: Difference | None
    p: float | None
    words: str
    ways: tuple[Way, ...] = ()

    @property
    def told_apart(self) -> bool | None:
        """Whether the difference is significant; None if they are not compared."""
        return None if self.p is None else self.p < 1 - LEVEL


def refuse(first: str, second: str, level: Level, reason: str) -> Verdict:
    """The verdict on two sides that are not compared."""
    return Verdict(first, second, level, None, None, reason)


def judge(
    first: str,
    second: str,
    level: Level,
    difference: Difference,
    num_images: int,
    corrected: float | None = None,
    family: int = 1,
) -> Verdict:
    """The verdict on a difference.

    Args:
        first: name of one side.
        second: name of the other side.
        level: what is compared.
        difference: first minus second.
        num_images: images that count for the score.
        corrected: p-value after correction for `family` comparisons; None for a single comparison.
        family: number of comparisons made together.
    """
    p = difference.p if corrected is None else corrected
    significant = p < 1 - LEVEL
    shown = difference.swapped() if significant and difference.estimate < 0 else difference
    better = first if difference.estimate >= 0 else second
    reach = f"{shown.estimate:+.3f} [{shown.low:.3f}, {shown.high:.3f}]"
    if significant:
        model = "'s model" if level == "models" else ""
        words = f"{better}{model} is better: {reach}"
    else:
        unit = "configurations in each" if level == "groups" else "replicates of each"
        after = f" {CORRECTED}" if difference.p < 1 - LEVEL else ""
        words = f"no significant difference{after}: {reach}; {needed(difference, num_images, family, unit)}"
    ways = () if significant else ways_to_show(difference, num_images, family)
    return Verdict(first, second, level, difference, p, words, tuple(one for one in ways if sensible(one, num_images)))


CORRECTED = "after correction for all pairs"
"""Added to a verdict that would be significant without the correction."""
