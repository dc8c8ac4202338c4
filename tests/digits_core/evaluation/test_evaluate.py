import warnings

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from digits_core.config.train_config import DetectConfig, TaskConfig, TrainConfig
from digits_core.evaluation.evaluate import evaluate, match_tasks
from digits_core.evaluation.matching import NmsSetting, keep
from digits_core.evaluation.metrics import Truth, score
from digits_core.model.build import build_model
from oracle import candidates_of, split_of

CPU = {"batch_size": 3, "dtype": torch.float32}


@pytest.fixture(scope="module")
def evaluated(tiny_data):
    """The shipped weights on a few drawn images: real detections."""
    config = TrainConfig()
    model, _ = build_model(config)
    model.train()
    found = evaluate(model, tiny_data.valid, config.detect, 0.01, **CPU)
    assert model.training
    return config, model, found


def test_the_scores_equal_torchmetrics_on_what_torchvision_would_keep(evaluated, tiny_data):
    config, _, one = evaluated
    metric = MeanAveragePrecision(
        backend="pycocotools",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    found, table = one.found, tiny_data.valid.table
    kept = (keep(found, [NmsSetting(0.5, False)]) != 0) & (found.scores > np.float32(config.detect.task1.score))
    for image in range(len(tiny_data.valid)):
        rows = np.flatnonzero(kept & (found.image == image))[:100]
        mine = slice(table.box_start[image], table.box_start[image + 1])
        metric.update(
            [
                {
                    "boxes": torch.from_numpy(found.original_boxes[rows]),
                    "scores": torch.from_numpy(found.scores[rows]),
                    "labels": torch.from_numpy(found.labels[rows]),
                }
            ],
            [{"boxes": torch.from_numpy(table.boxes[mine]), "labels": torch.from_numpy(table.labels[mine])}],
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metric.compute()
    assert one.scores.map > 0.3
    assert one.scores.map == pytest.approx(float(theirs["map"]), abs=1e-6)
    assert one.scores.map_50 == pytest.approx(float(theirs["map_50"]), abs=1e-6)
    assert one.scores.map_75 == pytest.approx(float(theirs["map_75"]), abs=1e-6)


def test_the_size_of_batches_moves_no_score_by_more_than_padding_does(evaluated, tiny_data):
    config, model, one = evaluated
    other = evaluate(model, tiny_data.valid, config.detect, 0.01, **CPU | {"batch_size": 1})
    assert other.scores.number_accuracy == one.scores.number_accuracy
    assert other.loss == pytest.approx(one.loss, rel=0.3)  # anchors are sampled per batch


def test_a_lower_threshold_of_a_task_lowers_the_floor(evaluated, tiny_data):
    _, model, _ = evaluated
    detect = DetectConfig(task1=TaskConfig(score=0.002))
    low = evaluate(model, tiny_data.valid, detect, 0.01, **CPU)
    assert 0.002 < low.found.scores.min() <= 0.01


def test_numbers_and_digits_are_read_at_the_second_tasks_thresholds():
    left, right = (0.0, 0.0, 10.0, 20.0), (20.0, 0.0, 30.0, 20.0)
    split = split_of([[(left, 2, False), (right, 10, False)], [(left, 1, False)], []])
    found = candidates_of(
        [
            [(right, 10, 0.9), (left, 2, 0.8), (left, 3, 0.7)],  # "19": NMS over all classes drops the other 2
            [(left, 1, 0.45)],  # under the score threshold: nothing read, "-1"
            [],  # no digits there and none found
        ]
    )

    def scores(**task2):
        detect = DetectConfig(task2=TaskConfig(**task2))
        return score(*match_tasks(found, split, detect), Truth.from_table(split.table), detect)

    assert scores(nms=0.5, score=0.5, class_agnostic=True).number_accuracy == pytest.approx(2 / 3)
    assert scores(nms=0.5, score=0.5, class_agnostic=True).digit_accuracy == pytest.approx(2 / 3)
    assert scores(nms=0.5, score=0.4, class_agnostic=True).number_accuracy == 1.0
    assert scores(nms=0.5, score=0.5).number_accuracy == pytest.approx(1 / 3)
    assert scores(nms=0.5, score=0.5).digit_accuracy == pytest.approx(2 / 4)  # three digits and one stray detection


def test_crowds_cost_nothing():
    box = (10.0, 10.0, 30.0, 40.0)
    split = split_of([[(box, 1, False), ((50.0, 10.0, 90.0, 90.0), 1, True)]])
    found = candidates_of([[(box, 1, 0.9), ((55.0, 15.0, 80.0, 80.0), 1, 0.95)]])
    detect = DetectConfig()
    scores = score(*match_tasks(found, split, detect), Truth.from_table(split.table), detect)
    assert scores.map == pytest.approx(1.0)
    assert scores.digit_accuracy == 1.0


def test_a_split_without_digits_has_no_ap():
    split = split_of([[], []])
    found = candidates_of([[], []])
    scores = score(*match_tasks(found, split, DetectConfig()), Truth.from_table(split.table), DetectConfig())
    assert (scores.map, scores.map_50, scores.map_75, scores.digit_accuracy) == (None, None, None, None)
    assert scores.number_accuracy == 1.0
    assert scores.named("val_number_accuracy") == 1.0
