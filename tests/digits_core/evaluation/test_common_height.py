import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digits_core.evaluation.common_height import with_common_height
from digits_core.evaluation.matching import Candidates
from oracle import candidates_of

sides = st.integers(1, 40)
boxes = st.tuples(st.integers(0, 90), st.integers(0, 40), sides, sides, st.integers(1, 64).map(lambda one: one / 64))


def of_images(images):
    return Candidates.of_images(
        [
            (
                np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.float32).reshape(-1, 4),
                np.array([score for *_, score in rows], np.float32),
                np.ones(len(rows), np.int64),
                np.ones(4, np.float32),
            )
            for rows in images
        ]
    )


def twin(found):
    """One box after the other, in double precision."""
    changed = []
    for one in found.split():
        rows = list(zip(one.boxes.astype(float).tolist(), one.scores.astype(float).tolist(), strict=True))
        for (_, top, _, bottom), _ in rows:
            height, centre = bottom - top, (top + bottom) / 2
            total = weights = 0.0
            for (_, its_top, _, its_bottom), score in rows:
                its = its_bottom - its_top
                near = abs(centre - (its_top + its_bottom) / 2) < 0.6 * height
                if near and abs(math.log(height / its)) < 0.35:
                    total, weights = total + score**2 * its, weights + score**2
            changed.append((centre - total / weights / 2, centre + total / weights / 2))
    return changed


@given(st.lists(st.lists(boxes, max_size=6), min_size=1, max_size=3))
def test_heights_are_those_of_a_loop_and_nothing_else_changes(images):
    found = of_images(images)
    after = with_common_height(found)
    expected = np.array(twin(found)).reshape(-1, 2)
    np.testing.assert_allclose(after.boxes[:, [1, 3]], expected, atol=1e-3)
    assert np.array_equal(after.boxes[:, [0, 2]], found.boxes[:, [0, 2]])
    for name in ("start", "scores", "labels", "scale"):
        assert getattr(after, name) is getattr(found, name)


def test_the_digits_of_a_number_become_equally_tall_and_others_stay():
    digits = [(10, 10, 8, 20, 0.9), (20, 11, 8, 22, 0.9), (30, 10, 8, 21, 0.1)]
    apart = [(50, 50, 8, 20, 0.9), (60, 10, 8, 60, 0.9)]  # far below, and three times as tall
    after = with_common_height(of_images([digits + apart, digits[:1]]))
    heights = after.boxes[:, 3] - after.boxes[:, 1]
    numbers = {(int(box[0])): float(height) for box, height in zip(after.boxes[:5], heights[:5], strict=True)}
    assert numbers[10] == pytest.approx(numbers[20]) == pytest.approx(numbers[30])
    assert numbers[10] == pytest.approx((20 * 0.81 + 22 * 0.81 + 21 * 0.01) / 1.63)
    assert (numbers[50], numbers[60]) == (20, 60)
    assert heights[5] == 20  # alone in its image


def test_it_is_off_by_default_and_acts_before_nms():
    from digits_core.config.train_config import DetectConfig
    from digits_core.evaluation.evaluate import refined

    found = of_images([[(10, 10, 8, 20, 0.9), (20, 11, 8, 22, 0.8)]])
    assert refined(found, DetectConfig()) is found
    changed = refined(found, dataclasses.replace(DetectConfig(), common_height=True))
    assert np.array_equal(changed.boxes, with_common_height(found).boxes)


def test_no_detection_at_all_is_fine():
    assert len(with_common_height(candidates_of([[], []])).scores) == 0
