"""Scores computed from a match table: COCO AP, accuracies, threshold sweeps (numpy).

A match table contains, for one NMS setting, the match of each detection above a low score floor. A score threshold or
a limit per image selects rows of this table, so the model does not need to run again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig
from digits_core.data.coco import MAX_CATEGORIES, Table
from digits_core.evaluation.matching import CROWD, IOU_THRESHOLDS, NONE, RIGHT, WRONG, Candidates, Matches
from digits_core.evaluation.transcribe import reading_order

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
"""COCO's recall thresholds: AP is the mean of the interpolated precision at these recalls."""

SCORE_NAMES = ("map", "map_50", "map_75", "digit_accuracy", "number_accuracy")
"""The scores of one split, each in [0, 1]; with the prefix `val_` they are columns."""

SHARES_OF_IMAGES = ("number_accuracy",)
"""Scores that are a share of the images; the other scores are computed over digits."""

_BITS = np.uint16(1) << np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


@dataclass(frozen=True, slots=True)
class Boxes:
    """Annotated boxes, image after image.

    Attributes:
        image: int64 [num], ascending.
        labels: int64 [num].
        boxes: float32 [num, 4], xyxy, pixels of the original image.
    """

    image: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """The annotations that the scores need.

    Attributes:
        num_images: the number of images, including those without digits.
        image: int64 [num_digits], ascending.
        labels: int64 [num_digits]; within each image in reading order.
        numbers: whether the labels are digits, so that the labels of an image form a number.
        boxes: float32 [num_digits, 4], xyxy, pixels of the original image; None if they are not known.
        crowds: the crowds, which are not among the digits; None if they are not known.
    """

    num_images: int
    image: NDArray[np.int64]
    labels: NDArray[np.int64]
    numbers: bool = True
    boxes: NDArray[np.float32] | None = None
    crowds: Boxes | None = None

    @classmethod
    def from_table(cls, table: Table, reading: str = "left_to_right") -> "Truth":
        """From the annotations of a split; `reading` is the rule for the order of digits."""
        solid = ~table.crowds
        image = np.repeat(np.arange(len(table.image_ids)), np.diff(table.box_start))[solid]
        order = reading_order(image, table.boxes[solid], reading)
        crowded = np.repeat(np.arange(len(table.image_ids)), np.diff(table.box_start))[table.crowds]
        return cls(
            len(table.image_ids),
            image,
            table.labels[solid][order],
            table.categories.are_digits,
            table.boxes[solid][order],
            Boxes(crowded, table.labels[table.crowds], table.boxes[table.crowds]),
        )

    @property
    def digits(self) -> NDArray[np.int64]:
        """int64 [num_images]: the number of digits of each image."""
        return np.bincount(self.image, minlength=self.num_images)


@dataclass(frozen=True, slots=True)
class MatchTable:
    """The detections above the floor that one NMS setting keeps, sorted by image and then by score, best first.

    Attributes:
        image: int64 [num].
        rank: int64 [num]; the number of detections of the same image with better scores.
        labels: int64 [num], labels as in `coco.Table`.
        scores: float32 [num].
        boxes: float32 [num, 4], xyxy, pixels of the original image.
        iou: float32 [num], with the matched digit at IoU .5; 0 without a match.
        matched, ignored: uint16 [num]; bit t belongs to IOU_THRESHOLDS[t].
        digits: uint8 [num], one of matching's NONE, WRONG, RIGHT, CROWD.
    """

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    iou: NDArray[np.float32]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    digits: NDArray[np.uint8]

    @classmethod
    def of(cls, found: Candidates, matches: Matches, setting: int) -> "MatchTable":
        """The table of the setting with index `setting` in `matches`."""
        bit = np.uint64(1 << setting)
        rows = np.flatnonzero(matches.kept & bit)
        image = found.image[rows]
        iou = np.zeros(len(found.scores), np.float32)
        mine = (matches.iou_word & bit) != 0
        iou[matches.iou_row[mine]] = matches.iou[mine]
        digits = np.full(len(rows), NONE, np.uint8)
        digits[(matches.on_digit[rows] & bit) != 0] = WRONG
        digits[(matches.on_own[rows] & bit) != 0] = RIGHT
        digits[(matches.on_crowd[rows] & bit) != 0] = CROWD
        return cls(
            image=image,
            rank=rank_within(image),
            labels=found.labels[rows],
            scores=found.scores[rows],
            boxes=found.boxes[rows] * found.scale[image],
            iou=iou[rows],
            matched=_pack((matches.matched[rows] & bit) != 0),
            ignored=_pack((matches.ignored[rows] & bit) != 0),
            digits=digits,
        )

    def above(self, score: float, max_detections: int) -> "MatchTable":
        """The rows with a score above `score`, within the limit per image."""
        return self.select((self.scores > np.float32(score)) & (self.rank < max_detections))

    def select(self, rows: NDArray[np.bool_]) -> "MatchTable":
        """Some of the rows; `rank` does not change, even if better detections of an image are not selected."""
        return MatchTable(*(getattr(self, name)[rows] for name in self.__slots__))


