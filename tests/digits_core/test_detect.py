import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from digits_core.config import TaskConfig, TrainConfig
from digits_core.detect import RawDetections, batches_by_shape, detect_raw, keep, to_tensor
from digits_core.model import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return build_model(TrainConfig.from_flat({"model.weights": "none"}))[0].eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, tall, wide, generator=generator) for tall, wide in ((40, 90), (33, 64), (64, 64))]


@pytest.mark.parametrize(("nms", "score", "top"), [(0.5, 0.05, 100), (0.3, 0.09, 100), (0.7, 0.01, 5)])
def test_raw_detections_kept_equal_torchvisions_own_postprocessing(model, images, nms, score, top):
    heads = model.roi_heads
    heads.nms_thresh, heads.score_thresh, heads.detections_per_img = nms, score, top
    with torch.inference_mode():
        theirs = model([image.clone() for image in images])
    raw = detect_raw(model, images, floor=0.0)
    for one, other in zip(raw, theirs, strict=True):
        ours = keep(one, TaskConfig(nms=nms, score=score, max_detections=top))
        assert torch.equal(ours.labels, other["labels"])
        torch.testing.assert_close(ours.scores, other["scores"])
        torch.testing.assert_close(ours.boxes, other["boxes"], atol=1e-4, rtol=1e-5)


def brute_force(raw, task):
    """Greedy NMS as its definition says, one box at a time."""
    order = [int(index) for index in torch.argsort(raw.scores, descending=True, stable=True)]
    iou = box_iou(raw.boxes, raw.boxes)
    kept = []
    for index in order:
        if raw.scores[index] <= task.score:
            continue
        rivals = [k for k in kept if task.class_agnostic or raw.labels[k] == raw.labels[index]]
        if all(iou[k, index] <= task.nms for k in rivals):
            kept.append(index)
    return kept[: task.max_detections]


@st.composite
def raw_detections(draw):
    """Random boxes on a coarse grid, so that ties and equal boxes occur."""
    count = draw(st.integers(0, 14))
    number = st.integers(0, 12)
    boxes = [
        (x, y, x + draw(st.integers(1, 9)), y + draw(st.integers(1, 9)))
        for x, y in draw(st.lists(st.tuples(number, number), min_size=count, max_size=count))
    ]
    scores = draw(st.lists(st.integers(1, 99), min_size=count, max_size=count, unique=True))
    labels = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    return RawDetections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32) / 100,
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(4),
    )


@settings(deadline=None, max_examples=150)
@given(
    raw_detections(),
    st.sampled_from([0.1003, 0.3051, 0.5071, 0.7033]),  # no IoU on this grid equals one of them
    st.sampled_from([0.0, 0.255, 0.5]),
    st.sampled_from([1, 3, 100]),
    st.booleans(),
)
def test_keep_equals_a_brute_force_twin(raw, nms, score, top, agnostic):
    task = TaskConfig(nms=nms, score=score, max_detections=top, class_agnostic=agnostic)
    kept, expected = keep(raw, task), brute_force(raw, task)
    assert kept.scores.tolist() == raw.scores[expected].tolist()
    assert kept.labels.tolist() == raw.labels[expected].tolist()
    assert kept.boxes.tolist() == raw.boxes[expected].tolist()


def test_scores_are_kept_strictly_above_the_threshold():
    raw = RawDetections(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0.5]), torch.tensor([1]), torch.ones(4))
    assert len(keep(raw, TaskConfig(score=0.5)).scores) == 0
    assert len(keep(raw, TaskConfig(score=0.4999)).scores) == 1


def test_boxes_come_back_in_original_pixels(model):
    image = torch.rand(3, 40, 100)
    raw = detect_raw(model, [image], floor=0.0)[0]
    boxes = keep(raw, TaskConfig(score=0.0)).boxes
    assert float(boxes[:, [0, 2]].max()) <= 100 + 1e-3
    assert float(boxes[:, [1, 3]].max()) <= 40 + 1e-3


def test_pixels_become_channels_first_in_unit_range():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (3, 2, 4)
    assert float(tensor[1, 1, 2]) == pytest.approx(pixels[1, 2, 1] / 255)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=40), st.integers(1, 9))
def test_batches_by_shape_hold_each_image_once(sizes, batch_size):
    batches = list(batches_by_shape(np.array(sizes, dtype=np.int32), batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
