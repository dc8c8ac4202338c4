"""NMS and matching of detections with ground truth, for many kinds and values of NMS at once (numpy).

Up to 64 NMS settings are computed together: each raw detection has one 64-bit word, whose bit s says that setting s
keeps it (or that it is matched with setting s). One greedy pass over the detections computes all settings, with the
same result as one pass per setting.

Score thresholds and limits per image are not applied here. They remove the last detections of an image in the order
of scores, which does not change NMS and matching of the detections before them, so they can be applied afterwards.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from digits_core.data.coco import Table, starts_of

MAX_SETTINGS = 64
"""NMS settings of one pass: the bits of a word."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds; a detection with an IoU of exactly .5 matches at .5."""

CHUNK_ELEMENTS = 400_000
"""Pairs of detections compared together: they fit into the cache of a CPU core."""

PAIR_ROWS = 200_000
"""Candidates that are compared with the digits of their images together: this limits the memory."""

Words = NDArray[np.uint64]

NONE, WRONG, RIGHT, CROWD = 0, 1, 2, 3
"""Where a detection is, regardless of its class: on no digit, on a digit of another class, on a digit of its own class,
or only on a crowd; a detection on a crowd is not counted."""


@dataclass(frozen=True, slots=True)
class NmsSetting:
    """One kind and value of NMS.

    Attributes:
        nms: IoU above which the detection with the lower score is dropped.
        class_agnostic: NMS over all classes together instead of within each class.
    """

    nms: float
    class_agnostic: bool


