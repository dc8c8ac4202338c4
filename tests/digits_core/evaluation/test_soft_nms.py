import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_boxes import boxes, of_images, overlap

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError
from digits_core.evaluation.evaluate import refined
from digits_core.evaluation.fusion import fuse
from digits_core.evaluation.matching import NmsSetting, keep
from digits_core.evaluation.soft_nms import with_soft_scores


def by_a_loop(one, sigma):
    """(box, label, score) of one image by the algorithm of the paper."""
    rest = [(float(s), tuple(b), int(c)) for b, s, c in zip(one.boxes.tolist(), one.scores, one.labels, strict=True)]
    done = []
    while rest:
        best = max(rest, key=lambda row: row[0])
        rest.remove(best)
        done.append(best)
        rest = [
            (score * math.exp(-(overlap(box, best[1]) ** 2) / sigma) if label == best[2] else score, box, label)
            for score, box, label in rest
        ]
    return sorted((box, label, score) for score, box, label in done)


@given(
    st.lists(st.lists(boxes, max_size=7, unique_by=lambda row: row[4]), min_size=1, max_size=3),
    st.sampled_from([0.1, 0.5, 2.0]),
)
def test_scores_are_those_of_the_papers_loop_and_sorted_again(images, sigma):
    found = of_images(images)
    after = with_soft_scores(found, sigma)
    assert after.start.tolist() == found.start.tolist()
    for one, before in zip(after.split(), found.split(), strict=True):
        assert (np.diff(one.scores) <= 0).all()
        rows = zip(one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
        ours = sorted((tuple(box), label, score) for box, label, score in rows)
        expected = by_a_loop(before, sigma)
        assert sorted(score for *_, score in ours) == pytest.approx(sorted(score for *_, score in expected), abs=1e-6)
        assert [row[:2] for row in ours] == [row[:2] for row in expected]


def test_the_order_is_that_of_the_lowered_scores():
    """The second box is hidden by the first; the third, which is worse before, is the next best after it."""
    found = of_images([[(0, 0, 10, 10, 60, 1), (0, 0, 10, 10, 40, 1), (0, 0, 10, 11, 4, 2), (0, 5, 10, 10, 30, 1)]])
    after = with_soft_scores(found, 0.3)
    assert after.labels.tolist() == [1, 1, 2, 1]
    assert after.boxes[1].tolist() == [0, 5, 10, 15]
    assert after.scores[2] == np.float32(4 / 64)  # another class


def test_fusion_of_one_model_joins_overlapping_boxes_and_keeps_the_best_score():
    found = of_images([[(0, 0, 10, 10, 60, 1), (0, 0, 10, 12, 20, 1), (30, 0, 10, 10, 30, 1), (0, 0, 10, 10, 10, 2)]])
    after = refined(found, TrainConfig.from_flat({"detect.box_fusion": 0.55}).detect)
    assert after.labels.tolist() == [1, 1, 2]
    assert after.scores == pytest.approx(np.array([60, 30, 10]) / 64)
    assert after.boxes[0].tolist() == pytest.approx([0, 0, 10, (60 * 10 + 20 * 12) / 80])
    assert after.boxes.tolist() == fuse([found], [3.0], 0.55).boxes.tolist()


def test_soft_nms_comes_after_all_that_moves_boxes():
    detect = TrainConfig.from_flat({"detect.box_fusion": 0.7, "detect.soft_nms": 0.3, "detect.common_height": True})
    found = of_images([[(0, 0, 10, 10, 60, 1), (0, 2, 10, 10, 20, 1), (4, 0, 10, 13, 50, 1)]])
    after = refined(found, detect.detect)
    plain = refined(found, TrainConfig.from_flat({"detect.box_fusion": 0.7, "detect.common_height": True}).detect)
    assert sorted(map(tuple, after.boxes.tolist())) == sorted(map(tuple, plain.boxes.tolist()))
    assert after.scores.sum() < plain.scores.sum()
    assert keep(after, [NmsSetting(0.95, class_agnostic=False)]).all()


def test_two_ways_to_average_boxes_are_refused_and_what_is_on_is_named():
    both = {"detect.box_merge": 0.7, "detect.box_fusion": 0.5}
    with pytest.raises(ConfigError, match="both average boxes; set one of them to 0"):
        TrainConfig.from_flat(both)
    assert TrainConfig().detect.before_nms == {}
    some = TrainConfig.from_flat({"detect.soft_nms": 0.5, "detect.common_height": True}).detect
    assert some.before_nms == {"detect.common_height": True, "detect.soft_nms": 0.5}
