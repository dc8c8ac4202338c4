import json

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18, resnet50
from torchvision.models.detection import fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from digits_core.config.train_config import BACKBONES, TrainConfig
from digits_core.errors import ConfigError, WeightsError
from digits_core.model.backbones import COCO_WEIGHTS
from digits_core.model.build import DRAWN_WEIGHTS, build_model, check_model, read_back
from digits_core.model.checkpoint import load_tensors, save_model

RESNET = {
    "model.backbone": "resnet50",
    "model.weights": "none",
    "model.min_size": 512,
    "model.max_size": 1024,
    "model.anchor_sizes": "32,64,128,256,512",
    "model.aspect_ratios": "0.5,1,2",
    "model.roi_output_size": 7,
}

V2 = {"model.backbone": "resnet50_v2"}


def build(**flat):
    torch.manual_seed(0)
    return build_model(TrainConfig.from_flat({"model.weights": "none", **flat}))


def in_float64(*models):
    """What each model finds on one image; in float64 no processor's rounding moves a box over a threshold."""
    image = torch.rand(3, 50, 90, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        return [model.double()([image])[0] for model in models]


def test_tiny_is_small_and_has_five_levels():
    model, _ = build()
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_500_000
    levels = model.eval().backbone(torch.zeros(1, 3, 64, 128))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]


def test_resnet50_has_the_parameters_of_the_report_frozen_batch_norm_and_all():
    model, _ = build(**RESNET)
    assert read_back(model)["num_parameters"] == 41_345_286
    assert read_back(model)["num_trained_parameters"] == 41_345_286  # without weights nothing is frozen


def test_resnet50_equals_torchvisions_own_builder_under_the_same_weights():
    ours, _ = build(**RESNET)
    theirs = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=11, min_size=32, max_size=64, box_score_thresh=0.0
    ).eval()
    ours = build(**(RESNET | {"model.min_size": 32, "model.max_size": 64, "detect.task1.score": 0.0}))[0].eval()
    ours.rpn._pre_nms_top_n = theirs.rpn._pre_nms_top_n
    ours.rpn._post_nms_top_n = theirs.rpn._post_nms_top_n
    fitting = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    ours.load_state_dict(fitting)
    # In evaluation both normalise with the running statistics; frozen batch norm adds no epsilon.
    mine, other = in_float64(ours, theirs)
    assert len(mine["boxes"]) == len(other["boxes"])
    torch.testing.assert_close(mine["boxes"], other["boxes"], atol=1e-2, rtol=1e-3)


def test_resnet50_v2_equals_torchvisions_own_builder_under_the_same_weights():
    """torchvision's builder accepts no anchor generator; for the default anchors both models are equal."""
    ours = build(**(RESNET | V2 | {"model.min_size": 32, "model.max_size": 64, "detect.task1.score": 0.0}))[0].eval()
    theirs = fasterrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=11, min_size=32, max_size=64, box_score_thresh=0.0
    ).eval()
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == {
        name: tuple(value.shape) for name, value in theirs.state_dict().items()
    }
    ours.rpn._pre_nms_top_n, ours.rpn._post_nms_top_n = theirs.rpn._pre_nms_top_n, theirs.rpn._post_nms_top_n
    ours.load_state_dict(theirs.state_dict())
    mine, other = in_float64(ours, theirs)
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(mine[name], other[name], atol=1e-3, rtol=1e-4)  # RoIAlign adds in another order


