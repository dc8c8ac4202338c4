"""Where a detector is wrong: precision and recall by class, confusions, kinds of errors, recall by size (numpy).

Everything is read from one match table at IoU .50; no model is run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig
from digits_core.evaluation.matching import IOU_THRESHOLDS, iou_of
from digits_core.evaluation.metrics import RECALL_THRESHOLDS, MatchTable, Truth, average_precision

FOREGROUND, BACKGROUND = 0.5, 0.1
"""IoU from which a detection is on a digit, and below which it is on none: TIDE's two thresholds."""

ERRORS = ("class", "place", "both", "duplicate", "background", "missed")
"""The kinds of errors, in TIDE's order: classification, localization, both, duplicate, background, missed."""

HEIGHTS = (16.0, 32.0, 64.0)
"""Borders between the sizes of digits: heights of their boxes, pixels of the original image."""


@dataclass(frozen=True, slots=True)
class Operating:
    """The score threshold with the best F1 at IoU .50.

    Attributes:
        threshold: detections strictly above it are kept.
        f1, precision, recall: there; each in [0, 1].
    """

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class.

    Attributes:
        label: as in `coco.Table`.
        digits: annotated ones.
        ap, ap_50, ap_75: COCO AP averaged over IoU .50:.95, at .50 and at .75.
        precision: float64 [101], interpolated at the recalls 0, .01, ..., 1, at IoU .50.
        best: the score threshold with the best F1; None without a detection.
    """

    label: int
    digits: int
    ap: float
    ap_50: float
    ap_75: float
    precision: NDArray[np.float64]
    best: Operating | None


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One kind of errors.

    Attributes:
        name: one of ERRORS.
        count: detections of that kind above the threshold with the best F1; for `missed`, digits.
        cost: AP at IoU .50 that is gained when only these errors are corrected, as TIDE corrects them; over all
            detections above the model's threshold.
    """

    name: str
    count: int
    cost: float


@dataclass(frozen=True, slots=True)
class SizeResult:
    """The digits of one size.

    Attributes:
        low, high: heights of their boxes in pixels, from `low` to below `high`.
        digits: how many there are.
        found: how many are detected with their class at IoU .50.
    """

    low: float
    high: float
    digits: int
    found: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Where a detector is wrong on one split.

    Attributes:
        classes: one for each class with annotated digits.
        best: the threshold with the best F1 over all classes together; None without a detection.
        labels: int64 [num_labels], the classes of the confusion matrix.
        confusion: int64 [num_labels + 1, num_labels + 1], annotated by detected, above the threshold with the best F1;
            the last row has detections on no digit, the last column the digits without a detection.
        errors: one for each of ERRORS.
        sizes: by height, smallest first; above the threshold with the best F1.
    """

    classes: list[ClassResult]
    best: Operating | None
    labels: NDArray[np.int64]
    confusion: NDArray[np.int64]
    errors: list[ErrorKind]
    sizes: list[SizeResult]


def diagnose(table: MatchTable, truth: Truth, detect: DetectConfig) -> Diagnosis:
    """Where a detector is wrong.

    Args:
        table: the match table of Task 1's NMS, all scores above the floor.
        truth: what is annotated, with boxes.
        detect: for Task 1's score threshold and detections per image.

    Raises:
        ValueError: `truth` has no boxes.

    Source:
        Errors and their costs: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors (2020).
    """
    if truth.boxes is None:
        raise ValueError("a diagnosis needs the annotated boxes")
    all_scores = table.select(table.rank < detect.task1.max_detections)
    kept = table.above(detect.task1.score, detect.task1.max_detections)
    best = _best_f1(all_scores, len(truth.labels))
    shown = kept if best is None else kept.select(kept.scores > best.threshold)
    pairing = _pair(shown, truth)
    labels = np.unique(np.concatenate([truth.labels, kept.labels]))
    return Diagnosis(
        classes=[_class_result(int(label), all_scores, kept, truth) for label in np.unique(truth.labels)],
        best=best,
        labels=labels,
        confusion=_confusion(shown, truth, pairing, labels),
        errors=_errors(kept, truth, pairing),
        sizes=_sizes(truth, pairing),
    )


def _class_result(label: int, all_scores: MatchTable, kept: MatchTable, truth: Truth) -> ClassResult:
    mine = truth.labels == label
    own = Truth(truth.num_images, truth.image[mine], truth.labels[mine], truth.numbers)
    rows = kept.select(kept.labels == label)
    ap = average_precision(rows, own)
    assert ap is not None  # the class has digits
    right, counts = _at_half(rows)
    order = np.argsort(-rows.scores, kind="stable")
    return ClassResult(
        label=label,
        digits=int(mine.sum()),
        ap=float(ap.mean()),
        ap_50=float(ap[0]),
        ap_75=float(ap[5]),
        precision=_interpolated(right[order], counts[order], int(mine.sum())),
        best=_best_f1(all_scores.select(all_scores.labels == label), int(mine.sum())),
    )


def _at_half(table: MatchTable) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each detection is right at IoU .50, and whether it counts: on a crowd it does not."""
    return (table.matched & 1) != 0, (table.ignored & 1) == 0


