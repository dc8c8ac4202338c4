"""Chooses an ensemble on one half of the validation images and scores it on the other half, and the other way round."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from digits_core.evaluation.metrics import Truth, images_behind
from digits_core.evaluation.selection import Counts, Step, best_step, greedy_path
from results.statistics import LEVEL, Difference, model_difference
from search.models.pool import Pool, Scored


@dataclass(frozen=True, slots=True)
class Choice:
    """What a half chose, and its scores on the other half.

    Attributes:
        half: the half that chose, 0 or 1.
        path: the ensembles of each size, with their scores on the half that chose.
        chosen: the best of them, by these scores.
        sizes: each ensemble of `path` on the other half; the first is the best single model.
        fused_alone: the best single model on the other half, with its own boxes fused; None if nothing is fused.
    """

    half: int
    path: list[Step]
    chosen: Step
    sizes: list[Scored]
    fused_alone: Scored | None

    @property
    def alone(self) -> Scored:
        """The best single model on the other half."""
        return self.sizes[0]

    @property
    def best(self) -> Scored:
        """The chosen ensemble on the other half."""
        return self.sizes[self.path.index(self.chosen)]


def choose_on(pool: Pool, half: int, most: int) -> Choice:
    """Choose on a half, and score on the other one.

    Args:
        pool: the models.
        half: the half that chooses, 0 or 1.
        most: the size of the largest ensemble.
    """
    path = greedy_path(len(pool.models), pool.choosing_score(half), most)
    sizes = [pool.score_other(step.counts, half) for step in path]
    fused = pool.score_other(path[0].counts, half, fused=True) if pool.fuses else None
    return Choice(half, path, best_step(path), sizes, fused)


def choose_on_all(pool: Pool, most: int) -> tuple[Counts, Counts]:
    """The best ensemble and the best single model on all validation images."""
    path = greedy_path(len(pool.models), pool.choosing_score(None), most)
    return best_step(path).counts, path[0].counts


def difference(pool: Pool, pairs: Sequence[tuple[int, Scored, Scored]], name: str) -> Difference:
    """The mean over halves of the difference of two models or ensembles, paired over the images.

    Args:
        pool: the models.
        pairs: the half that chose, the first and the second, scored on the other half.
        name: one of SCORE_NAMES.
    """
    table = pool.valid.table
    images = table.some(np.concatenate([pool.halves[1 - half] for half, _, _ in pairs]))
    num_images = images_behind(name, len(images.image_ids), int((Truth.from_table(images).digits > 0).sum()))
    sides = [first for _, first, _ in pairs], [second for _, _, second in pairs]
    points = [mean_point(side, name) for side in sides]
    resampled = [np.mean([one.resampled[name] for one in side], axis=0) for side in sides]
    return model_difference(points[0], points[1], resampled[0], resampled[1], num_images)


def mean_point(scored: Sequence[Scored], name: str) -> float:
    """The mean over halves of a score."""
    return float(np.mean([one.points[name] for one in scored]))


def is_real(found: Difference) -> bool:
    """Whether a difference is significant."""
    return found.p < 1 - LEVEL
