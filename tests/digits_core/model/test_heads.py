"""The parts of the RoI heads that torchvision does not have: box losses, box jitter, label smoothing, cascades."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from images import SCENE, config_of, packed
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import (
    MultiScaleRoIAlign,
    box_iou,
    clip_boxes_to_image,
    complete_box_iou_loss,
    generalized_box_iou_loss,
)

from digits_core.config.train_config import BOX_LOSSES, ModelConfig, TrainConfig
from digits_core.evaluation.detect import detect_raw
from digits_core.files import BEST_FOLDER
from digits_core.model.box_loss import box_loss
from digits_core.model.build import build_model
from digits_core.model.cascade import IOUS
from digits_core.model.checkpoint import load_tensors, save_model
from digits_core.model.region_proposals import Proposals
from digits_core.training.reports import LOSSES
from digits_core.training.train import Checkpoints, train

CODER = (10.0, 10.0, 5.0, 5.0)


def built(**flat):
    torch.manual_seed(3)
    return build_model(TrainConfig.from_flat({"model.weights": "none", **flat}))[0]


@st.composite
def corners(draw):
    left, top = draw(st.floats(0, 50)), draw(st.floats(0, 50))
    return [left, top, left + draw(st.floats(1, 40)), top + draw(st.floats(1, 40))]


ROWS = st.lists(st.tuples(corners(), corners(), st.booleans()), min_size=1, max_size=6)


@given(ROWS, st.sampled_from(BOX_LOSSES), st.floats(0.1, 12), st.floats(0.05, 2))
def test_each_box_loss_is_torchvisions_over_the_foreground_and_finite_elsewhere(rows, kind, factor, beta):
    origins, boxes = (torch.tensor([row[place] for row in rows], dtype=torch.float64) for place in (0, 1))
    foreground = torch.tensor([row[2] for row in rows])
    boxes[~foreground] = torch.nan  # a background has no box
    codes = torch.randn(len(rows), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    codes.requires_grad_(True)
    weight = torch.linspace(0.5, 1.5, len(rows), dtype=torch.float64)
    model = ModelConfig(box_loss=kind, box_loss_weight=factor, box_loss_beta=beta)
    found = box_loss(model, codes, boxes, origins, foreground, weight, CODER)
    found.backward()
    assert torch.isfinite(codes.grad).all()
    assert not codes.grad[~foreground].any()
    coder, expected = BoxCoder(CODER), 0.0
    for row in foreground.nonzero().flatten().tolist():
        one, origin, box = codes[row : row + 1].detach(), origins[row : row + 1], boxes[row : row + 1]
        if kind in ("smooth_l1", "l1"):
            wanted = coder.encode_single(box, origin)
            loss = functional.smooth_l1_loss(one, wanted, beta=beta if kind == "smooth_l1" else 0.0, reduction="sum")
        else:
            compare = generalized_box_iou_loss if kind == "giou" else complete_box_iou_loss
            loss = compare(coder.decode_single(one, origin), box, reduction="sum")
        expected += factor * float(weight[row]) * float(loss)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def losses_of(**flat):
    """The losses of one batch with the same weights and random choices."""
    model = built(**flat)
    torch.manual_seed(5)
    return {name: float(value.detach()) for name, value in model(packed(*SCENE)).items()}


def test_a_weight_scales_the_box_loss_of_the_roi_heads_only():
    plain, heavy = losses_of(), losses_of(**{"model.box_loss_weight": 3.0})
    assert heavy["loss_box_reg"] == pytest.approx(3 * plain["loss_box_reg"])
    assert all(heavy[name] == plain[name] for name in LOSSES if name != "loss_box_reg")


def test_label_smoothing_changes_the_classification_loss_only():
    plain, smooth = losses_of(), losses_of(**{"model.label_smoothing": 0.2})
    assert smooth["loss_classifier"] != plain["loss_classifier"]
    assert all(smooth[name] == plain[name] for name in LOSSES if name != "loss_classifier")


@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.5])
def test_annotated_boxes_move_by_at_most_their_share_and_stay_in_the_image(jitter):
    model = built(**{"model.box_jitter": jitter})
    inputs = model.inputs(packed(*SCENE))
    moved = [model._jittered(inputs) for _ in range(20)]
    sides = (inputs.boxes[..., 2:] - inputs.boxes[..., :2]).repeat(1, 1, 2)
    for boxes in moved:
        assert ((boxes - inputs.boxes).abs() <= jitter * sides + 1e-4).all()
        assert (boxes >= 0).all()
        assert (boxes <= inputs.sides[:, None] + 1e-4).all()
    assert torch.equal(moved[0], moved[1]) == (jitter == 0)


def cascade_by_hand(model, batch):
    """Boxes and scores of each image of a cascade, by torchvision's parts, one image and one stage at a time."""
    inputs = model.inputs(batch)
    features = model.backbone(inputs.images)
    proposals = model.rpn.propose(model.rpn.run(inputs, list(features.values())), inputs)
    config = model.config
    pool = MultiScaleRoIAlign(
        [str(level) for level in range(config.roi_levels)], config.roi_output_size, config.roi_sampling_ratio
    )
    found = []
    for image in range(len(batch)):
        boxes = proposals.boxes[image][proposals.real[image]]
        own = {name: level[image : image + 1] for name, level in features.items()}
        shape = tuple(inputs.images.shape[2:])
        tall_wide = tuple(inputs.sizes[image][::-1].tolist())
        scores = []
        heads = model.roi_heads
        logits, codes = heads.box_predictor(heads.box_head(pool(own, [boxes], [shape])))
        codes, coder = codes.view(len(boxes), -1, 4), heads.box_coder
        for stage in model.cascade:
            scores.append(logits.softmax(1))
            best = logits[:, 1:].argmax(1) + 1
            boxes = clip_boxes_to_image(coder.decode_single(codes[range(len(boxes)), best], boxes), tall_wide)
            head = stage.box_head(pool(own, [boxes], [shape]))
            logits, codes = stage.cls_score(head), stage.bbox_pred(head)[:, None].expand(-1, 11, -1)
            coder = BoxCoder(stage.coder_weights)
        scores.append(logits.softmax(1))
        last = clip_boxes_to_image(coder.decode_single(codes[:, 0], boxes), tall_wide)
        found.append((last, torch.stack(scores).mean(0)[:, 1:]))
    return found


