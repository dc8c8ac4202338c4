"""Greedy selection of the models of an ensemble, with replacement."""

from collections.abc import Callable
from typing import NamedTuple

Counts = tuple[int, ...]
"""How often each model is in an ensemble."""


class Step(NamedTuple):
    """An ensemble on the path of a selection.

    Attributes:
        counts: how often each model is in it.
        score: its score on the images of the selection.
    """

    counts: Counts
    score: float


def greedy_path(num_models: int, score: Callable[[Counts], float], most: int) -> list[Step]:
    """The ensembles of 1 to `most` models: each has one model more than the one before, that with the best score.

    A model can be added several times. Of models with equal scores the first one is added. The path continues if the
    best addition makes the score worse, because a later addition can be better; see `best_step`.

    Args:
        num_models: the number of models, at least 1.
        score: the score of an ensemble; it is called more than once with the same counts.
        most: the size of the last ensemble.

    Source:
        Caruana, Niculescu-Mizil, Crew and Ksikes 2004, Ensemble selection from libraries of models.
    """
    path: list[Step] = []
    counts: Counts = (0,) * num_models
    for _ in range(most):
        larger = [(*counts[:model], counts[model] + 1, *counts[model + 1 :]) for model in range(num_models)]
        path.append(max((Step(one, score(one)) for one in larger), key=lambda step: step.score))  # the first of equals
        counts = path[-1].counts
    return path


def best_step(path: list[Step]) -> Step:
    """The ensemble with the best score, the smallest of equals; never worse than the best single model."""
    return max(path, key=lambda step: step.score)
