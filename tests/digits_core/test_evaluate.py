import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from digits_core.cache import Split
from digits_core.coco import Table
from digits_core.config import TaskConfig
from digits_core.detect import Detections, RawDetections
from digits_core.evaluate import number_accuracy, score_boxes


def split_of(images):
    """A split from, per image, rows of (xyxy box, label, crowd)."""
    flat = [row for rows in images for row in rows]
    table = Table(
        image_ids=np.arange(1, len(images) + 1),
        sizes=np.full((len(images), 2), 100, dtype=np.int32),
        box_start=np.concatenate([[0], np.cumsum([len(rows) for rows in images])]).astype(np.int64),
        boxes=np.array([row[0] for row in flat], dtype=np.float32).reshape(-1, 4),
        labels=np.array([row[1] for row in flat], dtype=np.int64),
        crowds=np.array([row[2] for row in flat], dtype=bool),
    )
    return Split("valid", table, np.zeros(len(images), dtype=np.int64), np.zeros(0, dtype=np.uint8))


def detections(rows):
    """Detections from rows of (xyxy box, label, score), best first."""
    rows = sorted(rows, key=lambda row: -row[2])
    return Detections(
        torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[2] for row in rows], dtype=torch.float32),
        torch.tensor([row[1] for row in rows], dtype=torch.int64),
    )


def pycocotools_scores(truth, found):
    """AP, AP50 and AP75 by pycocotools from the same numbers."""
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
            "score": score,
        }
        for image, rows in enumerate(found, 1)
        for box, label, score in rows
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(None if value < 0 else value for value in evaluation.stats[:3])


BOX = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(2, 30), st.integers(2, 30)).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)
TRUTH = st.lists(st.tuples(BOX, st.integers(1, 3), st.just(False)), max_size=4)
FOUND = st.lists(st.tuples(BOX, st.integers(1, 3), st.integers(2, 99).map(lambda score: score / 100)), max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 4))
def test_ap_equals_pycocotools(data, num_images):
    truth = [data.draw(TRUTH) for _ in range(num_images)]
    # Half of the detections lie near the truth, or nothing would ever match.
    found = [
        data.draw(FOUND) + [(box, label, 0.5 + 0.001 * k) for k, (box, label, _) in enumerate(rows[::2])]
        for rows in truth
    ]
    if not any(truth) or not any(found):
        return
    ours = score_boxes([detections(rows) for rows in found], split_of(truth), TaskConfig())
    for mine, other in zip(ours, pycocotools_scores(truth, found), strict=True):
        assert mine == pytest.approx(other, abs=1e-6)


def test_crowds_cost_nothing():
    box = (10.0, 10.0, 30.0, 40.0)
    truth = [[(box, 1, False), ((50.0, 10.0, 90.0, 90.0), 1, True)]]
    found = [[(box, 1, 0.9), ((55.0, 15.0, 80.0, 80.0), 1, 0.95)]]
    ours = score_boxes([detections(rows) for rows in found], split_of(truth), TaskConfig())
    assert ours[0] == pytest.approx(1.0)
    assert ours == pytest.approx(pycocotools_scores(truth, found), abs=1e-6)


def test_no_truth_at_all_is_none_and_no_detection_is_zero():
    assert score_boxes([detections([])], split_of([[]]), TaskConfig()) == (None, None, None)
    assert score_boxes([detections([])], split_of([[((0.0, 0.0, 9.0, 9.0), 1, False)]]), TaskConfig()) == (0, 0, 0)


def raw(rows):
    kept = detections(rows)
    return RawDetections(kept.boxes, kept.scores, kept.labels, torch.ones(4))


def test_numbers_are_read_at_the_second_tasks_thresholds():
    left, right = (0.0, 0.0, 10.0, 20.0), (20.0, 0.0, 30.0, 20.0)
    split = split_of([[(left, 2, False), (right, 10, False)], [(left, 1, False)], []])
    found = [
        raw([(right, 10, 0.9), (left, 2, 0.8), (left, 3, 0.7)]),  # "19": the rival 2 falls to NMS across classes
        raw([(left, 1, 0.45)]),  # under the score threshold: nothing read, "-1"
        raw([]),  # no digits there and none found
    ]
    task2 = TaskConfig(nms=0.5, score=0.5, class_agnostic=True)
    assert number_accuracy(found, split, task2) == pytest.approx(2 / 3)
    assert number_accuracy(found, split, TaskConfig(nms=0.5, score=0.4, class_agnostic=True)) == 1.0
    assert number_accuracy(found, split, TaskConfig(nms=0.5, score=0.5)) == pytest.approx(1 / 3)
