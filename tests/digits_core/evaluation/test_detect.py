import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import SCENE, packed, sample_of
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import to_tensor
from digits_core.evaluation import detect
from digits_core.evaluation.detect import batches_by_shape, detect_raw
from digits_core.evaluation.matching import Candidates, NmsSetting, keep
from digits_core.model.build import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return build_model(TrainConfig.from_flat({"model.weights": "none"}))[0].eval()


@pytest.mark.parametrize(("nms", "score", "top"), [(0.5, 0.05, 100), (0.3, 0.09, 100), (0.7, 0.01, 5)])
def test_raw_detections_kept_equal_torchvisions_own_postprocessing(model, nms, score, top):
    heads = model.roi_heads
    heads.nms_thresh, heads.score_thresh, heads.detections_per_img = nms, score, top
    with torch.inference_mode():
        theirs = model([to_tensor(one.pixels) for one in SCENE])
    found, loss = detect_raw(model, packed(*SCENE), floor=0.0)
    assert loss is None
    kept = keep(found, [NmsSetting(nms, False)]) != 0
    for image, other in enumerate(theirs):
        rows = np.flatnonzero(kept & (found.image == image) & (found.scores > np.float32(score)))[:top]
        assert found.labels[rows].tolist() == other["labels"].tolist()
        assert found.scores[rows] == pytest.approx(other["scores"].numpy(), abs=1e-5)
        assert found.original_boxes[rows] == pytest.approx(other["boxes"].numpy(), abs=1e-3)


def test_boxes_come_back_in_original_pixels(model):
    found, _ = detect_raw(model, packed(sample_of(100, 40)), floor=0.0)
    assert float(found.original_boxes[:, [0, 2]].max()) <= 100 + 1e-3
    assert float(found.original_boxes[:, [1, 3]].max()) <= 40 + 1e-3


def test_a_fixed_square_scales_boxes_in_and_out_by_each_side():
    torch.manual_seed(1)
    square = build_model(TrainConfig.from_flat({"model.weights": "none", "model.fixed_size": 96}))[0].eval()
    sample = sample_of(120, 40, [([30, 10, 60, 30], 1)])
    inputs = square.inputs(packed(sample))
    assert inputs.sizes.tolist() == [[96, 96]]
    assert inputs.boxes[0].tolist() == [[24.0, 24.0, 48.0, 72.0]]
    found, _ = detect_raw(square, packed(sample), floor=0.0)
    assert found.scale.tolist() == [[120 / 96, pytest.approx(40 / 96), 120 / 96, pytest.approx(40 / 96)]]
    with torch.inference_mode():
        theirs = square([to_tensor(sample.pixels)])[0]
    kept = (keep(found, [NmsSetting(0.5, False)]) != 0) & (found.scores > np.float32(0.01))
    assert found.original_boxes[kept][:100] == pytest.approx(theirs["boxes"].numpy(), abs=1e-3)


def test_the_loss_is_torchvisions_own_where_every_anchor_and_proposal_is_sampled(model, monkeypatch):
    """Then there is no chance in it; torchvision also adds the annotated boxes to the proposals, which is left out."""
    for part in (model.rpn, model.roi_heads):
        monkeypatch.setattr(part, "fg_bg_sampler", BalancedPositiveNegativeSampler(100_000, 0.5))
    monkeypatch.setattr(model.roi_heads, "add_gt_proposals", lambda proposals, boxes: proposals)
    monkeypatch.setitem(model.rpn._pre_nms_top_n, "training", model.rpn._pre_nms_top_n["testing"])
    monkeypatch.setitem(model.rpn._post_nms_top_n, "training", model.rpn._post_nms_top_n["testing"])
    _, ours = detect_raw(model, packed(*SCENE), with_loss=True)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    targets = [{"boxes": torch.from_numpy(one.boxes), "labels": torch.from_numpy(one.labels)} for one in SCENE]
    with torch.no_grad():
        theirs = model([to_tensor(one.pixels) for one in SCENE], targets)
    model.eval()
    assert ours == pytest.approx(float(sum(theirs.values())), rel=1e-4)


def test_the_loss_is_the_mean_of_many_sampled_ones(model):
    batch = packed(*SCENE)
    _, ours = detect_raw(model, batch, with_loss=True)
    inputs = model.inputs(batch)
    torch.manual_seed(0)
    with torch.inference_mode():
        features = model.backbone(inputs.images)
        output = model.rpn.run(inputs, list(features.values()))
        found = model.rpn.propose(output, inputs)
        sampled = []
        for _ in range(300):
            rpn = model.rpn.losses(output, inputs, model.keys)
            rois = model._drawn_losses(inputs, features, found, with_boxes=False)
            sampled.append(float(sum((*rpn.values(), *rois.values()))))
    error = np.std(sampled) / 300**0.5
    assert abs(np.mean(sampled) - ours) < 5 * error + 1e-6


def test_measuring_the_loss_changes_nothing_but_the_answer(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(11)
    random = torch.get_rng_state()
    with_loss, loss = detect_raw(model, packed(*SCENE), with_loss=True)
    assert detect_raw(model, packed(*SCENE), with_loss=True)[1] == loss  # nothing is random
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    without, _ = detect_raw(model, packed(*SCENE))
    assert np.array_equal(with_loss.boxes, without.boxes)
    assert np.array_equal(with_loss.scores, without.scores)


def test_at_most_a_thousand_detections_of_an_image_are_kept_the_best_ones(model, monkeypatch):
    every, _ = detect_raw(model, packed(*SCENE), floor=0.0)
    monkeypatch.setattr(detect, "MAX_CANDIDATES", 7)
    few, _ = detect_raw(model, packed(*SCENE), floor=0.0)
    for image, (mine, all_of_it) in enumerate(zip(few.split(), every.split(), strict=True)):
        assert np.array_equal(mine.scores, all_of_it.scores[:7]), image
        assert np.array_equal(mine.boxes, all_of_it.boxes[:7]), image


def test_images_can_be_taken_apart_and_put_together_again(model):
    found, _ = detect_raw(model, packed(*SCENE), floor=0.0)
    again = Candidates.join(found.split())
    for name in ("start", "boxes", "scores", "labels", "scale"):
        assert np.array_equal(getattr(again, name), getattr(found, name))


def test_pixels_become_channels_first_in_unit_range():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (3, 2, 4)
    assert float(tensor[1, 1, 2]) == pytest.approx(pixels[1, 2, 1] / 255)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=40), st.integers(1, 9))
def test_batches_by_shape_hold_each_image_once(sizes, batch_size):
    batches = list(batches_by_shape(np.array(sizes, dtype=np.int32), batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))


@pytest.mark.parametrize("backbone", ["tiny", "resnet50_v2"])
def test_a_model_without_any_proposal_detects_nothing(backbone):
    model = build_model(TrainConfig.from_flat({"model.weights": "none", "model.backbone": backbone}))[0].eval()
    model.rpn.min_size = 1e9
    found, loss = detect_raw(model, packed(*SCENE), floor=0.0, with_loss=True)
    assert found.start.tolist() == [0, 0, 0, 0]
    assert np.isfinite(loss)
