"""Assignment and sampling of anchors and proposals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou

from digits_core.model import sampling
from digits_core.model.boxes import decode, encode, pairwise_iou
from digits_core.model.sampling import Assignment, assign, draw, expected


def boxes_of(generator, *shape):
    corner = torch.randint(0, 30, (*shape, 2), generator=generator).float()
    return torch.cat([corner, corner + torch.randint(1, 20, (*shape, 2), generator=generator)], dim=-1)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([(0.7, 0.3), (0.5, 0.5), (1.0, 0.0)]))
def test_each_image_is_assigned_as_by_torchvisions_matcher(seed, best, thresholds):
    generator = torch.Generator().manual_seed(seed)
    counts = [3, 0, 1]
    boxes, others = boxes_of(generator, 3, 3), boxes_of(generator, 3, 25)
    real = torch.tensor([[row < count for row in range(3)] for count in counts])
    found = assign(
        boxes, real, others, foreground_iou=thresholds[0], background_iou=thresholds[1], best_of_each_box=best
    )
    matcher = Matcher(*thresholds, allow_low_quality_matches=best)
    for image, count in enumerate(counts):
        if not count:
            assert found.background[image].all()
            continue
        theirs = matcher(box_iou(boxes[image, :count], others[image]))
        assert torch.equal(found.foreground[image], theirs >= 0)
        assert torch.equal(found.background[image], theirs == Matcher.BELOW_LOW_THRESHOLD)
        rows = found.foreground[image]
        assert torch.equal(found.box[image][rows], theirs[rows])


@given(st.integers(0, 10_000))
def test_boxes_are_compared_and_encoded_as_in_torchvision(seed):
    generator = torch.Generator().manual_seed(seed)
    boxes, others = boxes_of(generator, 2, 6), boxes_of(generator, 2, 6)
    assert torch.equal(pairwise_iou(boxes, others)[1], box_iou(boxes[1], others[1]))
    weights = (10.0, 10.0, 5.0, 5.0)
    coder = BoxCoder(weights)
    codes = encode(boxes, others, weights)
    torch.testing.assert_close(codes[0], coder.encode_single(boxes[0], others[0]))
    codes = codes + torch.randn(codes.shape, generator=generator)
    torch.testing.assert_close(decode(codes, others, weights)[1], coder.decode_single(codes[1], others[1]))


def test_images_with_many_boxes_and_with_few_are_compared_apart_on_a_cpu(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    boxes, others = boxes_of(generator, 5, 40), boxes_of(generator, 1, 25)
    real = torch.arange(40)[None] < torch.tensor([[2], [40], [1], [0], [3]])
    given = {"foreground_iou": 0.5, "background_iou": 0.3, "best_of_each_box": True}
    together = assign(boxes, real, others, **given)
    monkeypatch.setattr(sampling, "MOST_PADDING", 0)
    assert sampling._parts(real, 25) == [(slice(0, 2), 40), (slice(2, 5), 3)]
    apart = assign(boxes, real, others, **given)
    for name in ("foreground", "background"):
        assert torch.equal(getattr(apart, name), getattr(together, name))
    assert torch.equal(apart.box[apart.foreground], together.box[together.foreground])


def test_boxes_of_half_precision_codes_are_not_rounded_to_half_precision():
    codes = torch.tensor([[0.013, 0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    box = decode(codes, torch.tensor([[200.0, 0.0, 230.0, 30.0]]), (1.0, 1.0, 1.0, 1.0))
    assert box.dtype == torch.float32
    assert box[0, 0] != box[0, 0].round()


@st.composite
def assignments(draw_one):
    """One image with some foreground, some background and some that are ignored."""
    kinds = torch.tensor([draw_one(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=9))])
    return Assignment(kinds == 1, kinds == 0, torch.zeros_like(kinds))


@given(assignments(), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 1000))
def test_a_sample_has_torchvisions_numbers_of_foreground_and_background(found, count, fraction, seed):
    keys = torch.rand(found.foreground.shape, generator=torch.Generator().manual_seed(seed))
    drawn = draw(found, count, fraction, keys)
    rows = drawn.rows[0][drawn.used[0]]
    foreground, background = int(found.foreground.sum()), int(found.background.sum())
    positive = min(foreground, int(count * fraction))
    negative = min(background, count - positive)
    assert len(rows.unique()) == len(rows) == positive + negative
    assert int(found.foreground[0, rows].sum()) == int(drawn.foreground.sum()) == positive
    assert int(found.background[0, rows].sum()) == negative
    assert bool(found.foreground[0, drawn.rows[0][drawn.foreground[0]]].all())


def test_every_row_of_a_kind_is_drawn_equally_often_and_as_often_as_expected():
    kinds = torch.tensor([[1, 0, 0, 2, 1, 0, 1, 0, 0, 0]])
    found = Assignment(kinds == 1, kinds == 0, torch.zeros_like(kinds))
    times, taken = 20_000, torch.zeros(10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(times // 500):
        keys = torch.rand(500, 10, generator=generator)
        many = Assignment(*(one.expand(500, -1) for one in (found.foreground, found.background, found.box)))
        drawn = draw(many, 5, 0.4, keys)
        taken += torch.bincount(drawn.rows[drawn.used], minlength=10)
    chance, total = expected(found, 5, 0.4)
    assert float(total) == 5
    assert chance[0].tolist() == pytest.approx([2 / 3, 0.5, 0.5, 0, 2 / 3, 0.5, 2 / 3, 0.5, 0.5, 0.5])
    spread = (times * chance[0] * (1 - chance[0])).sqrt()
    assert ((taken - times * chance[0]).abs() <= 4.5 * spread).all()  # 4.5 standard deviations


@given(assignments(), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_expected_numbers_add_up_to_the_size_of_a_sample(found, count, fraction):
    chance, total = expected(found, count, fraction)
    drawn = draw(found, count, fraction, torch.rand(found.foreground.shape))
    assert float(total) == int(drawn.used.sum()) == pytest.approx(float(chance.sum()))
    assert float(chance[found.foreground].sum()) == pytest.approx(int(drawn.foreground.sum()))
