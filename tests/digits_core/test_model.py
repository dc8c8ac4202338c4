import json

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from digits_core.checkpoint import load_tensors, save_model
from digits_core.config import TrainConfig
from digits_core.errors import ConfigError, WeightsError
from digits_core.model import DRAWN_WEIGHTS, build_model, read_back

RESNET = {
    "model.backbone": "resnet50",
    "model.weights": "none",
    "model.min_size": 512,
    "model.max_size": 1024,
    "model.anchor_sizes": "32,64,128,256,512",
    "model.aspect_ratios": "0.5,1,2",
    "model.roi_output_size": 7,
}


def build(**flat):
    torch.manual_seed(0)
    return build_model(TrainConfig.from_flat({"model.weights": "none", **flat}))


def test_tiny_is_small_and_has_five_levels():
    model, _ = build()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_500_000
    levels = model.eval().backbone(torch.zeros(1, 3, 64, 128))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]


def test_resnet50_has_the_parameters_of_the_report_frozen_batch_norm_and_all():
    model, _ = build(**RESNET)
    assert read_back(model)["num_parameters"] == 41_345_286
    assert read_back(model)["num_trained_parameters"] == 41_345_286  # nothing frozen without weights


def test_resnet50_equals_torchvisions_own_builder_under_the_same_weights():
    ours, _ = build(**RESNET)
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=11, min_size=64, max_size=128, box_score_thresh=0.0
    ).eval()
    ours = build(**(RESNET | {"model.min_size": 64, "model.max_size": 128, "detect.task1.score": 0.0}))[0].eval()
    ours.rpn._pre_nms_top_n = theirs.rpn._pre_nms_top_n
    ours.rpn._post_nms_top_n = theirs.rpn._post_nms_top_n
    fitting = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    ours.load_state_dict(fitting)
    # Both normalise by the running statistics in evaluation; frozen batch norm adds no epsilon of its own.
    image = [torch.rand(3, 50, 90)]
    with torch.inference_mode():
        mine, other = ours(image)[0], theirs(image)[0]
    assert len(mine["boxes"]) == len(other["boxes"])
    torch.testing.assert_close(mine["boxes"], other["boxes"], atol=1e-2, rtol=1e-3)


def test_what_the_model_has_is_read_back():
    model, _ = build(
        **{
            "detect.task1.nms": 0.3,
            "detect.task1.score": 0.2,
            "detect.task1.max_detections": 7,
            "model.roi_batch_size": 32,
            "model.roi_positive_fraction": 0.5,
            "model.roi_levels": 2,
            "model.rpn_nms": 0.6,
        }
    )
    read = read_back(model)
    assert (read["nms"], read["score"], read["max_detections"]) == (0.3, 0.2, 7)
    assert (read["roi_batch_size"], read["roi_positive_fraction"], read["roi_levels"]) == (32, 0.5, 2)
    assert read["rpn_nms"] == 0.6
    json.dumps(read)


def test_assigning_a_name_that_torchvision_does_not_read_changes_nothing_read_back():
    model, _ = build()
    before = read_back(model)
    model.roi_heads.box_nms_thresh = 0.3  # as course report B did
    assert read_back(model) == before


def test_drawn_weights_are_shipped_small_and_load():
    assert sum(file.stat().st_size for file in DRAWN_WEIGHTS.iterdir()) <= 4_000_000
    model, loaded = build_model(TrainConfig())
    assert loaded.source == "drawn"
    assert loaded.left_out == ()
    tensors = load_tensors(DRAWN_WEIGHTS)
    name = "backbone.body.stem.0.weight"
    assert torch.equal(dict(model.named_parameters())[name], tensors[name].float())


def test_fresh_rpn_leaves_the_drawn_rpn_head_out():
    _, loaded = build_model(TrainConfig.from_flat({"model.fresh_rpn": True, "model.anchor_sizes": "8,16,32,64,128"}))
    assert loaded.left_out
    assert all(name.startswith("rpn.head.") for name in loaded.left_out)


def test_a_pretrained_rpn_head_is_not_put_under_other_anchors():
    with pytest.raises(ConfigError, match=r"set model\.fresh_rpn=true"):
        build_model(TrainConfig.from_flat({"model.anchor_sizes": "8,16,32,64,128"}))


def test_weights_from_a_folder_load_what_fits_and_name_the_rest(tmp_path):
    model, _ = build(**{"model.aspect_ratios": "1,2"})
    save_model(tmp_path / "w", model, TrainConfig())
    other, loaded = build(**{"model.weights": str(tmp_path / "w"), "model.aspect_ratios": "1,2,3"})
    assert {name.rpartition(".")[0] for name in loaded.left_out} == {"rpn.head.cls_logits", "rpn.head.bbox_pred"}
    assert torch.equal(other.roi_heads.box_predictor.cls_score.weight, model.roi_heads.box_predictor.cls_score.weight)


def test_weights_of_another_backbone_fit_nothing(tmp_path):
    model, _ = build()
    save_model(tmp_path / "w", model, TrainConfig())
    with pytest.raises(WeightsError, match=r"holds no weights that fit model\.backbone=resnet50"):
        build(**(RESNET | {"model.weights": str(tmp_path / "w")}))


@pytest.mark.parametrize("weights", ["coco", "imagenet"])
def test_a_download_that_cannot_be_had_is_one_sentence(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*args, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(WeightsError) as caught:
        build(**(RESNET | {"model.weights": weights}))
    assert "cannot be downloaded" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "--set model.weights=none" in str(caught.value)


def test_a_missing_weights_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        build(**{"model.weights": str(tmp_path / "none")})