@pytest.mark.parametrize("layers", [0, 2, 5])
def test_resnet50_v2_freezes_the_same_stages_as_torchvision(layers):
    with torch.device("meta"):
        ours, _ = build(**RESNET | V2 | {"model.trainable_layers": layers})
        # without weights torchvision trains all layers, so this uses its extractor
        body = resnet50(weights=None)
    theirs = _resnet_fpn_extractor(body, layers, norm_layer=nn.BatchNorm2d)
    assert {name: value.requires_grad for name, value in ours.backbone.named_parameters()} == {
        name: value.requires_grad for name, value in theirs.named_parameters()
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_five_levels_and_takes_any_anchors(name):
    with torch.device("meta"):
        model, _ = build(**{"model.backbone": name, "model.anchor_sizes": "7,9,13,21,40", "model.aspect_ratios": "1,3"})
        levels = model.eval().backbone(torch.zeros(1, 3, 64, 128))
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert [tuple(level.shape[-2:]) for level in levels.values()] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    assert model.rpn.head.cls_logits.out_channels == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet101", "resnext50_32x4d", "resnext101_32x8d"])
def test_resnets_are_torchvisions_own_backbones(name):
    with torch.device("meta"):
        model, _ = build(**RESNET | {"model.backbone": name})
        theirs = resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=5)
    assert {key: tuple(value.shape) for key, value in model.backbone.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }


def test_frozen_batch_norm_explains_the_two_parameter_counts_of_one_model():
    """41,345,286 parameters count with frozen batch norm, 41,398,406 with trained one."""
    with torch.device("meta"):
        model, _ = build(**RESNET)
    frozen = [part for part in model.modules() if isinstance(part, FrozenBatchNorm2d)]
    assert sum(part.weight.numel() + part.bias.numel() for part in frozen) == 41_398_406 - 41_345_286


def laid_where_torchvision_looks(monkeypatch, tmp_path, url, state):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / url.rpartition("/")[2])


def test_imagenet_weights_are_loaded_from_the_file_that_torchvision_would_download(tmp_path, monkeypatch):
    torch.manual_seed(5)
    state = resnet18(weights=None).state_dict()
    laid_where_torchvision_looks(monkeypatch, tmp_path, ResNet18_Weights.IMAGENET1K_V1.url, state)
    model, loaded = build(**RESNET | {"model.backbone": "resnet18", "model.weights": "imagenet"})
    assert loaded.source == "imagenet"
    assert torch.equal(model.backbone.body.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])
    assert not model.backbone.body.conv1.weight.requires_grad  # three stages train, from the top
    assert model.backbone.body.layer2[0].conv1.weight.requires_grad


def test_live_batch_norm_is_what_torchvision_builds_from_nothing():
    model, _ = build(**RESNET | {"model.live_batch_norm": True})
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=11)
    assert read_back(model)["num_parameters"] == 41_398_406 == sum(one.numel() for one in theirs.parameters())
    assert model.state_dict().keys() == theirs.state_dict().keys()


def test_weights_trained_with_live_batch_norm_load_whole_under_frozen(tmp_path):
    live = {"model.backbone": "resnet18", "model.live_batch_norm": True}
    model, _ = build(**live)
    save_model(tmp_path / "w", model, TrainConfig.from_flat(live | {"model.weights": "none"}))
    frozen, loaded = build(**{"model.backbone": "resnet18", "model.weights": str(tmp_path / "w")})
    assert loaded.left_out == ()
    assert torch.equal(frozen.backbone.body.bn1.running_var, model.backbone.body.bn1.running_var)


def test_coco_weights_leave_out_the_predictor_of_their_own_classes(tmp_path, monkeypatch):
    torch.manual_seed(5)
    theirs = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    # the published file has frozen batch norm, which counts no batches; half precision keeps this one small
    state = {name: value.half() for name, value in theirs.state_dict().items() if value.is_floating_point()}
    laid_where_torchvision_looks(monkeypatch, tmp_path, COCO_WEIGHTS["resnet50"].url, state)
    model, loaded = build(**RESNET | {"model.weights": "coco"})
    assert {name.rpartition(".")[0] for name in loaded.left_out} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    }
    mine = model.roi_heads.box_head.fc6.weight
    assert torch.equal(mine, state["roi_heads.box_head.fc6.weight"].float())


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
    model.roi_heads.box_nms_thresh = 0.3  # as in course report B
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
    config = TrainConfig.from_flat({"model.fresh_rpn": True})
    torch.manual_seed(3)
    model, loaded = build_model(config)
    assert loaded.words is None  # fresh_rpn was set
    theirs, _ = build_model(TrainConfig())
    assert torch.equal(model.backbone.body.stem[0].weight, theirs.backbone.body.stem[0].weight)
    assert not torch.equal(model.rpn.head.cls_logits.weight, theirs.rpn.head.cls_logits.weight)


