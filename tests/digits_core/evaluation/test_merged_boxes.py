import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digits_core.config.train_config import TrainConfig
from digits_core.evaluation.evaluate import refined
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.merged_boxes import with_merged_boxes

numbers = st.integers(0, 12)
boxes = st.tuples(numbers, numbers, st.integers(1, 12), st.integers(1, 12), st.integers(1, 64), st.integers(1, 2))


def of_images(images):
    return Candidates.of_images(
        [
            (
                np.array([(x, y, x + w, y + h) for x, y, w, h, *_ in rows], np.float32).reshape(-1, 4),
                np.array([score / 64 for *_, score, _ in rows], np.float32),
                np.array([label for *_, label in rows], np.int64),
                np.ones(4, np.float32),
            )
            for rows in images
        ]
    )


def overlap(a, b):
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(tall, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@given(st.lists(st.lists(boxes, max_size=7), min_size=1, max_size=3))
def test_boxes_are_the_means_of_a_loop_and_nothing_else_changes(images):
    found = of_images(images)
    after = with_merged_boxes(found, 0.6173)  # no IoU of these boxes
    expected = []
    for one in found.split():
        rows = one.boxes.astype(float).tolist()
        for box, label in zip(rows, one.labels, strict=True):
            near = [n for n, other in enumerate(rows) if one.labels[n] == label and overlap(box, other) >= 0.6173]
            weights = one.scores[near].astype(float)
            expected.append((weights[:, None] * np.array(rows)[near]).sum(0) / weights.sum())
    np.testing.assert_allclose(after.boxes, np.array(expected).reshape(-1, 4), atol=1e-4)
    for name in ("start", "scores", "labels", "scale"):
        assert getattr(after, name) is getattr(found, name)


def test_it_is_off_by_default_and_comes_before_the_common_height():
    found = of_images([[(0, 0, 10, 10, 60, 1), (1, 0, 10, 12, 20, 1), (20, 0, 10, 11, 60, 1)]])
    assert refined(found, TrainConfig().detect) is found
    both = TrainConfig.from_flat({"detect.box_merge": 0.5, "detect.common_height": True}).detect
    heights = np.diff(refined(found, both).boxes[:, [1, 3]], axis=1)[:, 0]
    merged = (10 * 60 + 12 * 20) / 80
    mean = (merged * 60**2 + merged * 20**2 + 11 * 60**2) / (2 * 60**2 + 20**2)
    assert heights == pytest.approx([mean] * 3, abs=1e-4)