def wrong_labels(
    image: NDArray[np.int64],
    labels: NDArray[np.int64],
    truth_image: NDArray[np.int64],
    truth_labels: NDArray[np.int64],
    num_images: int,
) -> NDArray[np.int64]:
    """The number of wrong labels of each image: found but not annotated, or annotated but not found; ignores positions.

    Args:
        image: int64 [num], the image of each detection, counted from 0.
        labels: int64 [num], the label of each detection.
        truth_image: int64 [num_digits], the image of each annotated digit.
        truth_labels: int64 [num_digits], the label of each annotated digit.
        num_images: the number of images.

    Returns:
        int64 [num_images].
    """
    size = (num_images, MAX_CATEGORIES + 1)
    counts = [
        np.bincount(one * size[1] + two, minlength=size[0] * size[1]).reshape(size)
        for one, two in ((image, labels), (truth_image, truth_labels))
    ]
    return np.asarray(np.abs(counts[0] - counts[1]).sum(axis=1))


def rank_within(image: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of rows of the same image before each row; `image` is ascending."""
    return np.arange(len(image)) - np.searchsorted(image, image, side="left")


def _pack(flags: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.asarray((flags * _BITS).sum(axis=1), dtype=np.uint16)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one split, each in [0, 1]; None if a score could not be measured.

    Attributes:
        map: COCO AP averaged over IoU .50:.95, at Task 1's thresholds.
        map_50, map_75: AP at IoU .50 and .75.
        digit_accuracy: correctly read digits divided by all digits plus detections that are not on a digit, at
            Task 2's thresholds.
        number_accuracy: share of images whose whole number is read correctly, at Task 2's thresholds.
    """

    map: float | None
    map_50: float | None
    map_75: float | None
    digit_accuracy: float | None
    number_accuracy: float | None

    def named(self, metric: str) -> float | None:
        """A score by its column name, for example `val_map`."""
        value: float | None = getattr(self, metric.removeprefix("val_"))
        return value


def score(task1: MatchTable, task2: MatchTable, truth: Truth, detect: DetectConfig) -> Scores:
    """The scores of the match tables of both tasks, at the thresholds in `detect`."""
    boxes = task1.above(detect.task1.score, detect.task1.max_detections)
    numbers = task2.above(detect.task2.score, detect.task2.max_detections)
    ap = average_precision(boxes, truth)
    right, of = digit_counts(numbers, truth).sum(axis=0).tolist()
    return Scores(
        map=None if ap is None else float(ap.mean()),
        map_50=None if ap is None else float(ap[0]),
        map_75=None if ap is None else float(ap[5]),
        digit_accuracy=right / of if len(truth.labels) else None,
        number_accuracy=float(numbers_right(numbers, truth, detect.reading).mean())
        if truth.num_images and truth.numbers
        else None,
    )


def images_behind(name: str, num_images: int, with_digits: int) -> int:
    """The number of images that influence a score: all, or for a score over digits only those with digits.

    Args:
        name: one of SCORE_NAMES.
        num_images: number of images of the split.
        with_digits: number of images with digits.
    """
    return num_images if name in SHARES_OF_IMAGES else with_digits


# ---------------------------------------------------------------------------------------- average precision


@dataclass(frozen=True, slots=True)
class Curve:
    """The precision-recall curves of one class: the detections of all images, best first.

    Attributes:
        image: int64 [num].
        scores: float32 [num].
        counts: bool [num, 10]; whether the detection is counted (on a crowd it is not).
        right: bool [num, 10]; whether it matches a digit.
        truth_image: int64 [num_digits]; the image of each digit of the class.
    """

    image: NDArray[np.int64]
    scores: NDArray[np.float32]
    counts: NDArray[np.bool_]
    right: NDArray[np.bool_]
    truth_image: NDArray[np.int64]


def curves(table: MatchTable, truth: Truth) -> Iterator[Curve]:
    """The curves of every class that has digits."""
    order = np.lexsort((-table.scores, table.labels))  # stable: equal scores keep the order of images
    labels = table.labels[order]
    for label in np.unique(truth.labels):
        rows = order[np.searchsorted(labels, label, "left") : np.searchsorted(labels, label, "right")]
        right = (table.matched[rows, None] & _BITS) != 0
        counts = (table.ignored[rows, None] & _BITS) == 0
        yield Curve(table.image[rows], table.scores[rows], counts, right, truth.image[truth.labels == label])


def average_precision(table: MatchTable, truth: Truth) -> NDArray[np.float64] | None:
    """COCO AP at each of IOU_THRESHOLDS, mean over the classes that have digits; None if there are no digits.

    Source:
        pycocotools `COCOeval.accumulate`, for all areas and the largest limit of detections.
    """
    swept = ap_over_scores(table, truth, np.array([-1.0]))
    return None if swept is None else swept[:, 0]


def ap_over_scores(table: MatchTable, truth: Truth, thresholds: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """COCO AP with only the detections above each score threshold.

    Args:
        table: detections.
        truth: the annotations.
        thresholds: float64 [num_thresholds].

    Returns:
        float64 [10, num_thresholds], mean over the classes that have digits; None if there are no digits.
    """
    if not len(truth.labels):
        return None
    each = [_class_ap_over_scores(curve, thresholds.astype(np.float32)) for curve in curves(table, truth)]
    return np.asarray(np.mean(each, axis=0))


def _class_ap_over_scores(curve: Curve, thresholds: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 [10, num_thresholds]: AP of one class.

    The interpolated precision at a recall is the best precision at that recall or a higher one. So AP is a sum over
    the right detections: the number of recalls (of 101) that the detection is the first to reach, times the best
    precision from this detection to the end. A score threshold only changes the end.
    """
    level, position = np.nonzero(curve.right.T)  # right detections, sorted by IoU threshold
    if not len(level):
        return np.zeros((len(IOU_THRESHOLDS), len(thresholds)))
    starts = np.searchsorted(level, np.arange(len(IOU_THRESHOLDS)))
    number = np.arange(1, len(level) + 1) - starts[level]
    precision = number / (np.cumsum(curve.counts, axis=0)[position, level] + np.spacing(1))
    # numpy has no cumulative maximum that restarts at each IoU threshold. Precisions are in [0, 1], so a step of 2
    # between the thresholds has the same effect.
    step = 2.0 * (len(IOU_THRESHOLDS) - 1 - level)
    kept = curve.scores[position] > thresholds[:, None]
    best = np.where(kept, precision, 0.0) + step
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1] - step
    gain = np.zeros((len(thresholds), len(level) + 1))
    np.cumsum(_recalls_reached(number, len(curve.truth_image)) * kept * best, axis=1, out=gain[:, 1:])
    return np.asarray(np.diff(gain[:, [*starts, len(level)]], axis=1).T / len(RECALL_THRESHOLDS))


def _recalls_reached(number: NDArray[np.int64], num_digits: int) -> NDArray[np.int64]:
    """The number of recalls (of 101) that the n-th right detection is the first to reach."""
    reached = np.searchsorted(RECALL_THRESHOLDS, np.arange(num_digits + 1) / num_digits, side="right")
    reached[0] = 0
    return np.asarray(reached[number] - reached[number - 1])


# ---------------------------------------------------------------------------------------------- accuracies


def digit_counts(table: MatchTable, truth: Truth) -> NDArray[np.int64]:
    """int64 [num_images, 2]: correctly read digits, and digits plus detections that are not on a digit.

    The accuracy is the sum of the first column divided by the sum of the second one.

    Source:
        course report B: a digit is right only if it is detected with its class; a detection that is not on a digit
        counts as wrong.
    """
    right = np.bincount(table.image[table.digits == RIGHT], minlength=truth.num_images)
    stray = np.bincount(table.image[table.digits == NONE], minlength=truth.num_images)
    return np.stack([right, truth.digits + stray], axis=1)


def numbers_right(table: MatchTable, truth: Truth, reading: str = "left_to_right") -> NDArray[np.bool_]:
    """Bool [num_images]: whether the detections give the annotated number; `reading` is the rule for their order."""
    counts = np.bincount(table.image, minlength=truth.num_images)
    right: NDArray[np.bool_] = counts == truth.digits
    order = reading_order(table.image, table.boxes, reading)
    labels, image = table.labels[order], table.image  # still ascending
    mine, theirs = right[image], right[truth.image]
    right[image[mine][labels[mine] != truth.labels[theirs]]] = False
    return right


def digit_accuracy_over_scores(
    table: MatchTable, truth: Truth, thresholds: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Digit accuracy with only the detections above each threshold; None if there are no digits."""
    if not len(truth.labels):
        return None
    right = _count_above(table.scores[table.digits == RIGHT], thresholds)
    stray = _count_above(table.scores[table.digits == NONE], thresholds)
    return np.asarray(right / (len(truth.labels) + stray))


def number_accuracy_over_scores(
    table: MatchTable, truth: Truth, thresholds: NDArray[np.float64], reading: str = "left_to_right"
) -> NDArray[np.float64] | None:
    """Share of images whose number is read correctly, at each score threshold; None without images or numbers.

    A threshold keeps the best n detections of an image. The number can be right only if n is the number of its digits.
    So each image is read once, and its number is right for all thresholds between two scores.
    """
    images, digits = truth.num_images, truth.digits
    if not images or not truth.numbers:
        return None
    some = table.select(table.rank < digits[table.image])
    right = numbers_right(some, truth, reading)
    counts = np.bincount(table.image, minlength=images)
    starts = np.searchsorted(table.image, np.arange(images))
    right &= counts >= digits
    scores = np.append(table.scores, np.float32(-np.inf))
    last = np.where(digits > 0, scores[np.minimum(starts + digits - 1, len(table.scores))], np.inf)
    following = np.where(counts > digits, scores[np.minimum(starts + digits, len(table.scores))], -np.inf)
    # right at threshold s where following <= s < last
    return (_count_above(last[right], thresholds) - _count_above(following[right], thresholds)) / images


def _count_above(scores: NDArray[np.floating], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of scores above each threshold; compared in float32, as in torch."""
    ascending = np.sort(scores)
    return len(scores) - np.searchsorted(ascending, thresholds.astype(np.float32), side="right")
