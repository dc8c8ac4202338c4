import numpy as np
import pytest

from digits_core.config.train_config import DetectConfig, TaskConfig
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.sweep import NMS_VALUES, NUM_SWEPT, SCORE_VALUES, Sweep, sweep
from oracle import coco_scores, digit_accuracy, number_accuracy, postprocess, table_of

RNG = np.random.default_rng(5)


def scene(images=6):
    """Digits in a row, detections scattered around them, with classes mixed up now and then."""
    truth, found = [], []
    for _ in range(images):
        count = int(RNG.integers(0, 4))
        digits = [((12.0 * k, 5.0, 12.0 * k + 10, 25.0), int(RNG.integers(1, 4)), False) for k in range(count)]
        rows = []
        for box, label, _ in digits:
            for _ in range(int(RNG.integers(0, 6))):
                shift = RNG.normal(0, 2, 4)
                near = tuple(np.float32(side + step) for side, step in zip(box, shift, strict=True))
                rows.append((near, label if RNG.random() < 0.7 else 2, float(RNG.random() * 0.98 + 0.015)))
        truth.append(digits)
        found.append(rows)
    return truth, found


def test_the_grid_is_both_kinds_of_nms_times_a_hundred_scores():
    assert NMS_VALUES[0] == 0.1
    assert NMS_VALUES[-1] == 0.9
    assert np.allclose(np.diff(NMS_VALUES), 0.05)
    assert len(SCORE_VALUES) == 100
    assert NUM_SWEPT == 3400


def test_rows_equal_the_brute_force_twin_at_settings_of_the_grid_and_beside_it():
    truth, images = scene()
    found = Candidates.of_images(
        [
            (
                np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
                np.array([row[2] for row in rows], np.float32),
                np.array([row[1] for row in rows], np.int64),
                np.ones(4, np.float32),
            )
            for rows in images
        ]
    )
    own = TaskConfig(nms=0.333, score=0.123, max_detections=2, class_agnostic=True)
    swept = sweep(found, table_of(truth), DetectConfig(), [own])
    assert len(swept) == NUM_SWEPT + 1
    rows = [*RNG.integers(0, len(swept), 40), int(np.flatnonzero(swept.nms == 0.333)[0])]
    assert swept.task(rows[-1]) == own
    for row in rows:
        task = swept.task(int(row))
        twin = [
            postprocess(
                image,
                nms=task.nms,
                class_agnostic=task.class_agnostic,
                score=task.score,
                max_detections=task.max_detections,
            )
            for image in images
        ]
        ap = coco_scores(truth, twin)
        assert swept.map[row] == pytest.approx(ap.mean(), abs=1e-6)
        assert swept.map_50[row] == pytest.approx(ap[0], abs=1e-6)
        assert swept.digit_accuracy[row] == pytest.approx(digit_accuracy(truth, twin), abs=1e-6)
        assert swept.number_accuracy[row] == pytest.approx(number_accuracy(truth, twin), abs=1e-6)


def test_two_limits_per_image_give_two_grids():
    truth, _ = scene(2)
    nothing = Candidates.join([])
    nothing = Candidates(
        np.zeros(3, np.int64), nothing.boxes, nothing.scores, nothing.labels, np.ones((2, 4), np.float32)
    )
    detect = DetectConfig(task1=TaskConfig(max_detections=50))
    swept = sweep(nothing, table_of(truth), detect)
    assert len(swept) == 2 * NUM_SWEPT
    assert set(swept.max_detections.tolist()) == {50, 100}
    assert set(swept.map.tolist()) <= {0.0}


def columns(**values):
    count = len(next(iter(values.values())))
    base = {name: np.arange(count, dtype=float) for name in Sweep.__slots__}
    return Sweep(**(base | {name: np.array(value, dtype=float) for name, value in values.items()}))


def test_the_best_row_is_the_highest_then_the_one_with_more_digits_then_the_first():
    swept = columns(number_accuracy=[0.5, 0.7, 0.7, 0.7], digit_accuracy=[0.9, 0.5, 0.6, 0.6])
    assert swept.ranked("number_accuracy").tolist() == [2, 3, 1, 0]
    assert swept.best("number_accuracy") == 2
    nowhere = columns(map=[np.nan, np.nan], digit_accuracy=[np.nan, np.nan])
    assert nowhere.best("map") is None
    assert columns(map=[np.nan, 0.0], digit_accuracy=[np.nan, 0.0]).ranked("map").tolist() == [1]