@dataclass(frozen=True, slots=True)
class Candidates:
    """The raw detections of a split before NMS, sorted by image and then by score, best first.

    Attributes:
        start: int64 [num_images + 1]; image i has the rows start[i] to start[i + 1] - 1.
        boxes: float32 [num, 4], xyxy, pixels of the resized image, in which torchvision computes NMS.
        scores: float32 [num], all above the floor of the detector.
        labels: int64 [num], labels as in `coco.Table`.
        scale: float32 [num_images, 4]; boxes times scale are in pixels of the original image.
    """

    start: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    scale: NDArray[np.float32]

    @property
    def image(self) -> NDArray[np.int64]:
        """int64 [num]: the image of each row."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    @property
    def original_boxes(self) -> NDArray[np.float32]:
        """float32 [num, 4], xyxy, pixels of the original image."""
        return self.boxes * np.repeat(self.scale, np.diff(self.start), axis=0)

    @classmethod
    def of_images(
        cls,
        rows: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]],
    ) -> "Candidates":
        """From (boxes, scores, labels, scale) of each image; the rows of an image may be in any order."""
        parts = []
        for boxes, scores, labels, scale in rows:
            order = np.argsort(-scores, kind="stable")  # equal scores keep the detector's order
            parts.append(cls(np.array([0, len(order)]), boxes[order], scores[order], labels[order], scale[None]))
        return cls.join(parts)

    def split(self) -> "list[Candidates]":
        """One object per image."""
        return [
            Candidates(
                np.array([0, end - begin]),
                self.boxes[begin:end],
                self.scores[begin:end],
                self.labels[begin:end],
                self.scale[image : image + 1],
            )
            for image, (begin, end) in enumerate(itertools.pairwise(self.start.tolist()))
        ]

    def some(self, images: NDArray[np.int64]) -> "Candidates":
        """The images with the given indices, in their order."""
        each = self.split()
        return Candidates.join([each[index] for index in images.tolist()])

    def above(self, score: float) -> "Candidates":
        """The detections with a higher score."""
        rows = self.scores > np.float32(score)
        counts = np.bincount(self.image[rows], minlength=len(self.start) - 1)
        start = starts_of(counts)
        return Candidates(start, self.boxes[rows], self.scores[rows], self.labels[rows], self.scale)

    @classmethod
    def join(cls, parts: "Sequence[Candidates]") -> "Candidates":
        """The images of all parts, in the order of the parts."""
        counts = np.concatenate([np.zeros(0, np.int64), *(np.diff(part.start) for part in parts)])
        return cls(
            starts_of(counts),
            np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
            np.concatenate([np.zeros((0, 4), np.float32), *(part.scale for part in parts)]),
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """The result of NMS and matching for each candidate, one bit per setting.

    Attributes:
        settings: bit s belongs to settings[s].
        kept: uint64 [num]: NMS keeps the candidate.
        matched: uint64 [num, 10]: it is matched with a digit of its class, at each of IOU_THRESHOLDS.
        ignored: uint64 [num, 10]: it is on a crowd of its class instead, and is not counted.
        on_digit: uint64 [num]: at IoU .5 it is matched with a digit, regardless of the classes.
        on_own: uint64 [num]: and this digit has the class of the candidate.
        on_crowd: uint64 [num]: it is only on a crowd, regardless of the classes.
        iou_word, iou_row, iou: the matches at IoU .5 within the class as (settings, row, IoU).
    """

    settings: tuple[NmsSetting, ...]
    kept: Words
    matched: Words
    ignored: Words
    on_digit: Words
    on_own: Words
    on_crowd: Words
    iou_word: Words
    iou_row: NDArray[np.int64]
    iou: NDArray[np.float64]


def match(found: Candidates, truth: Table, settings: Sequence[NmsSetting]) -> Matches:
    """NMS and then COCO's greedy matching, for every setting.

    Args:
        found: raw detections of each image of the split.
        truth: the annotations of the split.
        settings: at most MAX_SETTINGS.

    Raises:
        ValueError: no settings, or too many.

    Source:
        NMS: torchvision `nms` on the CPU (IoU in float32; a box is dropped if the IoU is above the threshold).
        Matching: pycocotools `COCOeval.evaluateImg` (the digit with the best IoU that is not matched yet, the last one
        of equals; crowds after all digits, and any number of times).
    """
    if not 0 < len(settings) <= MAX_SETTINGS:
        raise ValueError(f"needs 1 to {MAX_SETTINGS} settings, got {len(settings)}")
    kept = keep(found, settings)
    pairs = _pairs(found, truth)
    own = pairs.select(found.labels[pairs.row] == truth.labels[pairs.digit])
    image = found.image
    matched, ignored, _, taken = _greedy(
        own,
        kept,
        group=image[own.row] * (int(found.labels.max(initial=0)) + 1) + found.labels[own.row],
        truth=truth,
        num_thresholds=len(IOU_THRESHOLDS),
        found=found,
    )
    any_matched, any_ignored, same, _ = _greedy(
        pairs, kept, group=image[pairs.row], truth=truth, num_thresholds=1, found=found
    )
    return Matches(tuple(settings), kept, matched, ignored, any_matched[:, 0], same, any_ignored[:, 0], *taken)


def keep(found: Candidates, settings: Sequence[NmsSetting]) -> Words:
    """uint64 [num]: bit s of row i says that NMS with setting s keeps candidate i.

    Source:
        torchvision `nms`; NMS within classes is `batched_nms` without its shift of the boxes, which loses precision.
    """
    values = sorted({setting.nms for setting in settings})
    # words[same class][number of values that the IoU exceeds]: settings that drop the candidate with the lower score
    words = np.zeros((2, len(values) + 1), dtype=np.uint64)
    for bit, setting in enumerate(settings):
        exceeds = np.arange(len(values) + 1) > values.index(setting.nms)
        for same in (0, 1):
            if same or setting.class_agnostic:
                words[same, exceeds] |= np.uint64(1 << bit)
    everything = np.uint64((1 << len(settings)) - 1)
    kept = np.full(len(found.scores), everything, dtype=np.uint64)
    # torchvision compares its float32 IoU with a double, so `lowest` is the smallest float32 above the lowest value.
    lowest = np.float32(values[0])
    if float(lowest) <= values[0]:
        lowest = np.nextafter(lowest, np.float32(np.inf))
    for rows, inside in chunks(found):
        boxes = found.boxes[rows]
        iou = self_iou(boxes)
        iou[~(inside[:, :, None] & inside[:, None, :])] = 0
        one, first, second = np.nonzero(np.triu(iou >= lowest, k=1))
        level = np.searchsorted(values, iou[one, first, second].astype(np.float64), side="left")
        labels = found.labels[rows]
        same = (labels[one, first] == labels[one, second]).astype(np.intp)
        drops = np.zeros(iou.shape, dtype=np.uint64)
        drops[one, first, second] = words[same, level]
        alive = np.full(rows.shape, everything, dtype=np.uint64)
        for rank in range(rows.shape[1] - 1):  # greedy, best first, for all images and settings at once
            alive[:, rank + 1 :] &= ~(drops[:, rank, rank + 1 :] & alive[:, rank, None])
        kept[rows[inside]] = alive[inside]
    return kept


def chunks(found: Candidates) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Groups of images with similar numbers of candidates: row numbers [images, most], and which are no padding."""
    counts = np.diff(found.start)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 1]  # NMS does not change a single candidate
    at = 0
    while at < len(order):
        most = int(counts[order[at]])
        some = order[at : at + max(1, CHUNK_ELEMENTS // most**2)]
        at += len(some)
        column = np.arange(most)
        inside = column < counts[some, None]
        yield np.where(inside, found.start[some, None] + column, 0), inside


def iou_of(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """IoU of boxes, xyxy in the last dimension, broadcast, in float64; 0 without an area."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    wide = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    tall = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    inter = np.maximum(wide, 0) * np.maximum(tall, 0)
    areas = [(one[..., 2] - one[..., 0]) * (one[..., 3] - one[..., 1]) for one in (a, b)]
    union = areas[0] + areas[1] - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))


def self_iou(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of all pairs, float32 [images, most, most], with torchvision's order of operations."""
    left, top, right, bottom = (np.ascontiguousarray(boxes[:, :, side]) for side in range(4))
    area = (right - left) * (bottom - top)
    wide = np.minimum(right[:, :, None], right[:, None, :])
    wide -= np.maximum(left[:, :, None], left[:, None, :])
    np.maximum(wide, 0, out=wide)
    tall = np.minimum(bottom[:, :, None], bottom[:, None, :])
    tall -= np.maximum(top[:, :, None], top[:, None, :])
    np.maximum(tall, 0, out=tall)
    wide *= tall
    union = area[:, :, None] + area[:, None, :]
    union -= wide
    with np.errstate(divide="ignore", invalid="ignore"):  # padding has no area
        return np.asarray(np.divide(wide, union, out=wide), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Candidates and digits of the same image with an IoU of at least .5; for crowds, the IoU follows COCO's rule."""

    row: NDArray[np.int64]
    digit: NDArray[np.int64]
    iou: NDArray[np.float64]

    def select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "_Pairs":
        return _Pairs(self.row[which], self.digit[which], self.iou[which])


def _pairs(found: Candidates, truth: Table) -> _Pairs:
    image = found.image
    parts = [
        _pairs_of(found, truth, image, np.arange(begin, min(begin + PAIR_ROWS, len(image))))
        for begin in range(0, max(len(image), 1), PAIR_ROWS)
    ]
    return _Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Pairs.__slots__))


def _pairs_of(found: Candidates, truth: Table, image: NDArray[np.int64], rows: NDArray[np.int64]) -> _Pairs:
    """The pairs of the candidates `rows`."""
    per_row = np.diff(truth.box_start)[image[rows]]
    row = np.repeat(rows, per_row)
    first = np.repeat(np.cumsum(per_row) - per_row, per_row)
    digit = truth.box_start[image[row]] + np.arange(len(row)) - first
    # pycocotools computes in double precision.
    a = (found.boxes[row] * found.scale[image[row]]).astype(np.float64)
    b = truth.boxes[digit].astype(np.float64)
    wide = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    tall = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    inter = np.where((wide > 0) & (tall > 0), wide * tall, 0.0)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = np.where(truth.crowds[digit], area_a, area_a + area_b - inter)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(inter > 0, inter / union, 0.0)
    near = iou >= IOU_THRESHOLDS[0]
    return _Pairs(row[near], digit[near], iou[near])


def _greedy(
    pairs: _Pairs, kept: Words, *, group: NDArray[np.int64], truth: Table, num_thresholds: int, found: Candidates
) -> tuple[Words, Words, Words, tuple[Words, NDArray[np.int64], NDArray[np.float64]]]:
    """COCO's greedy matching within groups of candidates, over all settings and IoU thresholds at once.

    Args:
        pairs: candidates and digits that can be matched.
        kept: the settings that keep each candidate.
        group: the group of each pair's candidate. Candidates of one group compete for digits, best score first.
        truth: the annotations.
        num_thresholds: uses the first `num_thresholds` of IOU_THRESHOLDS.
        found: the candidates.

    Returns:
        Matched and ignored, uint64 [num, num_thresholds]; matched with a digit of its own class at the first
        threshold, uint64 [num]; and those matches as (settings, row, IoU).
    """
    shape = (len(kept), num_thresholds)
    matched, ignored = np.zeros(shape, np.uint64), np.zeros(shape, np.uint64)
    same = np.zeros(len(kept), np.uint64)
    taken = np.zeros((len(truth.labels), num_thresholds), np.uint64)
    events: list[tuple[Words, NDArray[np.int64], NDArray[np.float64]]] = []
    crowd = truth.crowds[pairs.digit]
    # The choices of a candidate: digits before crowds, best IoU first, the last one of equals first.
    order = np.lexsort((-pairs.digit, -pairs.iou, crowd, pairs.row, group))
    pairs, crowd, group = pairs.select(order), crowd[order], group[order]
    # COCO allows a small tolerance at each threshold.
    levels = np.searchsorted(np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:num_thresholds], pairs.iou, side="right")
    allowed = np.where(np.arange(num_thresholds) < levels[:, None], ~np.uint64(0), np.uint64(0))
    left = np.zeros(shape, np.uint64)
    left[pairs.row] = kept[pairs.row, None]
    for now in _turns(pairs.row, group):
        row, digit, is_crowd = pairs.row[now], pairs.digit[now], crowd[now]
        get = left[row] & allowed[now]
        get &= np.where(is_crowd[:, None], ~np.uint64(0), ~taken[digit])
        left[row] &= ~get
        solid = ~is_crowd
        matched[row[solid]] |= get[solid]
        taken[digit[solid]] |= get[solid]
        ignored[row[is_crowd]] |= get[is_crowd]
        own = solid & (found.labels[row] == truth.labels[digit])
        same[row[own]] |= get[own, 0]
        some = solid & (get[:, 0] != 0)
        events.append((get[some, 0], row[some], pairs.iou[now][some]))
    words, rows, ious = zip(*events, strict=True) if events else ([], [], [])
    return (
        matched,
        ignored,
        same,
        (
            np.concatenate([np.zeros(0, np.uint64), *words]),
            np.concatenate([np.zeros(0, np.int64), *rows]),
            np.concatenate([np.zeros(0), *ious]),
        ),
    )


def _turns(row: NDArray[np.int64], group: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Indices of pairs in the order of the matching, one turn after the other.

    A turn has at most one candidate of each group, all with the same rank in their groups, and one choice of each, all
    with the same rank among the candidate's choices.

    Args:
        row: int64 [num_pairs], the candidate of each pair; the pairs are sorted by group, candidate and choice.
        group: int64 [num_pairs], the group of each candidate.
    """
    place = np.arange(len(group))
    new_row = np.concatenate([[True], row[1:] != row[:-1]])[: len(group)]
    new_group = np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]
    rank = _count_since(new_row, new_group)
    choice = place - np.maximum.accumulate(np.where(new_row, place, 0))
    order = np.lexsort((choice, rank))
    borders = np.flatnonzero((np.diff(rank[order]) != 0) | (np.diff(choice[order]) != 0)) + 1
    return np.split(order, borders)


def _count_since(rises: NDArray[np.bool_], resets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of `rises` after the last of `resets`."""
    count = np.cumsum(rises)
    return np.asarray(count - np.maximum.accumulate(np.where(resets, count, 0)), dtype=np.int64)
