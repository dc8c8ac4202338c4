import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator

from digits_core.anchors import realised_anchors, setting_digest
from digits_core.config import TrainConfig

SIZES = st.lists(st.floats(4, 500), min_size=5, max_size=5).map(tuple)
RATIOS = st.lists(st.floats(0.2, 5), min_size=1, max_size=4).map(tuple)


@settings(deadline=None)
@given(SIZES, RATIOS)
def test_realised_anchors_equal_torchvisions(sizes, ratios):
    generator = AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * 5)
    ours = realised_anchors(sizes, ratios)
    for level, theirs in zip(ours, generator.cell_anchors, strict=True):
        np.testing.assert_array_equal(level, theirs.numpy())


def test_rounding_makes_two_ratios_one_anchor():
    small = realised_anchors((4.0,), (1.0, 1.5))
    assert (small[0, 0] == small[0, 1]).all()


def with_anchors(sizes, ratios="1,2", **more):
    return TrainConfig.from_flat({"model.anchor_sizes": sizes, "model.aspect_ratios": ratios, **more})


def test_settings_with_the_same_realised_anchors_are_one_setting():
    assert setting_digest(with_anchors("8,16,32,64,128")) == setting_digest(with_anchors("8.1,16,32,64,128"))
    assert setting_digest(with_anchors("8,16,32,64,128", "1,2")) == setting_digest(
        with_anchors("8,16,32,64,128", "2,1")
    )


def test_settings_that_differ_are_told_apart():
    base = setting_digest(with_anchors("8,16,32,64,128"))
    assert base != setting_digest(with_anchors("10,16,32,64,128"))
    assert base != setting_digest(with_anchors("8,16,32,64,128", "1,2,2"))
    assert base != setting_digest(with_anchors("16,8,32,64,128"))
    assert base != setting_digest(with_anchors("8,16,32,64,128", **{"optim.lr": 1e-4}))
    assert base == setting_digest(with_anchors("8,16,32,64,128", **{"runtime.seed": 3}))


def test_model_has_the_realised_anchors():
    from digits_core.model import build_model, read_back

    config = with_anchors("8,12,18,27,41", **{"model.weights": "none"})
    torch.manual_seed(0)
    read = read_back(build_model(config)[0])["anchors"]
    boxes = realised_anchors((8, 12, 18, 27, 41), (1, 2))
    assert np.array_equal(np.array(read), boxes[:, :, 2:] * 2)
