import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import to_tensor
from digits_core.evaluation.detect import LOSS_SEED, batches_by_shape, detect_raw
from digits_core.evaluation.matching import Candidates, NmsSetting, keep
from digits_core.model.build import build_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return build_model(TrainConfig.from_flat({"model.weights": "none"}))[0].eval()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, tall, wide, generator=generator) for tall, wide in ((40, 90), (33, 64), (64, 64))]


@pytest.fixture(scope="module")
def targets():
    return [
        {"boxes": torch.tensor([[5.0, 6.0, 20.0, 30.0], [30.0, 8.0, 45.0, 33.0]]), "labels": torch.tensor([3, 7])},
        {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[10.0, 10.0, 40.0, 60.0]]), "labels": torch.tensor([1])},
    ]


@pytest.mark.parametrize(("nms", "score", "top"), [(0.5, 0.05, 100), (0.3, 0.09, 100), (0.7, 0.01, 5)])
def test_raw_detections_kept_equal_torchvisions_own_postprocessing(model, images, nms, score, top):
    heads = model.roi_heads
    heads.nms_thresh, heads.score_thresh, heads.detections_per_img = nms, score, top
    with torch.inference_mode():
        theirs = model([image.clone() for image in images])
    found, loss = detect_raw(model, images, floor=0.0)
    assert loss is None
    kept = keep(found, [NmsSetting(nms, False)]) != 0
    for image, other in enumerate(theirs):
        rows = np.flatnonzero(kept & (found.image == image) & (found.scores > np.float32(score)))[:top]
        assert found.labels[rows].tolist() == other["labels"].tolist()
        assert found.scores[rows] == pytest.approx(other["scores"].numpy())
        assert found.original_boxes[rows] == pytest.approx(other["boxes"].numpy(), abs=1e-4, rel=1e-5)


def test_boxes_come_back_in_original_pixels(model):
    found, _ = detect_raw(model, [torch.rand(3, 40, 100)], floor=0.0)
    assert float(found.original_boxes[:, [0, 2]].max()) <= 100 + 1e-3
    assert float(found.original_boxes[:, [1, 3]].max()) <= 40 + 1e-3


def test_a_fixed_square_scales_boxes_in_and_out_by_each_side():
    torch.manual_seed(1)
    square = build_model(TrainConfig.from_flat({"model.weights": "none", "model.fixed_size": 96}))[0].eval()
    image, target = torch.rand(3, 40, 120), {"boxes": torch.tensor([[30.0, 10.0, 60.0, 30.0]])}
    batch, [inside] = square.transform([image], [target])
    assert batch.image_sizes == [(96, 96)]
    assert inside["boxes"].tolist() == [[24.0, 24.0, 48.0, 72.0]]
    found, _ = detect_raw(square, [image], floor=0.0)
    assert found.scale.tolist() == [[120 / 96, pytest.approx(40 / 96), 120 / 96, pytest.approx(40 / 96)]]
    with torch.inference_mode():
        theirs = square([image])[0]
    kept = (keep(found, [NmsSetting(0.5, False)]) != 0) & (found.scores > np.float32(0.01))
    assert found.original_boxes[kept][:100] == pytest.approx(theirs["boxes"].numpy(), abs=1e-4)


def test_the_loss_is_torchvisions_own_with_batch_norm_at_rest(model, images, targets):
    _, ours = detect_raw(model, images, targets)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    model.transform.eval()  # in training mode it draws one of its sizes, and it has only one
    torch.manual_seed(LOSS_SEED)
    with torch.no_grad():
        theirs = model([image.clone() for image in images], [dict(target) for target in targets])
    model.eval()
    assert ours == pytest.approx(float(sum(theirs.values())), rel=1e-5)


def test_measuring_the_loss_changes_nothing_but_the_answer(model, images, targets):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(11)
    random = torch.get_rng_state()
    with_loss, loss = detect_raw(model, images, targets)
    assert detect_raw(model, images, targets)[1] == loss  # sampled with a fixed seed
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    without, _ = detect_raw(model, images)
    assert np.array_equal(with_loss.boxes, without.boxes)
    assert np.array_equal(with_loss.scores, without.scores)


def test_images_can_be_taken_apart_and_put_together_again(model, images):
    found, _ = detect_raw(model, images, floor=0.0)
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
