"""The batched detector is torchvision's: losses, gradients and detections, with the same random choices."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import SCENE, Counting, packed, sample_of
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, batched_nms
from torchvision.ops.poolers import initLevelMapper

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import to_tensor
from digits_core.evaluation.detect import detect_raw
from digits_core.model import detector, region_proposals, resize, sampling
from digits_core.model.build import build_model
from digits_core.model.region_proposals import all_survivors, first_survivors
from digits_core.model.resize import resized_on_cpu, resized_on_device
from digits_core.training.reports import LOSSES


def model_of(num_classes=11, **flat):
    torch.manual_seed(3)
    config = TrainConfig.from_flat({"model.weights": "none", **flat})
    return build_model(config, num_classes=num_classes)[0]


def torchvision_twin(model, config):
    """The same weights in torchvision's own parts."""
    twin = copy.deepcopy(model)
    twin.rpn = RegionProposalNetwork(
        twin.rpn.anchor_generator, twin.rpn.head, config.rpn_fg_iou, config.rpn_bg_iou, config.rpn_batch_size,
        config.rpn_positive_fraction, twin.rpn._pre_nms_top_n, twin.rpn._post_nms_top_n, config.rpn_nms,
    )  # fmt: skip
    twin.rpn.min_size = model.rpn.min_size
    levels = [str(level) for level in range(config.roi_levels)]
    pool = MultiScaleRoIAlign(levels, config.roi_output_size, config.roi_sampling_ratio)
    pool.scales = [2.0 ** -(2 + level) for level in range(config.roi_levels)]  # it would estimate them from the images
    pool.map_levels = initLevelMapper(2, 1 + config.roi_levels)
    twin.roi_heads.box_roi_pool = pool
    return twin


class SameChoice:
    """torchvision's sampler with the random numbers of the batched one.

    The batched one has the same number of proposals for every image: those of the RPN, then the annotated boxes.
    """

    def __init__(self, count, fraction, keys, most_boxes, boxes):
        self.count, self.most, self.keys = count, int(count * fraction), keys
        self.most_boxes, self.boxes = most_boxes, boxes

    def __call__(self, labels):
        masks = ([], [])
        for image, one in enumerate(labels):
            keys = self.keys[image]
            if len(one) != len(keys):
                found = len(one) - self.boxes[image]
                first = len(keys) - self.most_boxes
                keys = torch.cat([keys[:found], keys[first : first + self.boxes[image]]])
            positive, negative = (torch.where(rows)[0] for rows in (one >= 1, one == 0))
            kept = positive[keys[positive].argsort()][: self.most]
            rest = negative[keys[negative].argsort()][: self.count - len(kept)]
            for mask, rows in zip(masks, (kept, rest), strict=True):
                mask.append(torch.zeros(len(one), dtype=torch.uint8).index_fill(0, rows, 1))
        return masks


def both_losses(model, config, samples):
    """The losses of the batched detector and of torchvision's, with equal random choices, and their gradients."""
    batch, twin = packed(*samples), torchvision_twin(model, config)
    drawn = []

    def keys(shape):
        drawn.append(torch.rand(shape, generator=torch.Generator().manual_seed(len(drawn) + 1)))
        return drawn[-1]

    dtype = next(model.parameters()).dtype
    targets = [
        {"boxes": torch.from_numpy(one.boxes).to(dtype), "labels": torch.from_numpy(one.labels)} for one in samples
    ]
    images = [to_tensor(one.pixels).to(dtype) for one in samples]
    # The resize differs by rounding, which batch norm can magnify; it has a test of its own.
    inputs = dataclasses.replace(model.inputs(batch), images=model.transform(images)[0].tensors)
    model.keys, model.inputs = keys, lambda batch: inputs
    ours = model(batch)
    counts = [len(one.boxes) for one in samples]
    for part, its in zip((twin.rpn, twin.roi_heads), drawn, strict=True):
        known = part.fg_bg_sampler
        part.fg_bg_sampler = SameChoice(
            known.batch_size_per_image, known.positive_fraction, its, batch.boxes.shape[1], counts
        )
    theirs = twin(images, targets)
    gradients = []
    for losses, one in ((ours, model), (theirs, twin)):
        one.zero_grad()
        torch.stack([losses[name] for name in LOSSES]).sum().backward()
        gradients.append({name: value.grad for name, value in one.named_parameters()})
    return ours, theirs, *gradients


