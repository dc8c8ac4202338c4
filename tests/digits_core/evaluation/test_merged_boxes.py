import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_boxes import boxes, of_images, overlap

from digits_core.config.train_config import TrainConfig
from digits_core.evaluation.evaluate import refined
from digits_core.evaluation.merged_boxes import with_merged_boxes


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
