"""Scores for many NMS values and score thresholds, computed from the same raw detections without training (numpy)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig, TaskConfig
from digits_core.data.coco import Table
from digits_core.evaluation.matching import MAX_SETTINGS, Candidates, NmsSetting, match
from digits_core.evaluation.metrics import (
    MatchTable,
    Truth,
    ap_over_scores,
    digit_accuracy_over_scores,
    number_accuracy_over_scores,
)

NMS_VALUES = tuple(round(0.05 * step, 2) for step in range(2, 19))
"""NMS values of the grid that every trained model is scored on, for both kinds of NMS."""

SCORE_VALUES = (*(round(0.01 * step, 2) for step in range(1, 100)), 0.995)
"""Score thresholds of the grid."""

NUM_SWEPT = 2 * len(NMS_VALUES) * len(SCORE_VALUES)
"""The size of the grid."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """Scores for many settings of a task; all arrays have one element per setting.

    Attributes:
        class_agnostic, nms, score, max_detections: the setting, as in TaskConfig.
        map, map_50: COCO AP with this setting; NaN if there are no digits.
        digit_accuracy, number_accuracy: accuracies with this setting; NaN if they cannot be measured.
    """

    class_agnostic: NDArray[np.bool_]
    nms: NDArray[np.float64]
    score: NDArray[np.float64]
    max_detections: NDArray[np.int64]
    map: NDArray[np.float64]
    map_50: NDArray[np.float64]
    digit_accuracy: NDArray[np.float64]
    number_accuracy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nms)

    def task(self, row: int) -> TaskConfig:
        """The setting of one row."""
        return TaskConfig(
            nms=float(self.nms[row]),
            score=float(self.score[row]),
            max_detections=int(self.max_detections[row]),
            class_agnostic=bool(self.class_agnostic[row]),
        )

    def best(self, name: str) -> int | None:
        """The row with the highest score `name`, the first of `ranked`; None if nothing could be measured."""
        return next(iter(self.ranked(name)), None)

    def ranked(self, name: str) -> list[int]:
        """The rows that have the score `name`, best first; among equals by digit accuracy, then by place."""
        values = np.where(np.isnan(getattr(self, name)), -1.0, getattr(self, name))
        digits = np.where(np.isnan(self.digit_accuracy), -1.0, self.digit_accuracy)
        return [int(row) for row in np.lexsort((-digits, -values)) if values[row] >= 0]


def sweep(found: Candidates, annotated: Table, detect: DetectConfig, more: Iterable[TaskConfig] = ()) -> Sweep:
    """Score the grid of both kinds of NMS, NMS_VALUES and SCORE_VALUES, and some more settings.

    Args:
        found: raw detections of each image; their score floor must not exceed the score threshold of any setting.
        annotated: the annotations of the images.
        detect: contains the limits of detections per image of both tasks, and the rule for the order of digits.
        more: settings in addition to the grid, for example those of the tasks.
    """
    plan: dict[tuple[NmsSetting, int], set[float]] = {}
    for limit in (detect.task1.max_detections, detect.task2.max_detections):
        for kind in (False, True):
            for nms in NMS_VALUES:
                plan.setdefault((NmsSetting(nms, kind), limit), set()).update(SCORE_VALUES)
    for task in more:
        plan.setdefault((NmsSetting(task.nms, task.class_agnostic), task.max_detections), set()).add(task.score)
    truth = Truth.from_table(annotated, detect.reading)
    settings = list(dict.fromkeys(setting for setting, _ in plan))
    scored = {}
    for begin in range(0, len(settings), MAX_SETTINGS):
        some = settings[begin : begin + MAX_SETTINGS]
        matches = match(found, annotated, some)
        for number, setting in enumerate(some):
            table = MatchTable.of(found, matches, number)
            for (one, limit), thresholds in plan.items():
                if one == setting:
                    scored[one, limit] = _scores(table.above(0, limit), truth, sorted(thresholds), detect.reading)
    order = sorted(plan, key=lambda key: (key[1], key[0].class_agnostic, key[0].nms))
    lengths = [len(plan[key]) for key in order]
    values = np.concatenate([scored[key] for key in order], axis=1)
    return Sweep(
        np.repeat([setting.class_agnostic for setting, _ in order], lengths),
        np.repeat([setting.nms for setting, _ in order], lengths),
        np.concatenate([sorted(plan[key]) for key in order]),
        np.repeat([limit for _, limit in order], lengths),
        *values,
    )


def _scores(table: MatchTable, truth: Truth, thresholds: list[float], reading: str) -> NDArray[np.float64]:
    """float64 [4, num_thresholds]: AP, AP at IoU .5, digit and number accuracy."""
    at = np.array(thresholds)
    nothing = np.full(len(at), np.nan)
    ap = ap_over_scores(table, truth, at)
    digits = digit_accuracy_over_scores(table, truth, at)
    numbers = number_accuracy_over_scores(table, truth, at, reading)
    return np.stack(
        [
            *((nothing, nothing) if ap is None else (ap.mean(axis=0), ap[0])),
            nothing if digits is None else digits,
            nothing if numbers is None else numbers,
        ]
    )