def test_a_cascade_detects_what_its_stages_give_one_image_at_a_time():
    model = built(**{"model.cascade_stages": 3}).eval()
    with torch.no_grad():
        for stage in model.cascade:
            stage.bbox_pred.weight.normal_(0, 0.2)
        expected = cascade_by_hand(model, packed(*SCENE))
    found, loss = detect_raw(model, packed(*SCENE), floor=0.05, with_loss=True)
    assert np.isfinite(loss)
    for one, (boxes, scores) in zip(found.split(), expected, strict=True):
        row, label = (scores > 0.05).nonzero().unbind(1)
        order = scores[row, label].argsort(descending=True, stable=True)
        rows = zip(boxes[row][order].tolist(), scores[row, label][order].tolist(), strict=True)
        pairs = sorted((round(score, 3), [round(side, 1) for side in box]) for box, score in rows)
        ours = sorted(
            (round(float(score), 3), [round(float(side), 1) for side in box])
            for box, score in zip(one.boxes, one.scores, strict=True)
        )
        assert len(ours) == len(pairs) > 0
        for (score, box), (other_score, other) in zip(ours, pairs, strict=True):
            assert score == pytest.approx(other_score, abs=2e-3)
            assert box == pytest.approx(other, abs=0.2)


def test_one_stage_is_torchvisions_model_and_further_stages_begin_with_its_weights():
    one, three = built(**{"model.weights": "drawn"}), built(**{"model.weights": "drawn", "model.cascade_stages": 3})
    assert not any(name.startswith("cascade.") for name in one.state_dict())
    assert one.state_dict().keys() < three.state_dict().keys()
    batch = packed(*SCENE)
    first, last = (detect_raw(model.eval(), batch)[0] for model in (one, three))
    assert len(last.scores) > 0
    # The further stages do not move boxes yet, so each box is one of the first stage's.
    known = {tuple(np.round(box, 2)) for box in first.boxes.tolist()}
    assert sum(tuple(np.round(box, 2)) in known for box in last.boxes.tolist()) > 0


