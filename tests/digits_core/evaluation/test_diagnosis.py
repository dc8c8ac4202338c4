import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digits_core.config.train_config import DetectConfig, TaskConfig
from digits_core.evaluation.diagnosis import ERRORS, _covered, _pair, diagnose
from digits_core.evaluation.matching import NmsSetting, match
from digits_core.evaluation.metrics import MatchTable, Truth, average_precision
from oracle import candidates_of, coco_scores, scenes, table_of

OWN, FAR = (0.0, 0.0, 10.0, 20.0), (60.0, 60.0, 70.0, 80.0)
BESIDE = (0.0, 8.0, 10.0, 28.0)  # IoU with OWN: 12 / 28
ALL = DetectConfig(task1=TaskConfig(nms=1.0, score=0.0))


def scene(rows, images, nms=1.0):
    table = table_of(rows)
    found = candidates_of(images)
    return MatchTable.of(found, match(found, table, [NmsSetting(nms, False)]), 0), Truth.from_table(table)


def counts(rows, images):
    table, truth = scene(rows, images)
    pairing = _pair(table, truth)
    found = {name: int((pairing.kind == number).sum()) for number, name in enumerate(ERRORS)}
    found["missed"] = int((~_covered(pairing, len(truth.labels))).sum())
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize(
    ("digits", "detections", "expected"),
    [
        ([(OWN, 1)], [(OWN, 1, 0.9)], {}),
        ([(OWN, 1)], [], {"missed": 1}),
        ([(OWN, 1)], [(OWN, 2, 0.9)], {"class": 1}),
        ([(OWN, 1)], [(BESIDE, 1, 0.9)], {"place": 1}),
        ([(OWN, 1)], [(BESIDE, 2, 0.9)], {"both": 1, "missed": 1}),
        ([(OWN, 1)], [(OWN, 1, 0.9), (OWN, 1, 0.8)], {"duplicate": 1}),
        ([(OWN, 1)], [(OWN, 1, 0.9), (FAR, 1, 0.8)], {"background": 1}),
        ([], [(FAR, 1, 0.8)], {"background": 1}),
    ],
)
def test_each_kind_of_error_is_named(digits, detections, expected):
    assert counts([[(box, label, False) for box, label in digits]], [detections]) == expected


def test_correcting_an_error_is_worth_the_ap_it_costs():
    found = diagnose(*scene([[(OWN, 1, False)], [(OWN, 1, False)]], [[(OWN, 1, 0.9)], [(OWN, 2, 0.8)]]), ALL)
    by_name = {one.name: one.cost for one in found.errors}
    assert by_name["class"] == pytest.approx(1 - 51 / 101)
    assert all(cost == 0 for name, cost in by_name.items() if name != "class")


def test_a_crowd_is_no_error():
    assert counts([[(FAR, 1, True)]], [[(FAR, 1, 0.9)]]) == {}


@settings(max_examples=50)
@given(scenes(), st.sampled_from([0.0, 0.3, 0.6]))
def test_the_parts_of_a_diagnosis_add_up(one, score):
    rows, images = one
    table, truth = scene(rows, images, nms=0.5)
    detect = DetectConfig(task1=TaskConfig(score=score, max_detections=5), task2=TaskConfig(score=0.9))
    found = diagnose(table, truth, detect)
    kept = table.above(score, 5)
    right, counted = (kept.matched & 1) != 0, (kept.ignored & 1) == 0
    assert np.array_equal(_pair(kept, truth).own >= 0, right)  # matched as COCO does
    shown = kept.scores > (-1 if found.best is None else found.best.threshold)
    errors = {error.name: error for error in found.errors}
    assert sum(error.count for error in found.errors) - errors["missed"].count == (shown & ~right & counted).sum()
    assert all(error.cost >= -1e-12 for error in errors.values())
    assert found.confusion[:-1].sum() == len(truth.labels) == sum(size.digits for size in found.sizes)
    assert sum(size.found for size in found.sizes) == (shown & right).sum()
    ap = average_precision(kept, truth)
    assert (ap is None) == (not found.classes)
    if ap is not None:
        assert np.mean([each.ap for each in found.classes]) == pytest.approx(ap.mean())
        assert np.mean([each.precision.mean() for each in found.classes]) == pytest.approx(ap[0])


@settings(max_examples=30)
@given(scenes())
def test_the_average_precision_of_each_class_is_pycocotools(one):
    rows, images = one
    for each in diagnose(*scene(rows, images, nms=0.5), ALL).classes:
        table, _ = scene(rows, images, nms=0.5)
        kept = [[] for _ in rows]
        for image, box, label, score in zip(table.image, table.boxes, table.labels, table.scores, strict=True):
            if label == each.label:
                kept[image].append((tuple(map(float, box)), int(label), float(score)))
        own = [[digit for digit in row if digit[1] == each.label] for row in rows]
        expected = coco_scores(own, kept)
        assert [each.ap_50, each.ap_75] == pytest.approx([expected[0], expected[5]], abs=1e-6)


@settings(max_examples=50)
@given(scenes())
def test_the_best_threshold_is_that_of_a_brute_force_twin(one):
    rows, images = one
    table, truth = scene(rows, images)
    best = diagnose(table, truth, ALL).best

    def f1(threshold):
        kept = table.scores > threshold
        hits, number = (kept & (table.matched & 1 != 0)).sum(), (kept & (table.ignored & 1 == 0)).sum()
        return 2 * hits / max(number + len(truth.labels), 1)

    if best is None:
        assert not len(truth.labels) or not ((table.ignored & 1) == 0).any()
        return
    assert best.f1 == pytest.approx(f1(best.threshold))
    assert best.f1 == pytest.approx(max(f1(threshold) for threshold in [-1.0, *table.scores.tolist()]))


def test_a_confusion_is_counted_by_annotated_and_detected_class():
    rows = [[(OWN, 1, False)], [(OWN, 2, False)], [(OWN, 2, False)]]
    images = [[(OWN, 1, 0.5), (FAR, 1, 0.9)], [(OWN, 1, 0.9)], []]
    found = diagnose(*scene(rows, images), ALL)
    assert found.labels.tolist() == [1, 2]
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]


def test_sizes_are_heights_in_pixels():
    small, large = (0.0, 0.0, 8.0, 15.9), (0.0, 0.0, 40.0, 64.0)
    found = diagnose(*scene([[(small, 1, False)], [(large, 1, False)]], [[(small, 1, 0.9)], []]), ALL)
    assert [(one.digits, one.found) for one in found.sizes] == [(1, 1), (0, 0), (0, 0), (1, 0)]


def test_without_annotated_boxes_there_is_no_diagnosis():
    table, truth = scene([[(OWN, 1, False)]], [[(OWN, 1, 0.9)]])
    with pytest.raises(ValueError, match="annotated boxes"):
        diagnose(table, Truth(truth.num_images, truth.image, truth.labels), ALL)
    assert set(ERRORS) == {error.name for error in diagnose(table, truth, ALL).errors}
