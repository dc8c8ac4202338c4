import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.policy.surrogate import PENALTIES, Features, fit_ridge

SETTINGS = [
    {"lr": 1e-4, "sizes": "4,8", "schedule": "step", "momentum": 0.8},
    {"lr": 1e-3, "sizes": "8,64", "schedule": "cosine", "momentum": 0.9},
    {"lr": 1e-2, "sizes": "16,64", "schedule": "step", "momentum": 0.7},
]


def test_numbers_lists_and_texts_become_numbers_from_minus_a_half_to_a_half():
    rows = Features(SETTINGS, ["lr"]).rows(SETTINGS)
    assert rows == pytest.approx(np.array([[-0.5, 0.5], [0, 0], [0.5, 0.5]]))  # by the logarithm, and its square
    assert Features(SETTINGS, ["momentum"]).rows(SETTINGS)[:, 0] == pytest.approx([0, 0.5, -0.5])
    lists = Features(SETTINGS, ["sizes"]).rows(SETTINGS)
    assert lists.shape == (3, 4)  # two numbers and their squares
    texts = Features(SETTINGS, ["schedule"]).rows(SETTINGS)
    assert texts.tolist() == [[-0.5, 0.5], [0.5, -0.5], [-0.5, 0.5]]


def test_what_does_not_vary_has_no_feature_and_what_is_missing_is_in_the_middle():
    assert Features(SETTINGS, ["absent"]).rows(SETTINGS).shape == (3, 0)
    assert Features([{"lr": 1.0}] * 3, ["lr"]).rows(SETTINGS).shape == (3, 0)
    assert Features(SETTINGS, ["lr"]).rows([{}, {"lr": None}]).tolist() == [[0, 0], [0, 0]]
    assert Features(SETTINGS, ["lr"]).rows([{"lr": 1e9}])[0, 0] == 1.0  # far outside, but no further


@given(st.integers(4, 25), st.integers(1, 4), st.integers(0, 100))
def test_the_error_is_that_of_leaving_each_row_out(num, width, seed):
    random = np.random.default_rng(seed)
    rows, weight = random.normal(size=(num, width)), random.uniform(0.2, 1, num)
    scores = rows @ random.normal(size=width) + random.normal(size=num)

    def solve(rows, scores, weight, penalty):
        design = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
        free = np.diag([1e-9, *[penalty] * width])
        return np.linalg.solve(design.T @ np.diag(weight) @ design + free, design.T @ (weight * scores))

    def left_out(penalty):
        errors = []
        for row in range(num):
            keep = np.arange(num) != row
            found = solve(rows[keep], scores[keep], weight[keep], penalty)
            errors.append((scores[row] - found[0] - rows[row] @ found[1:]) ** 2)
        return np.average(errors, weights=weight)

    fitted = fit_ridge(rows, scores, weight)
    errors = {penalty: left_out(penalty) for penalty in PENALTIES}
    assert fitted.error == pytest.approx(min(errors.values()), rel=1e-5)
    best = min(errors, key=errors.get)
    assert fitted.weights == pytest.approx(solve(rows, scores, weight, best), rel=1e-5, abs=1e-7)
    assert fitted.mean(rows) == pytest.approx(fitted.weights[0] + rows @ fitted.weights[1:])


def test_a_row_that_counts_less_moves_the_fit_less():
    rows, scores = np.array([[-0.5], [0.0], [0.5], [0.5]]), np.array([0.0, 0.5, 1.0, -3.0])
    equal = fit_ridge(rows, scores).mean(np.array([[0.5]]))[0]
    assert fit_ridge(rows, scores, np.array([1, 1, 1, 0.01])).mean(np.array([[0.5]]))[0] > equal + 0.5
