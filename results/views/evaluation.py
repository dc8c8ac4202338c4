"""The evaluation of one model on one split, as plain values: scores with intervals, classes, errors, sizes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig
from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
from digits_core.evaluation.diagnosis import Operating, diagnose
from digits_core.evaluation.metrics import RECALL_THRESHOLDS, score
from results.tables.matches import RESAMPLES, StoredMatches, intervals_of

NONE = "none"
"""Row and column of the confusion matrix: no digit there, no detection there."""


def evaluation_of(
    stored: StoredMatches,
    detect: DetectConfig,
    name_of: Callable[[int], str],
    resampled: Mapping[str, NDArray[np.float64]] | None = None,
) -> dict[str, Any]:
    """All that a match table says about a model; every value can be written as JSON.

    Args:
        stored: the match tables of both tasks, with the annotated boxes.
        detect: the model's thresholds.
        name_of: the name of a label.
        resampled: each score for every resample of the images, float64 [resamples], if they are known; scores that are
            missing there have no interval. None computes them.

    Returns:
        `images`, `digits`; `scores`, each with `value`, and with `low` and `high` (95 % over the images); `classes`,
        `best_f1`, `confusion`, `errors`, `sizes` as in `digits_core.evaluation.diagnosis`; `precision_recall`, the
        interpolated precision of each class at 101 recalls, at IoU .50.

    Raises:
        ValueError: `stored` has no annotated boxes.
    """
    truth = stored.truth
    points = asdict(score(stored.task1, stored.task2, truth, detect))
    if resampled is None:
        weights = resample_weights(truth.num_images, RESAMPLES)
        resampled = bootstrap_scores(stored.task1, stored.task2, truth, detect, weights)
    ends = intervals_of(points, resampled, truth.num_images, int((truth.digits > 0).sum()))
    found = diagnose(stored.task1, truth, detect)
    labels = [name_of(label) for label in found.labels.tolist()]
    return {
        "images": truth.num_images,
        "digits": len(truth.labels),
        "thresholds": {"task1": asdict(detect.task1), "task2": asdict(detect.task2)},
        "scores": {
            name: {"value": value, "low": ends[name][0], "high": ends[name][1]} if name in ends else {"value": value}
            for name, value in points.items()
        },
        "classes": [
            {
                "class": name_of(one.label),
                "digits": one.digits,
                "map": one.ap,
                "map_50": one.ap_50,
                "map_75": one.ap_75,
                "best_f1": _operating(one.best),
            }
            for one in found.classes
        ],
        "best_f1": _operating(found.best),
        "errors": [{"kind": one.name, "count": one.count, "map_50_lost": one.cost} for one in found.errors],
        "sizes": [
            {
                "height_from": one.low,
                "height_below": one.high if np.isfinite(one.high) else None,
                "digits": one.digits,
                "found": one.found,
            }
            for one in found.sizes
        ],
        "confusion": {"labels": [*labels, NONE], "annotated_by_detected": found.confusion.tolist()},
        "precision_recall": {
            "recall": RECALL_THRESHOLDS.round(2).tolist(),
            "precision": {name_of(one.label): one.precision.round(6).tolist() for one in found.classes},
        },
    }


def _operating(one: Operating | None) -> dict[str, float] | None:
    return None if one is None else asdict(one)


SCORES = {
    "map": "mAP",
    "map_50": "mAP@.5",
    "map_75": "mAP@.75",
    "digit_accuracy": "digits read right",
    "number_accuracy": "numbers read right",
}

ERROR_WORDS = {
    "class": "wrong class (IoU from .5 with a digit of another class)",
    "place": "wrong place (right class, IoU between .1 and .5)",
    "both": "wrong class and wrong place",
    "duplicate": "duplicate (the digit has a better detection)",
    "background": "background (IoU below .1 with every digit)",
    "missed": "missed (a digit without any of these detections)",
}


def size_words(one: dict[str, Any]) -> str:
    """The heights of one size of digits: `16 to 32 px`."""
    if one["height_below"] is None:
        return f"{one['height_from']:g} px and more"
    return f"{one['height_from']:g} to {one['height_below']:g} px" if one["height_from"] else (
        f"below {one['height_below']:g} px"
    )  # fmt: skip


def print_evaluation(found: dict[str, Any], console: Any) -> None:
    """Print an evaluation as tables."""
    for title, columns, rows in tables_of(found):
        console.print(table_of(title, columns, rows))


def tables_of(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables of an evaluation: title, column names, rows of words."""
    scores = [
        [words, _figure(one["value"]), f"[{_figure(one['low'])}, {_figure(one['high'])}]" if "low" in one else ""]
        for name, words in SCORES.items()
        for one in [found["scores"][name]]
    ]
    classes = [
        [
            one["class"],
            f"{one['digits']:,}",
            *(_figure(one[name]) for name in ("map", "map_50", "map_75")),
            *([_figure(one["best_f1"]["f1"]), f"{one['best_f1']['threshold']:.2f}"] if one["best_f1"] else ["-", "-"]),
        ]
        for one in found["classes"]
    ]
    if found["best_f1"]:
        best = found["best_f1"]
        classes.append(
            ["all together", f"{found['digits']:,}", "", "", "", _figure(best["f1"]), f"{best['threshold']:.2f}"]
        )
    at = f" (above score {found['best_f1']['threshold']:.2f}, the best F1)" if found["best_f1"] else ""
    errors = [[ERROR_WORDS[one["kind"]], f"{one['count']:,}", _figure(one["map_50_lost"])] for one in found["errors"]]
    sizes = [
        [size_words(one), f"{one['digits']:,}", _figure(one["found"] / one["digits"]) if one["digits"] else "-"]
        for one in found["sizes"]
    ]
    return [
        ("Scores", ["score", "value", "95 %"], scores),
        ("Classes", ["class", "digits", "mAP", "mAP@.5", "mAP@.75", "best F1", "at score"], classes),
        (f"Errors{at}", ["kind", "count", "mAP@.5 lost (all scores)"], errors),
        (f"Digits by height{at}", ["height", "digits", "found"], sizes),
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def table_of(title: str, columns: list[str], rows: list[list[str]]) -> Any:
    """A table for the terminal: the first column to the left, the others to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
