"""Greedy selection of the models of an ensemble."""

import itertools
import math

import numpy as np
import pytest

from digits_core.evaluation.selection import best_step, greedy_path


def mean_of(qualities, wanted):
    """The score of a mean of models: the nearer to the wanted value, the better."""

    def score(counts):
        return -abs(
            sum(count * quality for count, quality in zip(counts, qualities, strict=True)) / sum(counts) - wanted
        )

    return score


def test_each_ensemble_has_the_one_before_and_the_best_further_model():
    score = mean_of([0.0, 3.0, 10.0], 4.0)
    path = greedy_path(3, score, 4)
    assert path[0].counts == (0, 1, 0)
    for before, step in itertools.pairwise(path):
        added = np.subtract(step.counts, before.counts)
        assert sorted(added) == [0, 0, 1]
        others = [tuple(np.add(before.counts, one)) for one in np.eye(3, dtype=int)]
        assert step.score == max(map(score, others))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_ensemble_is_never_worse_than_the_best_single_model(seed):
    values = np.random.default_rng(seed)
    known = {}

    def score(counts):
        return known.setdefault(counts, values.normal())  # chance only

    chosen = best_step(greedy_path(4, score, 5))
    singles = [score(tuple(one)) for one in np.eye(4, dtype=int).tolist()]
    assert chosen.score >= max(singles)


def test_copies_of_one_model_add_nothing():
    def score(counts):
        ours = [count // math.gcd(*counts) for count in counts]
        return 1.0 if ours == [0, 1] else 0.5

    path = greedy_path(2, score, 4)
    assert [step.counts for step in path] == [(0, 1), (0, 2), (0, 3), (0, 4)]
    assert best_step(path).counts == (0, 1)


def test_a_worse_step_does_not_end_the_path():
    scores = {(1, 0): 0.6, (0, 1): 0.5, (2, 0): 0.4, (1, 1): 0.3, (3, 0): 0.1, (2, 1): 0.9}
    assert best_step(greedy_path(2, scores.__getitem__, 3)).counts == (2, 1)