@st.composite
def batches(draw, labels=10):
    """Images of very different shapes with no, one or several boxes, some of one pixel."""
    samples = []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(st.integers(4, 130)), draw(st.integers(4, 130))
        boxes = []
        for _ in range(draw(st.integers(0, 4))):
            left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            wide, tall = draw(st.integers(1, max(1, width - left))), draw(st.integers(1, max(1, height - top)))
            boxes.append(([left, top, left + wide, top + tall], draw(st.integers(1, labels))))
        samples.append(sample_of(width, height, boxes, number))
    return samples


def assert_same(ours, theirs, our_gradients, their_gradients):
    for name in LOSSES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6, check_dtype=False)
    largest = max(float(one.abs().max()) for one in their_gradients.values() if one is not None)
    for name, one in their_gradients.items():
        mine = our_gradients[name]
        expected = torch.zeros_like(mine) if one is None else one
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5 * max(largest, 1e-3), msg=name)


V2 = {
    "model.backbone": "resnet50_v2",
    "model.min_size": 32,
    "model.max_size": 64,
    "model.rpn_post_nms_top_n_train": 9,
}
"""A box head with batch norm."""

SMALL = {
    "model.rpn_batch_size": 16,
    "model.roi_batch_size": 12,
    "model.rpn_post_nms_top_n_train": 30,
    "model.rpn_pre_nms_top_n_train": 50,
}


@settings(max_examples=12, deadline=None)
@given(batches())
def test_losses_and_gradients_are_torchvisions(samples):
    config = TrainConfig.from_flat({"model.weights": "none", **SMALL})
    model = model_of(**SMALL).double()  # in float64 no rounding moves a box over a threshold
    assert_same(*both_losses(model, config.model, samples))


@pytest.mark.parametrize(
    "flat",
    [
        {},
        {"model.fixed_size": 64},
        {"model.roi_levels": 1},
        {"model.roi_positive_fraction": 0.0, "model.rpn_positive_fraction": 1.0},
        {"model.rpn_fg_iou": 0.5, "model.rpn_bg_iou": 0.5, "model.roi_batch_size": 512},
        V2,
    ],
    ids=str,
)
def test_losses_are_torchvisions_for_other_parameters(flat):
    config = TrainConfig.from_flat({"model.weights": "none", **flat})
    assert_same(*both_losses(model_of(**flat).double(), config.model, SCENE))


def without_proposals_or_boxes():
    model = model_of().double()
    model.rpn.min_size = 1e9
    return {name: float(value.detach()) for name, value in model(packed(sample_of(64, 50), sample_of(40, 50))).items()}


def test_images_without_boxes_and_proposals_have_no_loss_of_the_heads(request):
    ours = without_proposals_or_boxes()
    assert ours["loss_classifier"] == ours["loss_box_reg"] == 0
    assert ours["loss_objectness"] > 0
    request.getfixturevalue("as_on_a_gpu")
    assert without_proposals_or_boxes() == pytest.approx(ours)


def test_losses_of_one_class_and_without_any_proposal_are_torchvisions():
    samples = [sample_of(90, 40, [([5, 6, 20, 30], 1)], 1), sample_of(64, 50, [], 2)]
    model = model_of(num_classes=2).double()
    model.rpn.min_size = 1e9
    config = TrainConfig.from_flat({"model.weights": "none"}).model
    found = model.rpn.propose(*rpn_of(model, samples))
    assert not found.real.any()
    assert_same(*both_losses(model, config, samples))


def rpn_of(model, samples):
    inputs = model.inputs(packed(*samples))
    return model.rpn.run(inputs, list(model.backbone(inputs.images).values())), inputs


