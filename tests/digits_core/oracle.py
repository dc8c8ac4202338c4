"""Independent references for the evaluation: torchvision's post-processing, one box at a time, and pycocotools."""

import contextlib
import io

import numpy as np
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from digits_core.data.cache import Split
from digits_core.data.coco import Table
from digits_core.evaluation.matching import Candidates


def table_of(images, side=100):
    """Annotations from, per image, rows of (xyxy box, label, crowd)."""
    flat = [row for rows in images for row in rows]
    return Table(
        image_ids=np.arange(1, len(images) + 1),
        sizes=np.full((len(images), 2), side, dtype=np.int32),
        box_start=np.concatenate([[0], np.cumsum([len(rows) for rows in images])]).astype(np.int64),
        boxes=np.array([row[0] for row in flat], dtype=np.float32).reshape(-1, 4),
        labels=np.array([row[1] for row in flat], dtype=np.int64),
        crowds=np.array([row[2] for row in flat], dtype=bool),
    )


def split_of(images):
    """A split of such annotations, without pixels."""
    table = table_of(images)
    return Split("valid", table, np.zeros(len(images), dtype=np.int64), np.zeros(0, dtype=np.uint8))


def candidates_of(images):
    """Raw detections from, per image, rows of (xyxy box, label, score)."""
    return Candidates.of_images(
        [
            (
                np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4),
                np.array([row[2] for row in rows], dtype=np.float32),
                np.array([row[1] for row in rows], dtype=np.int64),
                np.ones(4, dtype=np.float32),
            )
            for rows in images
        ]
    )


def iou_of(a, b):
    """IoU in float32, in the order of torchvision's kernel."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    wide = np.maximum(np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), np.float32(0))
    tall = np.maximum(np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]), np.float32(0))
    inter = wide * tall
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def postprocess(rows, *, nms, class_agnostic, score, max_detections, min_side=0.01):
    """What is kept of one image's (box, label, score) rows: score, small sides, NMS, top-k."""
    rows = [row for row in rows if np.float32(row[2]) > np.float32(score)]
    rows = [row for row in rows if min(row[0][2] - row[0][0], row[0][3] - row[0][1]) >= min_side]
    rows = sorted(rows, key=lambda row: -np.float32(row[2]))
    kept = []
    for row in rows:
        rivals = [one for one in kept if class_agnostic or one[1] == row[1]]
        if all(float(iou_of(one[0], row[0])) <= nms for one in rivals):
            kept.append(row)
    return kept[:max_detections]


def coco_scores(truth, found):
    """AP at each of the ten IoU thresholds, by pycocotools, -1 as None; truth and found are rows per image."""
    coco = COCO()
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": label,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": (box[2] - box[0]) * (box[3] - box[1]),
            "iscrowd": int(crowd),
        }
        for number, (image, (box, label, crowd)) in enumerate(
            ((image, row) for image, rows in enumerate(truth, 1) for row in rows), start=1
        )
    ]
    coco.dataset = {
        "images": [{"id": image, "width": 100, "height": 100} for image in range(1, len(truth) + 1)],
        "annotations": annotations,
        "categories": [{"id": label} for label in range(1, 11)],
    }
    results = [
        {
            "image_id": image,
            "category_id": label,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": float(np.float32(score)),
        }
        for image, rows in enumerate(found, 1)
        for box, label, score in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        predicted = COCO()
        predicted.dataset = {**coco.dataset, "annotations": []}
        predicted.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results) if results else predicted, "bbox")
        evaluation.params.maxDets = [1, 10, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU thresholds, recalls, classes
    per_class = [precision[:, :, k] for k in range(precision.shape[2]) if precision[:, :, k].max() > -1]
    return None if not per_class else np.mean([one.mean(axis=1) for one in per_class], axis=0)


def digit_accuracy(truth, found):
    """Report B's digit accuracy, greedy by score, one to one, IoU at least .5, regardless of the class."""
    right = stray = digits = 0
    for digit_rows, rows in zip(truth, found, strict=True):
        solid = [row for row in digit_rows if not row[2]]
        crowds = [row for row in digit_rows if row[2]]
        digits += len(solid)
        free = list(range(len(solid)))
        for box, label, _ in rows:
            near = [(float_iou(box, solid[k][0]), k) for k in free]
            near = [one for one in near if one[0] >= 0.5]
            if near:
                best = max(near)[1]
                free.remove(best)
                right += solid[best][1] == label
            elif not any(float_iou(box, crowd[0], crowd=True) >= 0.5 for crowd in crowds):
                stray += 1
    return right / (digits + stray) if digits else None


def float_iou(a, b, *, crowd=False):
    """IoU in double precision; for a crowd, intersection divided by the area of the detection."""
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    tall = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1])
    return wide * tall / (area if crowd else area + (b[2] - b[0]) * (b[3] - b[1]) - wide * tall)


def number_of(rows):
    """The digits of (box, label, ...) rows from left to right."""
    ordered = sorted(rows, key=lambda row: row[0][0] + row[0][2])
    return "".join(str(row[1] - 1) for row in ordered) or "-1"


def number_accuracy(truth, found):
    """Share of images whose number is read right."""
    same = [
        number_of([row for row in digits if not row[2]]) == number_of(rows)
        for digits, rows in zip(truth, found, strict=True)
    ]
    return sum(same) / len(same)


_SIDE, _PLACE = st.integers(2, 14), st.integers(0, 12)
BOX = st.tuples(_PLACE, _PLACE, _SIDE, _SIDE).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)
"""Boxes on a coarse grid, so that equal boxes, ties in IoU and IoUs of exactly .5 occur."""


@st.composite
def scenes(draw, max_images=4, distinct_scores=False):
    """Truth and raw detections of a few images: empty ones, crowds, ties in score, detections near the truth."""
    truth, found = [], []
    classes = draw(st.sampled_from([1, 3]))
    for _ in range(draw(st.integers(1, max_images))):
        digits = draw(
            st.lists(st.tuples(BOX, st.integers(1, classes), st.sampled_from([False] * 5 + [True])), max_size=4)
        )
        near = draw(st.lists(st.sampled_from(digits), max_size=4)) if digits else []
        boxes = [
            (nudge(box, draw(st.tuples(*[st.integers(-1, 1)] * 4))), draw(st.sampled_from([label, 1])))
            for box, label, _ in near
        ]
        boxes += draw(st.lists(st.tuples(BOX, st.integers(1, classes)), max_size=5))
        scores = st.lists(
            st.integers(1, 400 if distinct_scores else 40),
            min_size=len(boxes),
            max_size=len(boxes),
            unique=distinct_scores,
        )
        rows = [
            (*box, score / (401 if distinct_scores else 41))
            for box, score in zip(draw(st.permutations(boxes)), draw(scores), strict=True)
        ]
        truth.append(digits)
        found.append(rows)
    return truth, found


def nudge(box, by):
    left, top, right, bottom = (side + step for side, step in zip(box, by, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)
