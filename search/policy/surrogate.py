"""A ridge regression of scores on parameters (numpy)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.parameter import Scalar

Settings = Sequence[Mapping[str, Scalar]]
"""Configurations by flat name."""

Numbers = NDArray[np.float64]

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties of the ridge; the one with the smallest error when each row is left out is used."""

LOGARITHMIC_FROM = 8.0
"""A positive parameter whose largest value is at least this many times the smallest one enters by its logarithm."""


@dataclass(frozen=True, slots=True)
class _Feature:
    """One number that is computed from a parameter.

    Attributes:
        parameter: its flat name.
        place: of a list like `8,16,32`, which number; None for a plain number.
        choice: of a text, the value for which the feature is 1; None for numbers.
        low, high: the values that become 0 and 1.
        logarithmic: whether the logarithm is taken.
    """

    parameter: str
    place: int | None = None
    choice: Scalar = None
    low: float = 0.0
    high: float = 1.0
    logarithmic: bool = False

    def of(self, value: Scalar) -> float:
        """The feature of a value; 0.5 if the value has no number."""
        if self.choice is not None:
            return float(value == self.choice)
        numbers = _numbers(value)
        if numbers is None or (self.place or 0) >= len(numbers):
            return 0.5
        number = numbers[self.place or 0]
        if self.logarithmic:
            number = math.log(max(number, 1e-12))
        return min(max((number - self.low) / (self.high - self.low), -0.5), 1.5)


def _numbers(value: Scalar) -> tuple[float, ...] | None:
    """The number, or the numbers of a text like `8,16,32`; None for other values."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return (float(value),)
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        return None


class Features:
    """Turns configurations into rows of numbers from 0 to 1, with their squares."""

    def __init__(self, settings: Settings, names: Iterable[str]) -> None:
        """Use the parameters `names`, with the ranges that they have in `settings`."""
        self._features: list[_Feature] = []
        for name in sorted(names):
            self._features += _features_of(name, [one[name] for one in settings if name in one])

    def rows(self, settings: Settings) -> Numbers:
        """float64 [settings, features and their squares]; a missing parameter is in the middle."""
        plain = self.plain(settings)
        numeric = [number for number, one in enumerate(self._features) if one.choice is None]
        return np.concatenate([plain, 2 * plain[:, numeric] ** 2], axis=1)

    def plain(self, settings: Settings) -> Numbers:
        """The same without the squares."""
        plain = np.full((len(settings), len(self._features)), 0.5)
        for column, one in enumerate(self._features):
            for row, each in enumerate(settings):
                if one.parameter in each:
                    plain[row, column] = one.of(each[one.parameter])
        return np.asarray(plain - 0.5)


def _features_of(name: str, values: Sequence[Scalar]) -> list[_Feature]:
    numbers = [one for one in map(_numbers, values) if one is not None]
    if numbers and len(numbers) >= len(values) / 2 and len({len(one) for one in numbers}) == 1:
        found = []
        for place in range(len(numbers[0])):
            column = [one[place] for one in numbers]
            logarithmic = min(column) > 0 and max(column) >= LOGARITHMIC_FROM * min(column)
            ends = [math.log(one) if logarithmic else one for one in (min(column), max(column))]
            if ends[1] > ends[0]:
                found.append(_Feature(name, place, None, ends[0], ends[1], logarithmic))
        return found
    choices = sorted({one for one in values if one is not None}, key=str)
    return [_Feature(name, choice=one) for one in choices] if len(choices) > 1 else []


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted regression.

    Attributes:
        weights: float64 [features + 1], the first one is the intercept.
        error: mean squared error of a score that took no part in the fit.
    """

    weights: Numbers
    error: float

    def mean(self, rows: Numbers) -> Numbers:
        """The expected score of each row."""
        return np.asarray(_with_one(rows) @ self.weights)


def fit_ridge(rows: Numbers, scores: Numbers, weight: Numbers | None = None) -> Ridge:
    """Fit scores; the penalty with the smallest leave-one-out error is used, and the intercept has none.

    Args:
        rows: float64 [num, features].
        scores: float64 [num].
        weight: how much each row counts; None counts all equally.

    Source:
        Hoerl and Kennard 1970, Ridge regression; leave-one-out errors from the hat matrix.
    """
    design = _with_one(rows)
    weight = np.ones(len(scores)) if weight is None else weight
    free = np.eye(design.shape[1])
    free[0, 0] = 1e-9
    best: tuple[float, Any] | None = None
    for penalty in PENALTIES:
        inverse = np.linalg.inv(design.T @ (design * weight[:, None]) + penalty * free)
        fitted = design @ (inverse @ (design.T @ (weight * scores)))
        leverage = np.einsum("ij,jk,ik->i", design, inverse, design) * weight
        errors = (scores - fitted) / np.maximum(1 - leverage, 1e-6)
        error = float(np.average(errors**2, weights=weight))
        if best is None or error < best[0]:
            best = error, inverse
    assert best is not None
    error, inverse = best
    return Ridge(inverse @ (design.T @ (weight * scores)), error)


def _with_one(rows: Numbers) -> Numbers:
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
