import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digits_core.config.reading import parse_assignment, read_toml
from digits_core.config.train_config import (
    ModelConfig,
    OptimConfig,
    TrainConfig,
    parameter_named,
    parameters,
)
from digits_core.errors import ConfigError
from digits_core.model.anchors import setting_digest
from digits_core.model.build import check_model


def values_of(parameter):
    """A strategy of values that a parameter accepts by itself."""
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if parameter.kind is bool:
        return st.booleans()
    if parameter.kind is int:
        return st.integers(int(parameter.low or 0), int(min(parameter.high or 10**6, 10**6)))
    if parameter.kind is float:
        return st.floats(parameter.low, parameter.high)
    return st.just(parameter.default)


TOGETHER = ("detect.box_fusion",)  # not allowed beside detect.box_merge

INDEPENDENT = [
    name for name in parameters() if name.partition(".")[0] in ("data", "detect", "runtime") and name not in TOGETHER
] + [
    "optim.weight_decay",
    "optim.momentum",
    "optim.step_epochs",
    "optim.batch_size",
    "model.fresh_rpn",
    "model.rpn_nms",
    "model.roi_levels",
]


@given(st.fixed_dictionaries({name: values_of(parameter_named(name)) for name in INDEPENDENT}))
def test_every_form_of_a_config_reads_back_as_the_same_config(flat):
    config = TrainConfig.from_flat(flat)
    assert TrainConfig.from_flat(config.to_flat()) == config
    assert TrainConfig.from_json(config.to_json()) == config
    assert all(config.to_flat()[name] == value for name, value in flat.items())
    tree = tomllib.loads(config.to_toml())
    assert tree["detect"]["task1"]["score"] == config.detect.task1.score


def test_toml_written_for_a_winner_is_what_config_takes(tmp_path):
    config = TrainConfig.from_flat({"model.weights": 'a "quoted" pâth', "model.trainable_layers": 2, "optim.lr": 3e-4})
    (tmp_path / "best.toml").write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_flat(read_toml(tmp_path / "best.toml")) == config


def test_digest_names_the_setting_and_not_the_seed():
    base = TrainConfig()
    assert setting_digest(base) == setting_digest(TrainConfig.from_flat({"runtime.seed": 5}))
    assert setting_digest(base) != setting_digest(TrainConfig.from_flat({"optim.lr": 1e-4}))


def test_anchor_texts_have_one_spelling():
    config = ModelConfig(anchor_sizes=" 8.0, 16 ,32,64, 128", aspect_ratios="0.50,1.0")
    assert (config.anchor_sizes, config.aspect_ratios) == ("8,16,32,64,128", "0.5,1")


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"optim.lrr": 1}, "unknown parameter 'optim.lrr'; did you mean 'optim.lr'"),
        ({"optim.lr": "fast"}, "optim.lr must be a number from 1e-08 to 10, got 'fast'"),
        ({"optim.lr": True}, "optim.lr must be a number"),
        ({"optim.lr": float("nan")}, "optim.lr must be a number"),
        ({"optim.epochs": 2.5}, "optim.epochs must be a whole number"),
        ({"optim.epochs": 0}, "optim.epochs must be a whole number from 1 to 10000, got 0"),
        ({"model.fresh_rpn": 1}, "model.fresh_rpn must be true | false"),
        ({"model.backbone": "resnet5"}, "did you mean 'resnet50'"),
        ({"model.weights": " "}, "model.weights must be none, drawn"),
        ({"model.anchor_sizes": "4,8"}, "must have 5 sizes, one per pyramid level, got 2"),
        ({"model.anchor_sizes": "4,8,x,1,1"}, "must be positive numbers, separated by commas"),
        ({"model.anchor_sizes": "0.5,8,16,32,64"}, "width or height rounds to 0"),
        ({"model.min_size": 512}, "model.max_size must be at least model.min_size (512)"),
        ({"model.rpn_bg_iou": 0.9}, "model.rpn_bg_iou must not exceed"),
        (
            {"model.backbone": "resnet18", "model.weights": "coco"},
            "model.weights=coco exists only for resnet50 and resnet50_v2",
        ),
        ({"optim.schedule": "cosine", "optim.t_max": 0}, "optim.t_max must be a whole number from 1 to 10000, got 0"),
        (
            {"optim.schedule": "cosine", "optim.lr": 1e-3, "optim.eta_min": 1e-3},
            r"optim.eta_min must be less than optim.lr",
        ),
        ({"model.backbone": "resnet50"}, "model.weights=drawn fits only model.backbone=tiny"),
        ({"model.weights": "coco"}, "model.weights=coco does not exist for model.backbone=tiny"),
        ({"optim.schedule": "cosine", "optim.eta_min": 1.0}, "optim.eta_min must be less than optim.lr"),
        ({"optim.warmup_epochs": 4.0}, "optim.warmup_epochs must be less than optim.epochs"),
        ({"detect.task2.score": 1.5}, "detect.task2.score must be a number from 0 to 1, got 1.5"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(flat, said):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_flat(flat)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_section_built_directly_is_checked_too():
    with pytest.raises(ConfigError, match=r"optim\.batch_size"):
        OptimConfig(batch_size=0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optim.lr=1e-3", 1e-3),
        ("optim.epochs = 7", 7),
        ("model.fresh_rpn=true", True),
        ("model.trainable_layers=none", None),
        ("model.trainable_layers=3", 3),
        ("model.anchor_sizes=1,2,3,4,5", "1,2,3,4,5"),
    ],
)
def test_assignments_are_typed(text, value):
    assert parse_assignment(text)[1] == value


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr=x", "model.fresh_rpn=yes", "nothing=1", "optim.epochs=1.5"])
def test_a_bad_assignment_is_refused(text):
    with pytest.raises(ConfigError):
        parse_assignment(text)


def test_terminal_escapes_in_a_value_are_shown_not_obeyed():
    with pytest.raises(ConfigError) as caught:
        parse_assignment("optim.lr=\x1b[31m1")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[optim", "invalid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[optim]\nlr = 'x'", "optim.lr must be a number"),
        (b"[optim]\nlrr = 1.0", "unknown parameter"),
        (b"lr = 1.0", "unknown parameter"),
    ],
)
def test_a_bad_config_file_is_named(tmp_path, content, said):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("text", ["", "[]", '{"optim.lr": null}', '{"a": 1}'])
def test_bad_json_is_a_config_error(text):
    with pytest.raises(ConfigError):
        TrainConfig.from_json(text)


def test_json_is_flat_names():
    assert json.loads(TrainConfig().to_json())["detect.task2.class_agnostic"] is True


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "docs" / "recipes").glob("*.toml")), ids=str)
def test_every_recipe_is_a_valid_configuration(path):
    config = TrainConfig.from_flat(read_toml(path))
    assert config != TrainConfig()
    check_model(TrainConfig.from_flat({"model.weights": "drawn"}, config))
