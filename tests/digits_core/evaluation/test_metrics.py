import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digits_core.evaluation import metrics
from digits_core.evaluation.matching import NmsSetting, match
from digits_core.evaluation.metrics import (
    MatchTable,
    Truth,
    ap_over_scores,
    average_precision,
    digit_accuracy_over_scores,
    digit_counts,
    number_accuracy_over_scores,
    numbers_right,
)
from oracle import candidates_of, coco_scores, digit_accuracy, number_accuracy, postprocess, scenes, table_of

SETTINGS = [NmsSetting(value, kind) for kind in (False, True) for value in (0.25, 0.5, 0.8)]
THRESHOLDS = np.array([0.0, 0.05, 0.3, 0.5, 0.75, 0.9])


def tables_of(images, truth, nms_settings=SETTINGS):
    found = candidates_of(images)
    matches = match(found, truth, nms_settings)
    return [MatchTable.of(found, matches, number) for number in range(len(nms_settings))]


@settings(max_examples=50)
@given(scenes(), st.sampled_from([1, 2, 4, 1000]))
def test_every_swept_figure_equals_a_brute_force_twin_scored_by_pycocotools(scene, top):
    rows, images = scene
    table = table_of(rows)
    truth = Truth.from_table(table)
    for setting, kept in zip(SETTINGS, tables_of(images, table), strict=True):
        kept = kept.above(-1, top)
        swept = ap_over_scores(kept, truth, THRESHOLDS)
        digits = digit_accuracy_over_scores(kept, truth, THRESHOLDS)
        numbers = number_accuracy_over_scores(kept, truth, THRESHOLDS)
        for column, score in enumerate(THRESHOLDS):
            twin = [
                postprocess(
                    image, nms=setting.nms, class_agnostic=setting.class_agnostic, score=score, max_detections=top
                )
                for image in images
            ]
            expected = coco_scores(rows, twin)
            assert (swept is None) == (expected is None)
            if expected is not None:
                assert swept[:, column] == pytest.approx(expected, abs=1e-6)
                assert digits[column] == pytest.approx(digit_accuracy(rows, twin), abs=1e-12)
            assert numbers[column] == pytest.approx(number_accuracy(rows, twin), abs=1e-12)
            some = kept.above(score, top)
            assert numbers_right(some, truth).mean() == pytest.approx(numbers[column])
            right, of = digit_counts(some, truth).sum(axis=0)
            assert digits is None or right / of == pytest.approx(digits[column])


def test_a_hundred_digits_reach_recalls_as_pycocotools_counts_them():
    """7 of 100 digits is a recall of .07, slightly below the seventh of COCO's recall thresholds."""
    box = (0.0, 0.0, 10.0, 10.0)
    rows = [[(box, 1, False)] for _ in range(100)]
    images = [
        [(box, 1, 1 - image / 200)] if image % 3 else [((50.0, 50.0, 60.0, 60.0), 1, 0.99)] for image in range(100)
    ]
    table = table_of(rows)
    kept = tables_of(images, table, [NmsSetting(0.5, False)])[0]
    assert average_precision(kept, Truth.from_table(table)) == pytest.approx(coco_scores(rows, images), abs=1e-9)


def test_top_k_may_raise_ap():
    """The limit removes a wrong detection of a full image, but not the right one with a lower score."""
    box, other = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
    rows = [[(box, 1, False)], [(box, 1, False)]]
    images = [[(box, 1, 0.9), (other, 1, 0.8)], [(box, 1, 0.7)]]
    table = table_of(rows)
    kept, truth = tables_of(images, table)[1], Truth.from_table(table)
    assert average_precision(kept.above(0, 1), truth).mean() > average_precision(kept, truth).mean()


def test_the_match_table_holds_iou_and_what_each_detection_lies_on():
    box = (0.0, 0.0, 10.0, 10.0)
    rows = [[(box, 3, False), ((40.0, 0.0, 60.0, 20.0), 5, True)]]
    images = [
        [
            ((0.0, 0.0, 10.0, 8.0), 3, 0.9),
            (box, 4, 0.8),
            ((42.0, 2.0, 50.0, 12.0), 5, 0.7),
            ((80.0, 80.0, 90.0, 90.0), 1, 0.6),
        ]
    ]
    table = table_of(rows)
    kept = tables_of(images, table, [NmsSetting(0.9, False)])[0]
    assert kept.iou.tolist() == pytest.approx([0.8, 0, 0, 0])
    assert kept.matched.tolist() == [0b1111111, 0, 0, 0]
    assert kept.ignored.tolist() == [0, 0, 0b1111111111, 0]
    assert kept.digits.tolist() == [metrics.RIGHT, metrics.NONE, metrics.CROWD, metrics.NONE]
    assert kept.rank.tolist() == [0, 1, 2, 3]


def test_no_digits_at_all_is_none_and_no_detection_is_zero():
    for rows, expected in (([[], []], None), ([[((0.0, 0.0, 9.0, 9.0), 1, False)], []], 0.0)):
        table = table_of(rows)
        kept, truth = tables_of([[], []], table)[0], Truth.from_table(table)
        ap = average_precision(kept, truth)
        assert ap is None if expected is None else ap.mean() == expected
    assert number_accuracy_over_scores(kept, truth, THRESHOLDS).tolist() == [0.5] * len(THRESHOLDS)