@pytest.mark.parametrize("backbone", ["tiny", "resnet18", "resnet50_v2"])
def test_the_rpn_head_on_one_canvas_gives_torchvisions_output(backbone):
    model = model_of(**{"model.backbone": backbone}).eval().double()
    output, _ = rpn_of(model, SCENE)
    inputs = model.inputs(packed(*SCENE))

    levels = list(model.backbone(inputs.images).values())
    for name, value in zip(("objectness", "codes"), model.rpn.head(levels), strict=True):
        size = 1 if name == "objectness" else 4
        flat = [one.permute(0, 2, 3, 1).reshape(len(SCENE), -1, size) for one in value]
        mine = getattr(output, name).reshape(len(SCENE), -1, size)
        torch.testing.assert_close(mine, torch.cat(flat, dim=1))
    assert output.per_level == tuple(one.shape[1] * one.shape[2] * one.shape[3] for one in model.rpn.head(levels)[0])


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The way of a GPU, on which no number of rows depends on values."""
    for module in (detector, region_proposals, resize, sampling):
        monkeypatch.setattr(module, "must_not_wait", lambda device: True)


@pytest.mark.parametrize(
    "flat", [{}, {"model.rpn_post_nms_top_n_train": 7}, V2], ids=["default", "few proposals", "resnet50_v2"]
)
def test_the_way_of_a_gpu_gives_the_same_losses(as_on_a_gpu, flat):
    config = TrainConfig.from_flat({"model.weights": "none", **flat})
    assert_same(*both_losses(model_of(**flat).double(), config.model, SCENE))


def test_the_way_of_a_gpu_gives_the_same_detections(request):
    model = model_of().eval()
    batch = packed(*SCENE)
    found, loss = detect_raw(model, batch, floor=0.0, with_loss=True)
    request.getfixturevalue("as_on_a_gpu")
    other, other_loss = detect_raw(model, batch, floor=0.0, with_loss=True)
    assert found.start.tolist() == other.start.tolist()
    assert loss == pytest.approx(other_loss, rel=1e-4)
    np.testing.assert_allclose(np.sort(found.scores), np.sort(other.scores), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3013, 0.5017, 0.7019, 1.0]), st.integers(1, 30))
def test_the_survivors_of_nms_are_torchvisions(seed, threshold, most):
    """No IoU of whole pixels is one of these thresholds: float32 and float64 would round it to different sides."""
    generator = torch.Generator().manual_seed(seed)
    images, num = 3, 70
    corner = torch.randint(0, 60, (images, num, 2), generator=generator).float()  # whole pixels: no rounding
    boxes = torch.cat([corner, corner + torch.randint(0, 20, (images, num, 2), generator=generator)], dim=2)
    scores = torch.rand(images, num, generator=generator).sort(dim=1, descending=True).values
    solid = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(2)
    level = torch.where(solid, torch.randint(0, 3, (images, num), generator=generator), 3)
    results = [one(boxes, scores, level, solid, 100, threshold, most) for one in (first_survivors, all_survivors)]
    for image in range(images):
        rows = solid[image].nonzero()[:, 0]
        kept = batched_nms(boxes[image, rows], scores[image, rows], level[image, rows], threshold)[:most]
        for found, real in results:
            assert found[image][real[image]].tolist() == rows[kept].tolist()


@pytest.mark.parametrize("survivors", [first_survivors, all_survivors])
def test_a_box_that_is_not_a_number_changes_nothing_in_other_images(survivors, monkeypatch):
    model = model_of().eval()
    monkeypatch.setattr(region_proposals, "must_not_wait", lambda device: survivors is all_survivors)
    output, inputs = rpn_of(model, SCENE)
    sound = model.rpn.propose(output, inputs)
    codes = output.codes.clone()
    codes[1, 7] = float("nan")
    damaged = model.rpn.propose(dataclasses.replace(output, codes=codes), inputs)
    for image in (0, 2):
        assert torch.equal(damaged.boxes[image][damaged.real[image]], sound.boxes[image][sound.real[image]])
    assert damaged.boxes.isfinite().all()


def test_a_gpu_compares_a_part_of_the_images_at_once_with_the_same_result(as_on_a_gpu, monkeypatch):
    found = []
    for most in (2**15, 1):
        monkeypatch.setattr(region_proposals, "MOST_COMPARED", most)
        monkeypatch.setattr(resize, "MOST_PIXELS", most)
        model = model_of().eval()
        output, inputs = rpn_of(model, SCENE)
        found.append(model.rpn.propose(output, inputs))
    assert torch.equal(found[0].boxes, found[1].boxes)
    assert torch.equal(found[0].real, found[1].real)


sizes = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(sizes, st.sampled_from([{}, {"model.fixed_size": 48}, {"model.min_size": 33, "model.max_size": 40}]))
def test_the_resize_is_torchvisions_where_that_works(shapes, flat):
    size = TrainConfig.from_flat(flat).model
    square = None if size.fixed_size is None else (size.fixed_size, size.fixed_size)
    samples = [sample_of(*shape, [([0, 0, *shape], 1)], number) for number, shape in enumerate(shapes)]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    mine = resize.resize(packed(*samples), size, mean, std, torch.float32)
    normal = tuple(1 / (255 * one) for one in std), tuple(a / b for a, b in zip(mean, std, strict=True))
    args = packed(*samples), mine.sizes, tuple(mine.images.shape[2:]), normal
    torch.testing.assert_close(resized_on_cpu(*args), resized_on_device(*args), atol=1e-3, rtol=0)
    theirs = GeneralizedRCNNTransform(size.min_size, size.max_size, mean, std, fixed_size=square)
    thin = min(min(size.min_size / min(shape), size.max_size / max(shape)) * min(shape) for shape in shapes)
    if square is None and thin < 1:
        assert mine.sizes.min() == 1
        return
    targets = [{"boxes": torch.from_numpy(one.boxes)} for one in samples]
    images, moved = theirs([to_tensor(one.pixels) for one in samples], targets)
    assert [tuple(one[::-1]) for one in mine.sizes.tolist()] == images.image_sizes
    torch.testing.assert_close(mine.images, images.tensors, atol=1e-3, rtol=0)
    assert torch.equal(mine.boxes[:, 0], torch.cat([one["boxes"] for one in moved]))


@pytest.mark.parametrize(
    "shapes", [[(1, 1)], [(3, 90), (90, 3)], [(600, 20), (20, 600), (64, 64)], [(1, 400)]], ids=str
)
def test_images_of_extreme_shapes_can_be_trained_on_and_detected(shapes):
    samples = [sample_of(*shape, [([0, 0, *shape], 1)], number) for number, shape in enumerate(shapes)]
    model = model_of()
    assert all(one.isfinite() for one in model(packed(*samples)).values())
    found, loss = detect_raw(model.eval(), packed(*samples), floor=0.0, with_loss=True)
    assert len(found.start) == len(shapes) + 1
    assert loss > 0


def test_a_batch_without_any_box_and_one_with_very_many_have_finite_losses(monkeypatch):
    many = [([x, y, x + 9, y + 12], 1 + (x + y) % 10) for x in range(0, 60, 3) for y in range(0, 50, 5)]
    samples = [sample_of(70, 64, many, 1), sample_of(64, 64, [], 2)]
    model = model_of()
    whole = model(packed(*samples))
    assert all(one.isfinite() for one in (*whole.values(), *model(packed(*samples[1:])).values()))
    monkeypatch.setattr(sampling, "MOST_IOUS", 1000)  # the batch is compared in parts
    both = []
    for _ in range(2):
        torch.manual_seed(5)
        both.append([float(model(packed(*samples))[name].detach()) for name in LOSSES])
        monkeypatch.undo()
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def scene_of(count):
    return packed(*[SCENE[number % 3] for number in range(count)])


def counted_step(model, count):
    with Counting() as counting:
        losses = model(scene_of(count))
        torch.stack([losses[name] for name in LOSSES]).sum().backward()
    return counting


def test_a_step_has_no_loop_over_images_and_waits_only_in_nms(as_on_a_gpu):
    model = model_of()
    counted_step(model, 2)  # the first batch of a shape makes its anchors
    few, many = counted_step(model, 8), counted_step(model, 32)
    assert few.waits == many.waits == 1
    assert few.total == many.total


def test_on_a_cpu_the_only_operation_for_each_image_is_nms():
    model = model_of()
    counted_step(model, 2)
    few, many = counted_step(model, 8), counted_step(model, 32)
    assert (many.total - few.total) / few.total < 0.05
    assert few.seen["torchvision.nms"] <= 2 * 8  # twice for an image whose best boxes are not enough


def test_an_evaluation_of_eight_images_with_its_loss_has_few_operations(as_on_a_gpu):
    model = model_of().eval()
    detect_raw(model, scene_of(2), floor=0.01, with_loss=True)
    with Counting() as counting:
        detect_raw(model, scene_of(8), floor=0.01, with_loss=True)
    assert counting.total < 900
    assert counting.waits <= 4
