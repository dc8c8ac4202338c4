import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import epoch_batches, load_batch, size_factor
from digits_core.data.cache import Split, images_per_epoch, steps_per_epoch
from digits_core.data.coco import Table
from digits_core.model.resize import resize
from digits_core.seeds import derived_seed


def split_of(count):
    """A split of `count` images without pixels, of many shapes."""
    rng = np.random.default_rng(count)
    sizes = rng.integers(20, 200, (count, 2)).astype(np.int32)
    table = Table(
        image_ids=np.arange(count),
        sizes=sizes,
        box_start=np.zeros(count + 1, dtype=np.int64),
        boxes=np.zeros((0, 4), dtype=np.float32),
        labels=np.zeros(0, dtype=np.int64),
        crowds=np.zeros(0, dtype=bool),
    )
    return Split("train", table, np.zeros(count, dtype=np.int64), np.zeros(0, dtype=np.uint8))


COUNTS = st.integers(1, 150)


@given(COUNTS, st.integers(1, 12), st.integers(0, 5), st.integers(1, 4))
def test_an_epoch_of_all_images_holds_each_once(count, batch_size, seed, epoch):
    batches = epoch_batches(split_of(count), seed=seed, epoch=epoch, batch_size=batch_size, asked=0)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == steps_per_epoch(count, 0, batch_size)


@given(COUNTS, st.integers(1, 12), st.integers(1, 200), st.integers(0, 3))
def test_partial_epochs_see_no_image_twice_before_each_once(count, batch_size, asked, seed):
    split = split_of(count)
    per_epoch = images_per_epoch(count, asked)
    epochs = 3 * count // per_epoch + 1
    seen = [
        index
        for epoch in range(1, epochs + 1)
        for batch in epoch_batches(split, seed=seed, epoch=epoch, batch_size=batch_size, asked=asked)
        for index in batch
    ]
    assert len(seen) == epochs * per_epoch
    counts = np.bincount(seen, minlength=count)
    assert counts.max() - counts.min() <= 1 + (per_epoch < count)


def test_batches_depend_on_seed_and_epoch_alone():
    split = split_of(60)

    def batches(seed, epoch):
        return epoch_batches(split, seed=seed, epoch=epoch, batch_size=8, asked=0)

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_batches_hold_like_shapes():
    split = split_of(256)
    aspect = split.table.sizes[:, 0] / split.table.sizes[:, 1]
    batches = epoch_batches(split, seed=0, epoch=1, batch_size=8, asked=0)
    within = np.mean([np.log(aspect[batch]).std() for batch in batches])
    assert within < 0.5 * np.log(aspect).std()


def test_derived_seeds_differ_and_fit_torch():
    seeds = {derived_seed("epoch", seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_batch_holds_the_pixels_and_boxes_of_each_image(tiny_data):
    split, batch = tiny_data.train, load_batch(tiny_data.train, [0, 1, 2], torch.device("cpu"))
    counts = (batch.labels > 0).sum(1).tolist()
    assert counts[0] == 0  # the image without digits
    assert batch.boxes.shape == (3, max(counts), 4)
    for image in range(3):
        rows = slice(split.table.box_start[image], split.table.box_start[image + 1])
        assert batch.labels[image, : counts[image]].tolist() == split.table.labels[rows].tolist()
        assert np.array_equal(batch.boxes[image, : counts[image]], split.table.boxes[rows])
        assert (batch.boxes[image, counts[image] :] == 0).all()
        part = slice(*batch.starts[image : image + 2])
        assert np.array_equal(batch.pixels[part], split.image(image).reshape(-1, 3))


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_a_batch_is_split_evenly_in_order(tiny_data, count, sizes):
    batch = load_batch(tiny_data.train, [0, 1, 2, 3, 4], torch.device("cpu"))
    parts = batch.split(count)
    assert [len(part) for part in parts] == sizes
    for name in ("pixels", "boxes", "labels"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert np.array_equal(np.concatenate([part.sizes for part in parts]), batch.sizes)


def test_the_size_of_a_step_is_random_within_its_limits_and_repeats_itself():
    factors = [size_factor(1.5, 0, 1, number) for number in range(300)]
    assert factors == [size_factor(1.5, 0, 1, number) for number in range(300)]
    assert 1 / 1.5 <= min(factors) < 0.75
    assert 1.4 < max(factors) <= 1.5
    assert 110 < sum(factor > 1 for factor in factors) < 190
    assert {size_factor(1.0, 0, 1, number) for number in range(9)} == {1.0}


def test_the_factor_of_a_batch_changes_the_size_of_its_images_and_boxes(tiny_data):
    model = TrainConfig().model
    batches = [load_batch(tiny_data.train, [0, 1, 2], torch.device("cpu"), None, factor) for factor in (1.0, 1.5)]
    assert batches[1].split(2)[1].factor == 1.5
    plain, large = (resize(one, model, [0.5] * 3, [0.5] * 3, torch.float32) for one in batches)
    assert np.abs(large.sizes - 1.5 * plain.sizes).max() <= 1.5
    ratio = (large.sizes / plain.sizes).repeat(2, axis=0).reshape(len(plain.sizes), 2, 2)[:, 0]
    expected = plain.boxes * torch.from_numpy(np.tile(ratio, 2)[:, None]).float()
    torch.testing.assert_close(large.boxes, expected, atol=1e-3, rtol=1e-4)
