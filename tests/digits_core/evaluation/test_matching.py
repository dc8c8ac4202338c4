import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from digits_core.evaluation.matching import MAX_SETTINGS, Candidates, NmsSetting, keep, match
from oracle import candidates_of, postprocess, scenes, table_of

SETTINGS = [NmsSetting(value, kind) for kind in (False, True) for value in (0.1, 0.3, 0.5, 0.7, 0.9)]


@settings(max_examples=150)
@given(scenes())
def test_one_pass_over_all_settings_keeps_what_each_alone_would(scene):
    _, images = scene
    found = candidates_of(images)
    kept = keep(found, SETTINGS)
    for bit, setting in enumerate(SETTINGS):
        rows = np.flatnonzero(kept & np.uint64(1 << bit))
        ours = [
            (int(found.image[row]), tuple(found.boxes[row].tolist()), int(found.labels[row]), float(found.scores[row]))
            for row in rows
        ]
        twin = [
            (image, *row[:2], float(np.float32(row[2])))
            for image, image_rows in enumerate(images)
            for row in postprocess(
                image_rows, nms=setting.nms, class_agnostic=setting.class_agnostic, score=0.0, max_detections=1000
            )
        ]
        assert ours == twin


def many(seed, images=6, per_image=60):
    generator = np.random.default_rng(seed)
    rows = []
    for count in generator.integers(0, per_image, images):
        corner, sides = generator.uniform(0, 60, (count, 2)), generator.uniform(3, 40, (count, 2))
        if seed % 2:  # whole pixels, where IoUs of exactly .1 or .3 occur
            corner, sides = corner.round() // 4, sides.round() // 4 + 1
        boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
        scores = generator.uniform(0.01, 1, count).astype(np.float32)
        rows.append((boxes, scores, generator.integers(1, 11, count), np.array([2, 3, 2, 3], np.float32)))
    return Candidates.of_images(rows)


@pytest.mark.parametrize("seed", range(6))
def test_nms_equals_torchvisions_bit_for_bit(seed):
    found = many(seed)
    kept = keep(found, SETTINGS)
    for bit, setting in enumerate(SETTINGS):
        expected = np.zeros(len(found.scores), dtype=bool)
        for begin, end in zip(found.start[:-1], found.start[1:], strict=True):
            groups = [np.arange(begin, end)]
            if not setting.class_agnostic:
                groups = [groups[0][found.labels[begin:end] == label] for label in range(1, 11)]
            for rows in groups:
                boxes, scores = torch.from_numpy(found.boxes[rows]), torch.from_numpy(found.scores[rows])
                expected[rows[nms(boxes, scores, setting.nms).numpy()]] = True
        assert ((kept & np.uint64(1 << bit)) != 0).tolist() == expected.tolist()


def test_boxes_scale_to_the_original_image():
    found = many(0)
    assert np.array_equal(found.original_boxes, found.boxes * np.array([2, 3, 2, 3], np.float32))


def test_class_agnostic_nms_is_no_subset_of_the_class_wise_one():
    # NMS over all classes drops the second because of the first, so the third is kept; within classes it is dropped.
    images = [[((0.0, 0.0, 10.0, 10.0), 1, 0.9), ((3.0, 0.0, 13.0, 10.0), 2, 0.8), ((6.0, 0.0, 16.0, 10.0), 2, 0.7)]]
    kept = keep(candidates_of(images), [NmsSetting(0.5, False), NmsSetting(0.5, True)])
    assert [int(word) for word in kept] == [3, 1, 2]


def test_between_one_and_sixty_four_settings_go_together():
    with pytest.raises(ValueError, match="1 to 64 settings"):
        match(many(0), table_of([[]] * 6), [])
    with pytest.raises(ValueError, match="got 65"):
        match(many(0), table_of([[]] * 6), [NmsSetting(0.5, False)] * (MAX_SETTINGS + 1))


@given(st.lists(st.integers(1, 8).map(lambda part: part / 8), max_size=20))
def test_candidates_lie_best_first_and_equal_scores_keep_their_order(scores):
    images = [[((0.0, 0.0, 5.0, 5.0), number + 1, score) for number, score in enumerate(scores)]]
    found = candidates_of(images)
    expected = sorted(range(len(scores)), key=lambda number: -scores[number])
    assert (found.labels - 1).tolist() == expected
