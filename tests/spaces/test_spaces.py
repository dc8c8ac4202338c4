import dataclasses

import optuna
import pytest
import torch

from digits_core.config.train_config import TrainConfig
from digits_core.errors import SpaceError
from digits_core.evaluation.sweep import NMS_VALUES, SCORE_VALUES
from digits_core.model.build import build_model, check_model
from spaces.catalogue import SPACES, get_spaces
from spaces.registry import (
    Baseline,
    Space,
    check_space,
    combine,
    enumerate_settings,
    parameter_names,
    probe,
    quiet_study,
    space,
)


def draws(one, count, seed=0):
    study = quiet_study(optuna.samplers.RandomSampler(seed=seed))
    return [one.draw(study.ask()) for _ in range(count)]


@pytest.mark.parametrize("name", SPACES)
def test_every_draw_of_every_space_makes_a_valid_config(name):
    for overrides in draws(SPACES[name], 200):
        TrainConfig.from_flat({**SPACES[name].preset, **overrides})


@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_models_for_draws_and_baselines(name):
    one = SPACES[name]
    settings = draws(one, 3) + [{**one.fixed, **baseline.overrides} for baseline in one.baselines]
    models = {TrainConfig.from_flat({**one.preset, **overrides}).model for overrides in settings}
    for model in models:
        if model.weights in ("coco", "imagenet"):  # a download
            model = dataclasses.replace(model, weights="none")
        torch.manual_seed(0)
        build_model(TrainConfig(model=model))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_says_what_it_is_and_where_its_baselines_come_from(name):
    one = SPACES[name]
    assert one.name == name
    assert one.summary
    assert all(baseline.source for baseline in one.baselines)


def test_anchors_holds_both_presets_of_the_report_and_five_sizes():
    presets = {baseline.name: baseline.overrides["model.anchor_sizes"] for baseline in SPACES["anchors"].baselines}
    assert presets == {"report B small": "4,8,12,24,48", "report B normal": "4,8,16,32,64"}
    for overrides in draws(SPACES["anchors"], 50):
        sizes = [float(size) for size in overrides["model.anchor_sizes"].split(",")]
        assert len(sizes) == 5
        assert sizes == sorted(sizes)


def test_aspect_ratios_holds_wide_and_tall_of_the_report():
    ratios = {
        baseline.name: baseline.overrides["model.aspect_ratios"] for baseline in SPACES["aspect_ratios"].baselines
    }
    assert ratios["report B wide"] == "0.25,0.5,1"
    assert ratios["report B tall"] == "1,1.5,2"


def test_schedules_holds_the_reports_rates():
    for baseline in SPACES["lr_schedules"].baselines:
        assert baseline.overrides["optim.lr"] == 1e-4
        assert baseline.overrides["optim.weight_decay"] == 1e-4
        assert baseline.overrides["optim.optimizer"] == "adamw"
    kinds = {overrides["optim.schedule"] for overrides in draws(SPACES["lr_schedules"], 60)}
    assert kinds == {"onecycle", "cosine", "step"}


@pytest.mark.parametrize("name", ["anchors", "aspect_ratios"])
def test_spaces_that_vary_anchors_start_the_rpn_head_anew_baselines_included(name):
    assert SPACES[name].fixed == {"model.fresh_rpn": True}
    assert all(overrides["model.fresh_rpn"] for overrides in draws(SPACES[name], 5))


def test_image_size_starts_the_rpn_head_anew_unless_asked_to_keep_it_which_fits_every_setting():
    one = SPACES["image_size"]
    for _, overrides in enumerate_settings(one):
        assert TrainConfig.from_flat({**one.preset, **overrides}).model.fresh_rpn
        kept = TrainConfig.from_flat({**one.preset, "model.fresh_rpn": False, **overrides})
        assert not kept.model.fresh_rpn
        assert check_model(kept).left_out == ()


def test_thresholds_and_box_merging_act_after_training():
    assert [name for name, one in SPACES.items() if one.after_training] == ["thresholds", "box_merging"]
    for _, overrides in probe(SPACES["thresholds"]):
        assert overrides["detect.task1.nms"] == overrides["detect.task2.nms"] in NMS_VALUES
        assert overrides["detect.task1.score"] in SCORE_VALUES


def test_spaces_combine():
    both = combine(get_spaces("anchors, lr_schedules"))
    assert both.fields() == SPACES["anchors"].fields() | SPACES["lr_schedules"].fields()
    assert both.fixed == {"model.fresh_rpn": True}
    assert len(both.baselines) == 5
    check_space(both, TrainConfig())
    together = combine(get_spaces("anchors,aspect_ratios"))  # both fix fresh_rpn, at the same value
    assert together.fixed == {"model.fresh_rpn": True}


def toy(name, suggest, **more):
    return Space(name=name, summary="", suggest=suggest, **more)


def _prune(trial):
    raise optuna.TrialPruned


