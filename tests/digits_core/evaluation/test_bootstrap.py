import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digits_core.config.train_config import DetectConfig
from digits_core.evaluation import bootstrap
from digits_core.evaluation.bootstrap import bootstrap_ap, bootstrap_scores, resample_weights
from digits_core.evaluation.evaluate import match_tasks
from digits_core.evaluation.matching import NmsSetting, match
from digits_core.evaluation.metrics import MatchTable, Truth, average_precision, score
from oracle import candidates_of, coco_scores, postprocess, scenes, split_of, table_of


def kept_of(images, table, nms=0.5):
    found = candidates_of(images)
    return MatchTable.of(found, match(found, table, [NmsSetting(nms, False)]), 0)


@settings(max_examples=60)
@given(scenes(distinct_scores=True), st.integers(0, 1000))
def test_ap_under_a_resample_equals_pycocotools_on_the_resampled_images(scene, seed):
    rows, images = scene
    table = table_of(rows)
    kept = kept_of(images, table)
    weights = resample_weights(len(images), 4, seed)
    ours = bootstrap_ap(kept, Truth.from_table(table), weights)
    for number, weight in enumerate(weights):
        again = np.repeat(np.arange(len(images)), weight)
        twin = [
            postprocess(images[image], nms=0.5, class_agnostic=False, score=0.0, max_detections=1000) for image in again
        ]
        expected = coco_scores([rows[image] for image in again], twin)
        if expected is None:
            assert ours is None or np.isnan(ours[number]).all()
        else:
            assert ours[number] == pytest.approx(expected, abs=1e-6)


def test_more_resamples_than_a_block_are_the_same_as_one_by_one(monkeypatch):
    box = (0.0, 0.0, 10.0, 10.0)
    rows = [[(box, 1 + image % 2, False)] for image in range(5)]
    images = [[(box, 1, 0.1 * image + 0.1), ((2.0, 0.0, 12.0, 10.0), 2, 0.15)] for image in range(5)]
    table = table_of(rows)
    kept, truth = kept_of(images, table), Truth.from_table(table)
    weights = resample_weights(5, 23)
    whole = bootstrap_ap(kept, truth, weights)
    monkeypatch.setattr(bootstrap, "RESAMPLE_BLOCK", 7)
    assert np.array_equal(bootstrap_ap(kept, truth, weights), whole, equal_nan=True)
    assert np.allclose(bootstrap_ap(kept, truth, np.ones((1, 5), np.int16))[0], average_precision(kept, truth))


def test_resamples_are_the_same_for_every_trial_and_draw_as_many_images():
    first, again = resample_weights(40, 200), resample_weights(40, 200)
    assert np.array_equal(first, again)
    assert (first.sum(axis=1) == 40).all()
    assert not np.array_equal(first, resample_weights(40, 200, seed=1))


def test_without_any_digit_there_is_no_ap_to_resample():
    weights = resample_weights(2, 5)
    for rows, nothing in (([[], []], True), ([[((0.0, 0.0, 9.0, 9.0), 1, False)], []], False)):
        table = table_of(rows)
        found = bootstrap_ap(kept_of([[], []], table), Truth.from_table(table), weights)
        assert (found is None) == nothing


@settings(max_examples=40)
@given(scenes())
def test_every_image_drawn_once_gives_the_scores_themselves(scene):
    rows, images = scene
    split, detect = split_of(rows), DetectConfig()
    tasks, truth = match_tasks(candidates_of(images), split, detect), Truth.from_table(split.table)
    found = bootstrap_scores(*tasks, truth, detect, np.ones((1, len(images)), np.int16))
    expected = score(*tasks, truth, detect)
    for name in ("map", "map_50", "map_75", "digit_accuracy", "number_accuracy"):
        value = getattr(expected, name)
        assert (name not in found) if value is None else found[name][0] == pytest.approx(value, abs=1e-6)


def test_sums_over_many_images_do_not_overflow():
    count = 40_000
    truth = Truth(count, np.arange(count), np.ones(count, np.int64))
    nothing = np.zeros(0)
    empty = MatchTable(
        *(nothing.astype(kind) for kind in (np.int64, np.int64, np.int64, np.float32)),
        np.zeros((0, 4), np.float32),
        *(nothing.astype(kind) for kind in (np.float32, np.uint16, np.uint16, np.uint8)),
    )
    found = bootstrap_scores(empty, empty, truth, DetectConfig(), np.ones((1, count), np.int16))
    assert found["number_accuracy"].tolist() == [0.0]
    assert found["digit_accuracy"].tolist() == [0.0]
