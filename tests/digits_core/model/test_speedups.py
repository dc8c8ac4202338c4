"""The replacements of torchvision's parts give the same numbers."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from digits_core.config.train_config import OptimConfig, TrainConfig
from digits_core.model import roi_align
from digits_core.model.checkpoint import load_training, save_model, save_training
from digits_core.model.checkpoint_state import TrainingState
from digits_core.model.roi_align import PyramidRoIAlign
from digits_core.training.optim import build_optimizer

CHANNELS = 5


def boxes_within(draw, height, width, most=6):
    coordinate = st.floats(0, 1, width=32)
    boxes = []
    for _ in range(draw(st.integers(0, most))):
        x, y, w, h = (draw(coordinate) for _ in range(4))
        boxes.append([x * width, y * height, x * width + w * 2 * width, y * height + h * 2 * height])
    return torch.tensor(boxes).reshape(-1, 4).clamp(max=float(max(height, width)))


@st.composite
def scenes(draw):
    """A pyramid over a padded batch, and boxes of all sizes, some over the border."""
    images, levels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    height, width = 32 * draw(st.integers(1, 12)), 32 * draw(st.integers(1, 12))
    torch.manual_seed(draw(st.integers(0, 1000)))
    features = {
        str(level): torch.randn(images, CHANNELS, height // 2 ** (level + 2), width // 2 ** (level + 2))
        for level in range(levels)
    }
    shapes = [(height - draw(st.integers(0, 31)), width - draw(st.integers(0, 31))) for _ in range(images)]
    return features, [boxes_within(draw, height, width) for _ in range(images)], shapes


def off_the_border(feature, boxes, points, level):
    """Whether no sampling point of a box lies on the far border of a map: there rounding decides whether it is read."""
    scaled = boxes.double() / 2 ** (level + 2)
    steps = (torch.arange(points) + 0.5) / points
    for axis, length in ((0, feature.shape[3]), (1, feature.shape[2])):
        start, size = scaled[:, axis], (scaled[:, axis + 2] - scaled[:, axis]).clamp(min=1)
        if ((start[:, None] + size[:, None] * steps - length).abs() < 1e-3).any():
            return False
    return True


@settings(max_examples=60)
@given(scenes(), st.integers(1, 7), st.integers(1, 3))
def test_roi_align_and_its_gradient_are_torchvisions(scene, size, ratio):
    features, boxes, shapes = scene
    results = []
    levels = len(features)
    assume(
        all(off_the_border(one, torch.cat(boxes), size * ratio, level) for level, one in enumerate(features.values()))
    )
    plain = MultiScaleRoIAlign(list(features), size, ratio)
    plain.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32][:levels]  # torchvision would estimate them from the unpadded images
    plain.map_levels = initLevelMapper(2, 1 + levels)
    for module in (PyramidRoIAlign(levels, size, ratio), plain):
        inputs = {name: one.clone().requires_grad_() for name, one in features.items()}
        pooled = module(inputs, boxes, shapes)
        torch.manual_seed(1)
        pooled.backward(torch.randn(pooled.shape))
        results.append((pooled.detach(), [one.grad for one in inputs.values()]))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)  # torchvision's float32 points differ by a few ulp
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        # torchvision gives no gradient for a level that no box reads
        expected = torch.zeros_like(mine) if other is None else other
        torch.testing.assert_close(mine, expected, atol=2e-3, rtol=1e-3)


NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE_LOW, HUGE_HIGH = (-1e9, -1e30, -3e38), (2.7182e9, 3.3e29, 2.9e38)
"""No sampling point of a box between two of them is inside a map, however it is rounded."""


@st.composite
def any_boxes(draw):
    """Boxes of a diverging model: outside, of no or negative size, huge, without finite coordinates."""
    usual = st.floats(-300, 600, width=32)
    lows = st.one_of(usual, st.sampled_from(HUGE_LOW), st.sampled_from(NOT_FINITE))
    highs = st.one_of(usual, st.sampled_from(HUGE_HIGH), st.sampled_from(NOT_FINITE))
    boxes = []
    for _ in range(draw(st.integers(1, 6))):
        box = [draw(lows), draw(lows), draw(highs), draw(highs)]
        if draw(st.booleans()):
            box[2] = box[0]
        boxes.append([box[2], box[1], box[0], box[3]] if draw(st.booleans()) else box)
    return torch.tensor(boxes)


def near_a_border(box, scale, shape, bins, ratio):
    """Whether rounding decides if a sampling point counts as inside of a map."""
    point = (torch.arange(bins * ratio, dtype=torch.float64) + 0.5) / ratio
    box = box.double() * scale
    for start, end, limit in ((box[1], box[3], shape[0]), (box[0], box[2], shape[1])):
        at = start + point * (end - start).clamp(min=1) / bins
        if bool(((at + 1).abs() < 1e-3).any() | ((at - limit).abs() < 1e-3).any()):
            return True
    return False


@settings(max_examples=80, deadline=None)
@given(scenes(), st.data(), st.integers(1, 7), st.integers(1, 3))
def test_roi_align_of_any_boxes_is_torchvisions_or_zero_where_that_reads_outside_its_memory(scene, data, size, ratio):
    features, given_boxes, shapes = scene
    levels = len(features)
    boxes = [data.draw(any_boxes()) for _ in given_boxes]
    plain = MultiScaleRoIAlign(list(features), size, ratio)
    plain.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32][:levels]
    plain.map_levels = initLevelMapper(2, 1 + levels)
    # torchvision's kernel uses a NaN coordinate as a memory address, which may crash the process.
    sound = [some[:, :2].isfinite().all(1) & (some[:, 2:] < math.inf).all(1) for some in boxes]
    for some, finite in zip(boxes, sound, strict=True):
        level = plain.map_levels([some]) if levels > 1 else torch.zeros(len(some), dtype=torch.int64)
        for box, mine in zip(some[finite], level[finite].tolist(), strict=True):
            if 0 <= mine < levels:
                assume(not near_a_border(box, plain.scales[mine], features[str(mine)].shape[2:], size, ratio))
    inputs = {name: one.clone().requires_grad_() for name, one in features.items()}
    ours = PyramidRoIAlign(levels, size, ratio)(inputs, boxes, shapes)
    assert (ours[~torch.cat(sound)] == 0).all()
    torch.manual_seed(1)
    weights = torch.randn(ours.shape)
    ours.backward(weights)
    others = {name: one.clone().requires_grad_() for name, one in features.items()}
    theirs = plain(others, [some[finite] for some, finite in zip(boxes, sound, strict=True)], shapes)
    torch.testing.assert_close(ours[torch.cat(sound)].detach(), theirs.detach(), atol=2e-3, rtol=1e-3)
    theirs.backward(weights[torch.cat(sound)])
    for mine, other in zip(inputs.values(), others.values(), strict=True):
        expected = torch.zeros_like(mine) if other.grad is None else other.grad
        torch.testing.assert_close(mine.grad, expected, atol=5e-3, rtol=1e-3)


def test_very_many_boxes_without_a_finite_place_are_zero_too(monkeypatch):
    features = {"0": torch.randn(1, CHANNELS, 8, 8)}
    boxes = [torch.tensor([[1, 2, 20, 30], [1, 2, 1, -math.inf], [math.nan, 2, 20, 30], [1, 2, math.inf, 30]])]
    few = PyramidRoIAlign(1, 2, 2)(features, boxes, [(32, 32)])
    monkeypatch.setattr(roi_align, "MOST_TAPS", 10)
    torch.testing.assert_close(PyramidRoIAlign(1, 2, 2)(features, boxes, [(32, 32)]), few)
    assert (few[2:] == 0).all()


def test_roi_align_of_half_precision_keeps_it():
    features = {"0": torch.randn(1, CHANNELS, 8, 8, dtype=torch.bfloat16)}
    pooled = PyramidRoIAlign(1, 2, 2)(features, [torch.tensor([[1.0, 2.0, 20.0, 30.0]])], [(32, 32)])
    assert pooled.dtype == torch.bfloat16
    assert pooled.shape == (1, CHANNELS, 2, 2)


def test_very_many_boxes_are_left_to_torchvision(monkeypatch):
    features, boxes = {"0": torch.randn(1, CHANNELS, 8, 8)}, [torch.rand(9, 4).cumsum(1) * 8]
    few = PyramidRoIAlign(1, 2, 2)(features, boxes, [(32, 32)])
    monkeypatch.setattr(roi_align, "MOST_TAPS", 10)
    monkeypatch.setattr(roi_align, "pool", None)
    torch.testing.assert_close(PyramidRoIAlign(1, 2, 2)(features, boxes, [(32, 32)]), few)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_model_in_channels_last_goes_on_from_its_checkpoint_as_if_never_stopped(tmp_path, optimizer):
    """The fused optimisers read parameter and state in the same order, so both need the same memory layout."""

    def fresh():
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
        return model, build_optimizer(model.parameters(), OptimConfig(optimizer=optimizer))

    def step(model, optim, seed):
        torch.manual_seed(seed)
        optim.zero_grad()
        model(torch.randn(2, 4, 9, 9)).square().mean().backward()
        optim.step()

    model, optim = fresh()
    step(model, optim, 1)
    save_model(tmp_path, model, TrainConfig())
    save_training(tmp_path, model, optim, TrainingState(1, 1, 0, None))
    other, resumed = fresh()
    load_training(tmp_path, other, resumed)
    for seed in (2, 3):
        step(model, optim, seed)
        step(other, resumed, seed)
    assert torch.equal(model.weight, other.weight)
