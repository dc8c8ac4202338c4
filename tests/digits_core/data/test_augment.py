import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from digits_core.config.train_config import PIPELINES, AugmentConfig
from digits_core.data import augment
from digits_core.data import command as data
from digits_core.data.augment import PROCESSING, STEPS, Augmentation, Processing, Sample
from digits_core.data.batches import load_batch
from digits_core.errors import ConfigError


def sample(seed=0, width=60, height=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = np.array([[5, 5, 20, 30], [25, 6, 40, 32]], dtype=np.float32)
    return Sample(pixels, boxes, np.array([3, 8]))


def changed(pipeline, seed=0, epoch=1, image_id=7, mirror=False, **of):
    return Augmentation(AugmentConfig(pipeline=pipeline, mirror=mirror), seed, epoch)(sample(**of), image_id)


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in Sample.__slots__)


def test_every_pipeline_has_its_step():
    assert set(PIPELINES) == {"none", *STEPS} - {"mirror"}


def test_none_leaves_images_and_boxes_alone():
    assert same(changed("none"), sample())


@pytest.mark.parametrize("pipeline", [*(name for name in PIPELINES if name != "none"), "color,geometric"])
def test_an_image_is_changed_by_seed_epoch_and_id_alone_and_torchs_generator_is_left_as_it_was(pipeline):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = [changed(pipeline, image_id=image_id) for image_id in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    again = [changed(pipeline, image_id=image_id) for image_id in reversed(range(8))]
    assert all(same(one, other) for one, other in zip(first, reversed(again), strict=True))
    assert all(one.pixels.dtype == np.uint8 and one.pixels.shape == sample().pixels.shape for one in first)
    assert sum(not np.array_equal(one.pixels, sample().pixels) for one in first) >= 5  # each step is random
    if pipeline not in PROCESSING:
        for of in ({"seed": 1}, {"epoch": 2}):
            others = [changed(pipeline, image_id=image_id, **of) for image_id in range(8)]
            assert (
                sum(not np.array_equal(one.pixels, other.pixels) for one, other in zip(first, others, strict=True)) >= 5
            )


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["color,geometric", "geometric"]), st.booleans())
def test_no_degenerate_box_is_left_and_labels_stay_with_their_boxes(seed, pipeline, mirror):
    after = changed(pipeline, seed=seed, mirror=mirror)
    height, width = after.pixels.shape[:2]
    assert after.boxes.dtype == np.float32
    assert len(after.boxes) == len(after.labels)
    assert ((after.boxes[:, 2:] - after.boxes[:, :2]) >= 1).all()
    assert (after.boxes >= 0).all()
    assert (after.boxes <= [width, height, width, height]).all()
    assert set(after.labels) <= {3, 8}


def test_boxes_go_where_their_digits_go():
    """A white digit on black is still inside its box after any geometric change that keeps it."""
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[20:40, 30:44] = 255
    start = Sample(pixels, np.array([[30, 20, 44, 40]], np.float32), np.array([5]))
    inside = []
    for image_id in range(60):
        after = Augmentation(AugmentConfig(pipeline="geometric"), 0, 1)(start, image_id)
        ys, xs = np.nonzero(after.pixels.min(axis=2) > 240)
        if len(after.boxes) and len(xs) > 40:
            left, top, right, bottom = after.boxes[0]
            inside.append(((xs >= left - 2) & (xs <= right + 2) & (ys >= top - 2) & (ys <= bottom + 2)).mean())
    assert len(inside) > 20
    assert np.mean(inside) > 0.97


def test_boxes_under_half_visible_are_dropped():
    pixels = np.full((40, 40, 3), 200, np.uint8)
    edge = Sample(pixels, np.array([[0, 15, 6, 25], [15, 10, 25, 30]], np.float32), np.array([1, 2]))
    kept = [
        len(Augmentation(AugmentConfig(pipeline="geometric"), 1, 1)(edge, image_id).boxes) for image_id in range(80)
    ]
    assert 1 in kept
    assert 2 in kept


def test_mirroring_is_off_by_default_and_its_own_switch():
    assert AugmentConfig().steps == ()
    assert AugmentConfig(pipeline="geometric").steps == ("geometric",)
    turned = [changed("none", mirror=True, image_id=image_id) for image_id in range(40)]
    mirrored = [one for one in turned if not same(one, sample())]
    assert 8 < len(mirrored) < 32
    for one in mirrored:
        assert np.array_equal(one.pixels, sample().pixels[:, ::-1])
        assert one.boxes.tolist() == [[40, 5, 55, 30], [20, 6, 35, 32]]