def test_a_pretrained_rpn_head_is_not_put_under_other_anchors():
    with pytest.raises(ConfigError, match=r"set model\.fresh_rpn=true"):
        build_model(TrainConfig.from_flat({"model.anchor_sizes": "8,16,32,64,128"}))


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ({"model.min_size": 96, "model.max_size": 336}, True),  # the same pixels of a larger image
        ({"model.min_size": 96, "model.max_size": 336, "model.anchor_sizes": "27,39,57,82.5,120"}, True),
        ({"model.min_size": 48, "model.max_size": 168, "model.anchor_sizes": "14,20,28,41,60"}, True),
        ({"model.min_size": 48, "model.fixed_size": 68, "model.anchor_sizes": "14,20,28,41,60"}, True),
        ({"model.min_size": 96, "model.anchor_sizes": "27,39,57,82,124"}, False),
        ({"model.anchor_sizes": "27,39,57,82,120"}, False),
        ({"model.min_size": 96, "model.anchor_sizes": "27,39,57,82,120", "model.aspect_ratios": "1.4,2"}, False),
        ({"model.min_size": 96, "model.anchor_sizes": "27,39,57,82,120", "model.aspect_ratios": "2.8,2,1.4"}, False),
        ({"model.fixed_size": 136, "model.anchor_sizes": "18,26,38,55,81.5"}, False),
    ],
)
def test_the_drawn_rpn_head_is_kept_where_anchors_are_the_same_in_pixels_or_relative_to_the_image(parameters, kept):
    config = TrainConfig.from_flat(parameters)
    if not kept:
        with pytest.raises(ConfigError, match=r"or set model\.fresh_rpn=true"):
            build_model(config)
        return
    model, loaded = build_model(config)
    assert loaded.left_out == ()
    assert torch.equal(
        model.rpn.head.cls_logits.weight, load_tensors(DRAWN_WEIGHTS)["rpn.head.cls_logits.weight"].float()
    )


@pytest.mark.parametrize("parameters", [{}, RESNET, {"model.fresh_rpn": True}, {"model.aspect_ratios": "1,2"}])
def test_a_model_that_is_only_checked_finds_what_building_it_finds(parameters):
    config = TrainConfig.from_flat(parameters)
    results = []
    for build_it in (lambda: build_model(config)[1], lambda: check_model(config)):
        try:
            results.append(build_it())
        except ConfigError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_weights_from_a_folder_load_what_fits_and_name_the_rest(tmp_path):
    model, _ = build(**{"model.aspect_ratios": "1,2"})
    save_model(tmp_path / "w", model, TrainConfig())
    other, loaded = build(**{"model.weights": str(tmp_path / "w"), "model.aspect_ratios": "1,2,3"})
    assert {name.rpartition(".")[0] for name in loaded.left_out} == {"rpn.head.cls_logits", "rpn.head.bbox_pred"}
    assert torch.equal(other.roi_heads.box_predictor.cls_score.weight, model.roi_heads.box_predictor.cls_score.weight)
    assert "4 tensors do not fit this model and were left out (rpn.head.bbox_pred, rpn.head.cls_logits)" in loaded.words


def test_weights_of_other_classes_load_all_but_the_predictor(tmp_path):
    model, _ = build()
    save_model(tmp_path / "w", model, TrainConfig())
    other, loaded = build_model(TrainConfig.from_flat({"model.weights": str(tmp_path / "w")}), num_classes=4)
    assert {name.rpartition(".")[0] for name in loaded.left_out} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    }
    assert torch.equal(other.roi_heads.box_head.fc6.weight, model.roi_heads.box_head.fc6.weight)


def test_weights_of_another_backbone_fit_nothing(tmp_path):
    model, _ = build()
    save_model(tmp_path / "w", model, TrainConfig())
    said = r"contains no weights that fit model\.backbone=resnet50; it was trained with --set model\.backbone=tiny"
    with pytest.raises(WeightsError, match=said):
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