def _interpolated(right: NDArray[np.bool_], counts: NDArray[np.bool_], digits: int) -> NDArray[np.float64]:
    """COCO's interpolated precision at each of RECALL_THRESHOLDS, detections best first."""
    hits = np.cumsum(right)
    precision = hits / np.maximum(np.cumsum(counts), 1)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / max(digits, 1), RECALL_THRESHOLDS, side="left")
    return np.concatenate([best_from, [0.0]])[np.minimum(first, len(best_from))]


def _best_f1(table: MatchTable, digits: int) -> Operating | None:
    """The threshold with the best F1; of equal ones the highest."""
    right, counts = _at_half(table)
    rows = np.flatnonzero(counts)
    order = rows[np.argsort(-table.scores[rows], kind="stable")]
    if not len(order) or not digits:
        return None
    scores, hits = table.scores[order].astype(np.float64), np.cumsum(right[order])
    number = np.arange(1, len(order) + 1)
    f1 = 2 * hits / (number + digits)
    below = np.concatenate([scores[1:], [0.0]])
    f1[below == scores] = -1.0  # no threshold separates equal scores
    at = int(np.argmax(f1))
    return Operating(
        threshold=float((scores[at] + below[at]) / 2),
        f1=float(f1[at]),
        precision=float(hits[at] / number[at]),
        recall=float(hits[at] / digits),
    )


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Which digit each detection belongs to; -1 means none.

    Attributes:
        own: int64 [num], its match within its class at IoU .50, as COCO matches.
        any_class: int64 [num], its match whatever the classes.
        kind: int64 [num], index into ERRORS of a wrong detection; -1 of a right one, and of one that does not count.
        target: int64 [num], the digit that a `class` or `place` error would be right on.
    """

    own: NDArray[np.int64]
    any_class: NDArray[np.int64]
    kind: NDArray[np.int64]
    target: NDArray[np.int64]


def _pair(table: MatchTable, truth: Truth) -> _Pairing:
    """Pair the detections of each image with its digits."""
    assert truth.boxes is not None
    count = len(table.scores)
    own, any_class, kind, target = (np.full(count, -1, np.int64) for _ in range(4))
    counts = _at_half(table)[1]
    ends = np.searchsorted(table.image, np.arange(truth.num_images + 1))
    digit_ends = np.searchsorted(truth.image, np.arange(truth.num_images + 1))
    for image in range(truth.num_images):
        rows, digits = slice(ends[image], ends[image + 1]), slice(digit_ends[image], digit_ends[image + 1])
        if rows.start == rows.stop:
            continue
        iou = iou_of(table.boxes[rows][:, None], truth.boxes[digits][None])
        same = table.labels[rows, None] == truth.labels[None, digits]
        matches = _greedy(np.where(same, iou, 0.0))
        own[rows] = np.where(matches >= 0, matches + digits.start, -1)
        others = _greedy(iou)
        any_class[rows] = np.where(others >= 0, others + digits.start, -1)
        for row in range(rows.stop - rows.start):
            if matches[row] < 0 and counts[rows.start + row]:
                kind[rows.start + row], aim = _kind(iou[row], same[row])
                target[rows.start + row] = aim + digits.start if aim >= 0 else -1
    return _Pairing(own, any_class, kind, target)


def _greedy(iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """int64 [num_rows]: the free digit of the best IoU from .50 on, row after row; of equal ones the later."""
    found = np.full(len(iou), -1, np.int64)
    left = iou.copy()
    for row in range(len(iou)):
        if left.shape[1]:
            best = left.shape[1] - 1 - int(np.argmax(left[row, ::-1]))
            if left[row, best] >= IOU_THRESHOLDS[0]:
                found[row] = best
                left[:, best] = 0.0
    return found


def _kind(iou: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[int, int]:
    """The kind of a wrong detection, and the digit it would be right on (-1: none)."""
    if not len(iou) or iou.max() < BACKGROUND:
        return ERRORS.index("background"), -1
    own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    if BACKGROUND <= own.max() < FOREGROUND:
        return ERRORS.index("place"), int(own.argmax())
    if other.max() >= FOREGROUND:
        return ERRORS.index("class"), int(other.argmax())
    if own.max() >= FOREGROUND:
        return ERRORS.index("duplicate"), -1
    return ERRORS.index("both"), -1


def _confusion(table: MatchTable, truth: Truth, pairing: _Pairing, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    size = len(labels)
    found = np.zeros((size + 1, size + 1), np.int64)
    place = np.searchsorted(labels, truth.labels)
    on, detected = pairing.any_class, np.searchsorted(labels, table.labels)
    solid = on >= 0
    np.add.at(found, (place[on[solid]], detected[solid]), 1)
    stray = ~solid & _at_half(table)[1]
    np.add.at(found[size], detected[stray], 1)
    missed = np.ones(len(place), bool)
    missed[on[solid]] = False
    np.add.at(found[:, size], place[missed], 1)
    return found


def _errors(table: MatchTable, truth: Truth, shown: _Pairing) -> list[ErrorKind]:
    """The kinds of errors: costs from all detections of `table`, counts from those of the pairing `shown`."""
    pairing = _pair(table, truth)
    right, counts = pairing.own >= 0, _at_half(table)[1]
    before = _ap_50(table.labels, table.scores, right, right | counts, truth.labels)
    matched = set(pairing.own[right].tolist())
    covered = _covered(pairing, len(truth.labels))
    # The one detection that is corrected onto each digit without a match: the best of those that aim at it.
    mends: dict[int, int] = {}
    for row in np.argsort(-table.scores, kind="stable").tolist():
        digit = int(pairing.target[row])
        if digit >= 0 and digit not in matched:
            mends.setdefault(digit, row)
    found = []
    for number, name in enumerate(ERRORS):
        mine = pairing.kind == number
        if name == "missed":
            after = _ap_50(table.labels, table.scores, right, right | counts, truth.labels[covered])
            found.append(ErrorKind(name, int((~_covered(shown, len(truth.labels))).sum()), after - before))
            continue
        # Corrected, a detection is right, or would be a duplicate and is dropped.
        better = np.array([row for row in mends.values() if mine[row]], np.int64)
        kept, hits, labels = (right | counts) & ~mine, right.copy(), table.labels.copy()
        kept[better], hits[better], labels[better] = True, True, truth.labels[pairing.target[better]]
        found.append(
            ErrorKind(
                name, int((shown.kind == number).sum()), _ap_50(labels, table.scores, hits, kept, truth.labels) - before
            )
        )
    return found


def _covered(pairing: _Pairing, digits: int) -> NDArray[np.bool_]:
    """Bool [digits]: whether a digit has a match, or a detection that would be one with another class or place."""
    found = np.zeros(digits, bool)
    for which in (pairing.own, pairing.target):
        found[which[which >= 0]] = True
    return found


def _ap_50(
    labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    truth: NDArray[np.int64],
) -> float:
    """COCO AP at IoU .50 of detections that are right or wrong; 0 without an annotated digit."""
    each = []
    for label in np.unique(truth):
        rows = np.flatnonzero(kept & (labels == label))
        order = rows[np.argsort(-scores[rows], kind="stable")]
        each.append(_interpolated(right[order], np.ones(len(order), bool), int((truth == label).sum())).mean())
    return float(np.mean(each)) if each else 0.0


def _sizes(truth: Truth, pairing: _Pairing) -> list[SizeResult]:
    assert truth.boxes is not None
    heights = truth.boxes[:, 3] - truth.boxes[:, 1]
    band = np.digitize(heights, HEIGHTS)
    found = np.zeros(len(heights), bool)
    found[pairing.own[pairing.own >= 0]] = True
    borders = (0.0, *HEIGHTS, float("inf"))
    return [
        SizeResult(borders[one], borders[one + 1], int((band == one).sum()), int(found[band == one].sum()))
        for one in range(len(borders) - 1)
    ]