def test_binarize_is_opencvs_adaptive_threshold_and_belongs_to_the_data():
    gray = cv2.cvtColor(sample().pixels, cv2.COLOR_RGB2GRAY)
    expected = cv2.adaptiveThreshold(gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, 11, 2)
    after = Processing(AugmentConfig(pipeline="color,binarize", mirror=True))(sample(), 7)
    assert all(np.array_equal(after.pixels[:, :, channel], expected) for channel in range(3))
    assert np.array_equal(after.boxes, sample().boxes)
    assert same(Processing(AugmentConfig(pipeline="color"))(sample(), 7), sample())


def test_batches_are_augmented_by_image_id_whatever_their_order(tiny_data):
    change = Augmentation(AugmentConfig(pipeline="color,geometric"), 3, 2)
    first = load_batch(tiny_data.train, [1, 4, 2], torch.device("cpu"), change).split(3)
    again = load_batch(tiny_data.train, [2, 1], torch.device("cpu"), change).split(2)
    assert torch.equal(first[2].pixels, again[0].pixels)
    rows = first[0].labels[0] > 0
    assert torch.equal(first[0].boxes[0, rows], again[1].boxes[0, again[1].labels[0] > 0])
    plain = load_batch(tiny_data.train, [1], torch.device("cpu"))
    assert not torch.equal(plain.pixels, first[0].pixels)


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("colour", "augment.pipeline: unknown pipeline 'colour'; did you mean 'color'"),
        ("color,none", "none cannot be combined"),
        ("color,color", "contains a pipeline twice"),
        ("", "unknown pipeline ''"),
    ],
)
def test_pipelines_that_cannot_be_are_one_sentence(pipeline, said):
    with pytest.raises(ConfigError, match=said):
        AugmentConfig(pipeline=pipeline)


def test_a_preview_is_a_sheet_of_pictures(tiny_folder, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    arguments = ["preview", "--data", str(tiny_folder), "--augment", "color,geometric", "--images", "6", "-o", str(out)]
    assert data.main(arguments) == 0
    assert "6 training images" in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 208 + 8, 2 * 208 + 8)
        colours = {colour for _, colour in sheet.getcolors(maxcolors=2**24)}
    assert (0, 114, 178) in colours  # boxes are drawn


@pytest.mark.parametrize(("out", "augment"), [("sheet.jpg", "color"), ("none/sheet.png", "color"), ("s.png", "colr")])
def test_a_preview_that_cannot_be_drawn_is_one_sentence(out, augment, tiny_folder, tmp_path, capsys):
    arguments = ["preview", "--data", str(tiny_folder), "--augment", augment, "-o", str(tmp_path / out)]
    assert data.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_albumentations_asks_no_network(monkeypatch):
    import os

    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
    assert augment._albumentations() is augment._albumentations()


def test_the_parts_of_the_geometric_pipeline_draw_apart():
    """If fog and affine change had the same random numbers, one would never occur without the other."""
    parts = augment._albumentations().transforms
    draws = []
    for seed in range(50):
        augment._seed(augment._albumentations(), seed)
        draws.append([part.py_random.random() for part in parts])
    correlation = np.corrcoef(np.array(draws).T) - np.eye(len(parts))
    assert np.abs(correlation).max() < 0.5


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.floats(1.05, 4))
def test_scale_jitter_crops_or_surrounds_an_image_without_changing_a_pixel(image_id, most):
    """Each pixel has its own colour, so the boxes can be followed."""
    rows, columns = np.mgrid[0:40, 0:60]
    pixels = np.stack([columns, rows, np.full_like(rows, 255)], axis=2).astype(np.uint8)
    start = Sample(pixels, np.array([[5, 5, 20, 30], [25, 6, 40, 32]], np.float32), np.array([3, 8]))
    after = Augmentation(AugmentConfig(scale_jitter=most), 0, 1)(start, image_id)
    tall, wide = after.pixels.shape[:2]
    assert 40 / most - 1 <= tall <= 40 * most + 1
    assert 60 / most - 1 <= wide <= 60 * most + 1
    ys, xs = np.nonzero(after.pixels[:, :, 2] == 255)
    old = after.pixels[ys, xs, :2].astype(int)
    move = np.array([xs[0], ys[0]]) - old[0]
    assert (np.stack([xs, ys], axis=1) - old == move).all()
    for box, label in zip(after.boxes, after.labels, strict=True):
        was = start.boxes[{3: 0, 8: 1}[int(label)]]
        expected = np.clip(was + np.tile(move, 2), 0, [wide, tall, wide, tall])
        assert np.array_equal(box, expected)
        area, whole = ((one[2] - one[0]) * (one[3] - one[1]) for one in (expected, was))
        assert area >= 0.5 * whole
    if tall >= 40 and wide >= 60:
        assert len(after.boxes) == 2


def test_scale_jitter_makes_images_larger_and_smaller_equally_often():
    areas = [Augmentation(AugmentConfig(scale_jitter=2.0), 0, 1)(sample(), number).pixels[:, :, 0].size
             for number in range(200)]  # fmt: skip
    assert 70 < sum(area > 40 * 60 for area in areas) < 130
