import json

import numpy as np
import pytest

from digits_core.data import drawn as synthetic
from digits_core.data.drawn import (
    BUILT_IN_SEED,
    PRETRAIN_SEED,
    STREAMS,
    draw_number,
    draw_numbers,
    stream_seed,
    write_drawn_folder,
)
from digits_core.errors import DataError


def test_the_same_seed_and_index_draw_the_same_image():
    first, again = draw_number(5, 3), draw_number(5, 3)
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(draw_number(5, 4).pixels.shape, first.pixels.shape) or not np.array_equal(
        draw_number(5, 4).pixels, first.pixels
    )


def test_an_image_does_not_depend_on_those_drawn_before():
    alone = draw_number(9, 6)
    in_row = list(draw_numbers(9, 7))[6]
    assert np.array_equal(alone.pixels, in_row.pixels)


def test_boxes_are_the_extent_of_each_glyphs_own_mask(monkeypatch):
    masks = []
    extent = synthetic._extent
    monkeypatch.setattr(synthetic, "_extent", lambda mask: masks.append(mask) or extent(mask))
    drawn = draw_number(2, 0)
    for mask, box in zip(masks[-len(drawn.boxes) :], drawn.boxes, strict=True):
        solid = np.argwhere(mask >= 0.5)
        top, left = solid.min(axis=0) / synthetic.SUPERSAMPLING
        bottom, right = (solid.max(axis=0) + 1) / synthetic.SUPERSAMPLING
        assert np.allclose(box, [left, top, right, bottom])


def test_drawn_images_look_like_house_numbers():
    images = list(draw_numbers(4, 150))
    widths = np.array([image.pixels.shape[1] for image in images])
    sides = np.concatenate([image.boxes[:, 2:] - image.boxes[:, :2] for image in images])
    assert ((widths >= 30) & (widths <= 200)).all()
    assert np.median(sides[:, 1] / sides[:, 0]) > 1.3
    counts = {len(image.digits) for image in images}
    assert counts <= {1, 2, 3, 4, 5}
    assert len(counts) >= 4
    assert {int(digit) for image in images for digit in image.digits} == set(range(10))
    for image in images:
        height, width = image.pixels.shape[:2]
        assert (image.boxes >= 0).all()
        assert (image.boxes[:, [0, 2]] <= width).all()
        assert (image.boxes[:, [1, 3]] <= height).all()
        assert image.pixels.dtype == np.uint8


def test_digits_contrast_with_what_is_behind_them():
    faint = 0
    for drawn in draw_numbers(6, 60):
        x_min, y_min, x_max, y_max = (int(side) for side in drawn.boxes[0])
        patch = drawn.pixels[y_min : y_max + 1, x_min : x_max + 1].astype(float)
        faint += patch.std() < 3
    assert faint <= 3


def test_streams_of_built_in_and_pretraining_data_never_meet():
    seeds = [stream_seed(split, seed) for split in STREAMS for seed in (BUILT_IN_SEED, PRETRAIN_SEED)]
    assert len(set(seeds)) == len(seeds)
    pictures = [draw_number(seed, index).pixels.tobytes() for seed in seeds for index in range(5)]
    assert len(set(pictures)) == len(pictures)


def test_drawn_folder_is_the_built_in_data(tmp_path, own_cache):
    from digits_core.data.cache import open_data
    from digits_core.data.source import DRAWN, DataSource

    write_drawn_folder(tmp_path / "d", 3, 2)
    from_disk = open_data(DataSource(folder=str(tmp_path / "d")))
    built_in = open_data(DataSource(folder=DRAWN, drawn_train=3, drawn_valid=2))
    for name in ("train", "valid"):
        disk, drawn = getattr(from_disk, name), getattr(built_in, name)
        assert np.array_equal(disk.table.boxes, drawn.table.boxes)
        assert all(np.array_equal(disk.image(i), drawn.image(i)) for i in range(len(disk)))
    tree = json.loads((tmp_path / "d" / "train.json").read_text())
    assert [entry["name"] for entry in tree["categories"]] == [str(digit) for digit in range(10)]


def test_a_folder_that_holds_something_is_not_drawn_into(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_drawn_folder(tmp_path, 1, 1)
