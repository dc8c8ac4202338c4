import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator

from digits_core.config.train_config import ModelConfig, TrainConfig
from digits_core.model.anchors import best_ious, coverage, realised_anchors, resized_sizes, setting_digest

SIZES = st.lists(st.floats(4, 500), min_size=5, max_size=5).map(tuple)
RATIOS = st.lists(st.floats(0.2, 5), min_size=1, max_size=4).map(tuple)


@given(SIZES, RATIOS)
def test_realised_anchors_equal_torchvisions(sizes, ratios):
    generator = AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * 5)
    ours = realised_anchors(sizes, ratios)
    root = np.sqrt(np.array(ratios))[None, :, None]
    half = np.array(sizes)[:, None, None] * np.concatenate([1 / root, root], axis=2) / 2
    # torch's square root is not always the nearest float32: at half a pixel it may round to the other side
    doubtful = np.tile(np.abs(half % 1 - 0.5) < 1e-3, 2)
    for level, theirs, doubt in zip(ours, generator.cell_anchors, doubtful, strict=True):
        np.testing.assert_array_equal(level[~doubt], theirs.numpy()[~doubt])
        np.testing.assert_allclose(level, theirs.numpy(), atol=1)


def test_a_side_of_half_a_pixel_is_rounded_as_ieee_arithmetic_says():
    assert realised_anchors((227.63173199714817,), (0.2,)).tolist() == [[[-255.0, -51.0, 255.0, 51.0]]]


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
    from digits_core.model.build import build_model, read_back

    config = with_anchors("8,12,18,27,41", **{"model.weights": "none"})
    torch.manual_seed(0)
    read = read_back(build_model(config)[0])["anchors"]
    boxes = realised_anchors((8, 12, 18, 27, 41), (1, 2))
    assert np.array_equal(np.array(read), boxes[:, :, 2:] * 2)


@settings(max_examples=12)
@given(
    st.sampled_from(["18,26,38,55,80", "4,8,12,24,48", "64,90,128,181,256"]),
    st.sampled_from([(64, 224, None), (96, 160, None), (64, 224, 96)]),
    st.data(),
)
def test_best_ious_equal_brute_force_over_torchvisions_own_anchors(sizes, shape, data):
    """Every anchor of the built model's generator, on its own feature maps, against every box."""
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou

    from digits_core.model.build import build_model
    from oracle import table_of

    config = TrainConfig.from_flat(
        {
            "model.anchor_sizes": sizes,
            "model.min_size": shape[0],
            "model.max_size": shape[1],
            "model.fixed_size": shape[2],
            "model.fresh_rpn": True,
        }
    )
    model = build_model(config)[0].eval()
    wide, tall = data.draw(st.tuples(st.integers(20, 150), st.integers(20, 150)))
    number = st.integers(1, 60)
    boxes = [
        (float(x), float(y), min(float(x + w), wide), min(float(y + h), tall))
        for x, y, w, h in data.draw(
            st.lists(st.tuples(st.integers(0, 18), st.integers(0, 18), number, number), min_size=1, max_size=5)
        )
    ]
    table = table_of([[(box, 1, False) for box in boxes]])
    table = dataclasses.replace(table, sizes=np.array([[wide, tall]], dtype=np.int32))
    target = {"boxes": torch.tensor(boxes), "labels": torch.ones(len(boxes), dtype=torch.int64)}
    batch, targets = model.transform([torch.zeros(3, tall, wide)], [target])
    assert resized_sizes(config.model, table.sizes).tolist() == [list(batch.image_sizes[0][::-1])]
    with torch.no_grad():
        features = list(model.backbone(batch.tensors).values())
    anchors = model.rpn.anchor_generator(ImageList(batch.tensors, batch.image_sizes), features)[0]
    expected = box_iou(targets[0]["boxes"], anchors).max(dim=1).values
    np.testing.assert_allclose(best_ious(config.model, table), expected.numpy(), atol=1e-5)


def test_coverage_counts_shares_and_leaves_crowds_out():
    from oracle import table_of

    model = ModelConfig()
    fitting = (10.0, 10.0, 23.0, 36.0)  # 13 x 26, an anchor of the first level
    table = table_of(
        [[(fitting, 1, False), ((0.0, 0.0, 2.0, 2.0), 1, False), ((0.0, 0.0, 3.0, 3.0), 1, True)]], side=64
    )
    found = coverage(model, table)
    assert found.recall_50 == 0.5
    assert 0.3 < found.mean_iou < 0.6
    assert found.recall_70 <= found.recall_50
    empty = coverage(model, table_of([[]]))
    assert (empty.recall_50, empty.recall_70, empty.mean_iou) == (0.0, 0.0, 0.0)
