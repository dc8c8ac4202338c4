"""Weighted boxes fusion against a version with plain loops, and its properties."""

import numpy as np
import pytest

from digits_core.evaluation.fusion import Fusion, fuse
from digits_core.evaluation.matching import Candidates, NmsSetting, keep


def draw(generator, num_images, *, labels=3, most=25):
    """Raw detections around a few objects in each image, resized by another factor in each."""
    rows = []
    for _ in range(num_images):
        count = int(generator.integers(0, most))
        centre = generator.choice([20.0, 45.0, 70.0], (count, 2)) + generator.normal(0, 3, (count, 2))
        half = generator.uniform(6, 14, (count, 2))
        scores = np.round(generator.uniform(0.02, 1, count), 2)  # with ties
        scale = np.tile(generator.uniform(0.5, 2, 2), 2).astype(np.float32)
        boxes = np.concatenate([centre - half, centre + half], axis=1) / scale
        rows.append((boxes.astype(np.float32), scores.astype(np.float32), generator.integers(1, labels, count), scale))
    return Candidates.of_images(rows)


def iou_of(one, two):
    wide = min(one[2], two[2]) - max(one[0], two[0])
    tall = min(one[3], two[3]) - max(one[1], two[1])
    inter = max(wide, 0) * max(tall, 0)
    return inter / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)) - inter)


def fuse_one_image(found, weights, iou):
    """The fused boxes of one image as (label, box, score), box by box."""
    boxes = [
        (float(score), model, int(label), box.astype(float))
        for model, one in enumerate(found)
        for score, label, box in zip(one.scores, one.labels, one.original_boxes, strict=True)
    ]
    clusters = []
    for score, model, label, box in sorted(boxes, key=lambda row: -row[0]):
        best, place = iou, None
        for cluster in clusters:
            if cluster["label"] == label and iou_of(cluster["box"], box) > best:
                best, place = iou_of(cluster["box"], box), cluster
        if place is None:
            place = {"label": label, "boxes": [], "best": {}}
            clusters.append(place)
        place["boxes"].append((weights[model] * score, box))
        place["best"].setdefault(model, score)
        place["box"] = sum(share * box for share, box in place["boxes"]) / sum(share for share, _ in place["boxes"])
    return [
        (one["label"], one["box"], sum(weights[model] * best for model, best in one["best"].items()) / sum(weights))
        for one in clusters
    ]


@pytest.mark.parametrize("iou", [0.3, 0.55, 0.8])
@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (3, 1, 2)])
def test_it_is_what_plain_loops_find(weights, iou):
    generator = np.random.default_rng(len(weights))
    found = [draw(generator, 12) for _ in weights]
    fused = fuse(found, weights, iou)
    assert (fused.scale == 1).all()
    for image, one in enumerate(fused.split()):
        expected = fuse_one_image([model.split()[image] for model in found], weights, iou)
        expected.sort(key=lambda row: (-np.float32(row[2]), row[0], row[1][0]))
        mine = sorted(zip(one.labels, one.boxes, one.scores, strict=True), key=lambda row: (-row[2], row[0], row[1][0]))
        assert [row[0] for row in mine] == [row[0] for row in expected]
        for (_, box, score), (_, box_twin, score_twin) in zip(mine, expected, strict=True):
            np.testing.assert_allclose(box, box_twin, rtol=1e-5)
            assert score == pytest.approx(score_twin, rel=1e-5)
        assert (np.diff(one.scores) <= 0).all()


def one_box(box, score, label=1, scale=1.0):
    """One image with one detection, given in pixels of the original image."""
    row = (np.array([box], np.float32) / scale, np.array([score], np.float32), np.array([label]))
    return Candidates.of_images([(*row, np.full(4, scale, np.float32))])


def test_two_models_that_agree_give_the_mean_weighted_by_their_scores():
    fused = fuse([one_box([0, 0, 10, 20], 0.9), one_box([3, 0, 13, 20], 0.3, scale=0.5)], [1, 1], 0.5)
    np.testing.assert_allclose(fused.original_boxes, [[0.75, 0, 10.75, 20]], rtol=1e-6)
    assert fused.scores.tolist() == pytest.approx([0.6])


def test_a_box_that_one_of_two_models_finds_has_half_its_score():
    fused = fuse([one_box([0, 0, 10, 20], 0.8), one_box([50, 0, 60, 20], 0.4)], [1, 1], 0.5)
    assert fused.scores.tolist() == pytest.approx([0.4, 0.2])


def test_boxes_of_two_classes_stay_apart():
    fused = fuse([one_box([0, 0, 10, 20], 0.8, 1), one_box([0, 0, 10, 20], 0.4, 2)], [1, 1], 0.5)
    assert fused.labels.tolist() == [1, 2]


def test_only_the_proportions_of_the_weights_matter_and_a_weight_is_a_copy():
    generator = np.random.default_rng(5)
    one, two = draw(generator, 6), draw(generator, 6)
    expected = fuse([one, two], [2, 1], 0.5)
    for found in (fuse([one, two], [4, 2], 0.5), fuse([one, one, two], [1, 1, 1], 0.5)):
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-5)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_the_best_box_of_a_single_model_keeps_its_score():
    found = draw(np.random.default_rng(7), 20)
    fused = fuse([found], [1], 0.5)
    for one, before in zip(fused.split(), found.split(), strict=True):
        assert one.scores[:1].tolist() == before.scores[:1].tolist()
        assert set(one.scores.tolist()) <= set(before.scores.tolist())
    assert keep(fused, [NmsSetting(0.9, False)]).all()


def test_images_without_detections_have_none():
    nothing = Candidates.of_images(
        [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.ones(4, np.float32))] * 3
    )
    fused = fuse([nothing, nothing], [1, 1], 0.5)
    assert fused.start.tolist() == [0, 0, 0, 0]
    assert fused.boxes.shape == (0, 4)


def test_models_of_other_images_are_refused():
    with pytest.raises(ValueError, match="the same images"):
        fuse([draw(np.random.default_rng(0), 3), draw(np.random.default_rng(0), 4)], [1, 1], 0.5)
    with pytest.raises(ValueError, match="iou must be at least 0 and below 1, got 1"):
        Fusion(iou=1.0, floor=0.01)
