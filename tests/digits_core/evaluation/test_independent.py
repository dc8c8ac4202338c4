import pytest
from hypothesis import given, settings

from digits_core.config.train_config import DetectConfig, TaskConfig
from digits_core.evaluation.independent import torchmetrics_map
from digits_core.evaluation.matching import NmsSetting, match
from digits_core.evaluation.metrics import MatchTable, Truth, average_precision
from oracle import candidates_of, scenes, table_of

DETECT = DetectConfig(task1=TaskConfig(score=0.3, max_detections=4), task2=TaskConfig(score=0.5))


def scene(rows, images):
    table, found = table_of(rows), candidates_of(images)
    return MatchTable.of(found, match(found, table, [NmsSetting(0.5, False)]), 0), Truth.from_table(table)


@settings(max_examples=30)
@given(scenes())
def test_our_map_is_that_of_torchmetrics(one):
    table, truth = scene(*one)
    ours = average_precision(table.above(0.3, 4), truth)
    theirs = torchmetrics_map(table, truth, DETECT)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        assert theirs == pytest.approx(ours.mean(), abs=1e-6)


def test_what_torchmetrics_cannot_count_is_not_checked():
    box = (0.0, 0.0, 10.0, 10.0)
    table, truth = scene([[(box, 1, False)]], [[(box, 1, 0.9)]])
    assert torchmetrics_map(table, truth, DETECT) == 1.0
    assert torchmetrics_map(table, Truth(1, truth.image, truth.labels), DETECT) is None
    many = [((20.0 * k, 0.0, 20.0 * k + 10, 10.0), 1, 0.9) for k in range(101)]
    table, truth = scene([[(box, 1, False)]], [many])
    assert torchmetrics_map(table, truth, DetectConfig(task1=TaskConfig(score=0.3, max_detections=200))) is None