def test_a_later_stage_wants_closer_boxes():
    model = built(**{"model.cascade_stages": 3})
    inputs = model.inputs(packed(*SCENE))
    box = inputs.boxes[2, 0]
    wide = box[2] - box[0]
    near = torch.stack([box + torch.tensor([share, 0.0, share, 0.0]) * wide for share in (0.0, 0.2, 0.3)])
    assert [round(float(one), 2) for one in box_iou(near, box[None]).flatten()] == [1.0, 0.67, 0.54]
    found = Proposals(near.expand(3, -1, -1), torch.ones(3, 3, dtype=torch.bool))
    counts = [int(model._assign(inputs, found, iou).foreground[2].sum()) for iou in IOUS]
    assert counts == [3, 2, 1]


@pytest.mark.parametrize("stages", [2, 3])
def test_a_cascade_trains_every_stage_and_resumes_exactly(stages, tiny_data, spy_report, tmp_path, one_thread):
    config = config_of(**{"optim.epochs": 2, "model.cascade_stages": stages, "model.box_jitter": 0.1})
    train(config, tiny_data, spy_report, checkpoints=Checkpoints(tmp_path / "whole"))
    whole = spy_report.seen[1].checkpoint
    before, after = (load_tensors(one.checkpoint) for one in spy_report.seen[:2])
    heads = [name for name in before if name.startswith("cascade.") and name.endswith("weight")]
    assert len(heads) == 4 * (stages - 1)
    assert all(not torch.equal(before[name], after[name]) for name in heads)
    resumed = Checkpoints(tmp_path / "resumed", resume_from=spy_report.seen[0].checkpoint)
    train(config, tiny_data, spy_report, checkpoints=resumed)
    again = load_tensors(spy_report.seen[2].checkpoint)
    assert all(torch.equal(value, again[name]) for name, value in load_tensors(whole).items())
    assert (spy_report.seen[2].checkpoint / BEST_FOLDER).is_dir()


def test_ciou_stays_finite_where_a_predicted_side_rounds_to_zero():
    codes = torch.tensor([[0.0, 0.0, -400.0, -400.0]], requires_grad=True)
    boxes = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    found = box_loss(
        ModelConfig(box_loss="ciou"), codes, boxes, boxes, torch.ones(1, dtype=torch.bool), torch.ones(1), CODER
    )
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(codes.grad).all()


def test_a_third_stage_without_weights_begins_with_those_of_the_second(tmp_path):
    two = TrainConfig.from_flat({"model.cascade_stages": 2})
    model = build_model(two)[0]
    with torch.no_grad():
        model.cascade[0].cls_score.bias += 1.0
    save_model(tmp_path / "two", model, two)
    three = TrainConfig.from_flat({"model.cascade_stages": 3, "model.weights": str(tmp_path / "two")})
    found = build_model(three)[0]
    assert torch.equal(found.cascade[1].cls_score.bias, model.cascade[0].cls_score.bias)
    assert not found.cascade[1].bbox_pred.weight.any()


def test_a_cascade_is_no_plain_torchvision_model():
    with pytest.raises(NotImplementedError, match="takes a Batch"):
        built(**{"model.cascade_stages": 2}).eval()([torch.zeros(3, 40, 40)])