LR = toy("a", lambda trial: {"optim.lr": trial.suggest_float("lr", 1e-4, 1e-2)})


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (toy("b", lambda trial: {"optim.lr": trial.suggest_float("rate", 1e-4, 1e-2)}), "both vary optim.lr"),
        (toy("b", lambda trial: {"optim.momentum": trial.suggest_float("lr", 0.1, 0.9)}), "parameter named 'lr'"),
        (
            toy("b", lambda trial: {"optim.momentum": trial.suggest_float("m", 0, 0.9)}, fixed={"optim.lr": 0.1}),
            "space 'b' fixes optim.lr, which 'a' sets to other values",
        ),
        (LR, "space 'a' is given twice"),
    ],
)
def test_spaces_that_clash_are_refused(other, said):
    with pytest.raises(SpaceError, match=said):
        combine([LR, other])


def test_grid_walks_conditional_spaces():
    def suggest(trial):
        kind = trial.suggest_categorical("kind", ["step", "cosine"])
        overrides = {"optim.schedule": kind}
        if kind == "step":
            overrides["optim.step_epochs"] = trial.suggest_int("every", 1, 3)
        return overrides

    found = [overrides for _, overrides in enumerate_settings(toy("g", suggest))]
    assert sorted(map(str, found)) == sorted(
        map(
            str,
            [{"optim.schedule": "cosine"}] + [{"optim.schedule": "step", "optim.step_epochs": n} for n in (1, 2, 3)],
        )
    )


def test_grid_refuses_continuous_and_endless_spaces():
    with pytest.raises(SpaceError, match="'anchor_base' is continuous; give it a step"):
        enumerate_settings(SPACES["anchors"])
    wide = toy("w", lambda trial: {"optim.step_epochs": trial.suggest_int("n", 1, 5000)})
    with pytest.raises(SpaceError, match="more than 2000 configurations"):
        enumerate_settings(wide)


def test_unknown_spaces_name_the_near_ones():
    with pytest.raises(SpaceError, match="unknown space 'anchor'; did you mean 'anchors'"):
        get_spaces("anchor")
    with pytest.raises(SpaceError, match=r"unknown space .zzz.; --list-spaces prints them all"):
        get_spaces("zzz")


USER_SPACE = """
from spaces.registry import Baseline, space

@space("mine", summary="my own", baselines=(Baseline(name="old", overrides={"optim.batch_size": 4}, source="me"),))
def mine(trial):
    return {"optim.batch_size": trial.suggest_int("batch", 2, 16)}
"""


def test_a_users_own_file_is_a_space(tmp_path):
    (tmp_path / "my_space.py").write_text(USER_SPACE)
    [found] = get_spaces(str(tmp_path / "my_space.py"))
    assert found.name == "mine"
    assert parameter_names(found) == {"batch"}
    check_space(found, TrainConfig())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("x = 1", "must define one space with @space"),
        ("import nothing_there", "ModuleNotFoundError"),
        ("def broken(:", "SyntaxError"),
        (USER_SPACE + USER_SPACE.replace("mine", "other"), "found 2"),
    ],
)
def test_a_users_file_without_a_space_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "s.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpaceError, match=said):
        get_spaces(str(path))


@pytest.mark.parametrize(
    ("suggest", "said"),
    [
        (lambda trial: {"optim.lrr": 1.0}, "draws a configuration that is not valid: unknown parameter 'optim.lrr'"),
        (lambda trial: {"optim.lr": 99.0}, "optim.lr must be a number"),
        (lambda trial: 1 / 0, "failed to draw a configuration: ZeroDivisionError"),
        (lambda trial: [1], "must return a dict of TrainConfig parameters"),
        (lambda trial: {"runtime.seed": trial.suggest_int("s", 0, 9)}, r"must not set runtime\.seed"),
        (_prune, "prunes every configuration that it draws"),
    ],
)
def test_a_space_that_draws_nonsense_is_named(suggest, said):
    with pytest.raises(SpaceError, match=said):
        check_space(toy("bad", suggest), TrainConfig())


def test_a_baseline_that_is_nonsense_is_named():
    one = space("b", summary="", baselines=(Baseline(name="x", overrides={"optim.lr": -1.0}),))(lambda trial: {})
    with pytest.raises(SpaceError, match=r"optim\.lr must be"):
        check_space(one, TrainConfig())


def test_a_grid_is_what_optunas_brute_force_walks():
    def suggest(trial):
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            return {"optim.lr": trial.suggest_float("lr", 0.1, 0.4, step=0.1)}
        if trial.suggest_int("n", 1, 7, step=3) == 4:
            raise optuna.TrialPruned
        return {"optim.step_epochs": trial.suggest_int("n", 1, 7, step=3)}

    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    study.optimize(lambda trial: bool(suggest(trial)))
    walked = [trial.params for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    found = [params for params, _ in enumerate_settings(toy("g", suggest))]
    assert len(found) == len(walked) == 6
    assert all(params in walked for params in found)
