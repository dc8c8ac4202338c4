"""The Pareto front of several aims: a score that should be large, and costs that should be small."""

from collections.abc import Sequence

import numpy as np


def front_numbers(points: Sequence[Sequence[float]]) -> list[int]:
    """The front of each point: 1 if no other point is better, 2 if only points of front 1 are, and so on.

    A point is better than another one if it is at least as good in every aim and better in one.

    Args:
        points: of each trial the score, and then its costs.

    Source:
        Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II (non-dominated sorting).
    """
    if not len(points):
        return []
    values = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    values = np.concatenate([-values[:, :1], values[:, 1:]], axis=1)  # all of them small
    no_worse = np.all(values[:, None] <= values[None], axis=2)
    better = no_worse & np.any(values[:, None] < values[None], axis=2)
    numbers, left, number = np.zeros(len(values), dtype=int), np.ones(len(values), dtype=bool), 0
    while left.any():
        number += 1
        first = left & ~(better & left[:, None]).any(axis=0)
        numbers[first] = number
        left &= ~first
    return [int(one) for one in numbers]
