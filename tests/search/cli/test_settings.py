import os

import pytest

from digits_core.config.train_config import TrainConfig
from digits_core.errors import SpaceError, UsageError
from search.cli.settings import SearchSettings, length_notes, make_plan, manner, trial_words, with_baselines
from search.cli.values import data_source, parse_duration, run_name, storage_address
from search.defaults import TRIALS
from search.tune.cluster import check_dashboard, check_dashboard_port
from search.tune.slots import plan_slots
from spaces.catalogue import space_files


def test_a_plan_resolves_space_config_and_flags():
    plan = make_plan(
        SearchSettings(
            space="anchors", epochs=7, images_per_epoch=50, seed=3, fixed={"optim.lr": 1e-4}, config={"optim.lr": 1.0}
        )
    )
    flat = plan.base.to_flat()
    assert (flat["optim.epochs"], flat["data.images_per_epoch"], flat["runtime.seed"], flat["optim.lr"]) == (
        7,
        50,
        3,
        1e-4,
    )
    assert plan.trials == 12
    assert plan.sweep == []


def test_a_length_that_only_the_config_file_sets_is_noted():
    config = {"optim.epochs": 2, "data.images_per_epoch": TrainConfig().data.images_per_epoch}
    assert length_notes(SearchSettings(space="anchors", config=config)) == [
        "optim.epochs 2: from --config; --epochs N changes it"
    ]
    assert length_notes(SearchSettings(space="anchors", config=config, epochs=9)) == []


def test_thresholds_alone_train_once_and_sweep():
    plan = make_plan(SearchSettings(space="thresholds"))
    assert plan.trials == 1
    assert plan.sweep == []  # every trained model is swept over its grid
    with pytest.raises(UsageError, match="needs only one training"):
        make_plan(SearchSettings(space="thresholds", trials=3))


def test_thresholds_beside_another_space_are_swept_on_each_of_its_models():
    plan = make_plan(SearchSettings(space="anchors,thresholds", trials=5))
    assert plan.space.name == "anchors"
    assert plan.trials == 5
    assert plan.sweep == []  # every trained model is swept over its grid


def of_file(path, **more):
    """The settings of a search of a user's space file."""
    return SearchSettings(space=str(path), space_files=space_files(str(path)), **more)


def test_settings_of_ones_own_that_act_after_training_are_swept_beside_the_grid(tmp_path):
    (tmp_path / "top.py").write_text(
        "from spaces.registry import space\n"
        "@space('top', summary='')\n"
        "def top(trial):\n"
        "    return {'detect.task1.max_detections': trial.suggest_categorical('k', [5, 10, 300])}\n"
    )
    plan = make_plan(of_file(tmp_path / "top.py"))
    assert plan.trials == 1
    assert sorted(one["detect.task1.max_detections"] for one in plan.sweep) == [5, 10, 300]


def test_more_settings_to_confirm_than_the_board_will_hold_are_refused():
    with pytest.raises(
        UsageError, match="--confirm 9: the leaderboard will have 3 configurations in addition to the default"
    ):
        make_plan(SearchSettings(space="anchors", trials=4, confirm=9))


def test_a_grid_is_walked_whole_unless_fewer_are_asked_for(tmp_path):
    (tmp_path / "grid.py").write_text(
        "from spaces.registry import space\n"
        "@space('grid', summary='')\n"
        "def grid(trial):\n"
        "    return {'optim.step_epochs': trial.suggest_int('n', 1, 30)}\n"
    )
    assert make_plan(of_file(tmp_path / "grid.py", sampler="grid")).trials == 30
    assert make_plan(of_file(tmp_path / "grid.py", sampler="grid", trials=4)).trials == 4


def test_a_parameter_both_fixed_and_varied_is_refused():
    with pytest.raises(UsageError, match=r"--set optim\.lr: space 'lr_schedules' varies this parameter"):
        make_plan(SearchSettings(space="lr_schedules", fixed={"optim.lr": 1e-3}))
    make_plan(SearchSettings(space="lr_schedules", config={"optim.lr": 1e-3}))  # a file holds every parameter


def test_a_setting_that_cannot_be_is_found_before_anything_starts(tmp_path):
    (tmp_path / "late.py").write_text(
        "from spaces.registry import space\n"
        "@space('late', summary='')\n"
        "def late(trial):\n"
        "    return {'optim.warmup_epochs': trial.suggest_float('w', 3.0, 4.0)}\n"
    )
    with pytest.raises(SpaceError, match=r"space 'late' draws a configuration that is not valid: optim\.warmup_epochs"):
        make_plan(of_file(tmp_path / "late.py", epochs=2))


LATE = (
    "from spaces.registry import Baseline, space\n"
    "BASELINES = (Baseline(name='slow start', overrides={'optim.warmup_epochs': 3.0}),)\n"
    "@space('late', summary='', baselines=BASELINES, fixed={'optim.max_grad_norm': 1.0})\n"
    "def late(trial):\n"
    "    return {'optim.warmup_epochs': trial.suggest_float('w', 0.0, 1.0)}\n"
)


def test_a_baseline_that_cannot_be_is_named_before_anything_starts(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    with pytest.raises(SpaceError, match=r"space 'late': baseline 'slow start' is not valid: optim\.warmup_epochs"):
        make_plan(
            SearchSettings(
                space=str(tmp_path / "late.py"), epochs=2, space_files=space_files(str(tmp_path / "late.py"))
            )
        )


def test_a_baseline_is_looked_at_as_it_will_be_tried(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    late = str(tmp_path / "late.py")
    plan = make_plan(SearchSettings(space=f"{late},anchors", epochs=9, space_files=space_files(str(late))))
    first = plan.first_settings()
    assert list(first) == ["default", "slow start", "report B small", "report B normal"]
    assert all(config.model.fresh_rpn and config.optim.max_grad_norm == 1.0 for config in first.values())
    assert first["report B small"].optim.warmup_epochs == 0.0
    assert list(make_plan(SearchSettings(space="anchors", trials=2)).first_settings()) == ["default", "report B small"]


def test_baselines_of_one_name_are_all_among_the_first_settings(tmp_path):
    (tmp_path / "twice.py").write_text(
        LATE.replace("),)", "), Baseline(name='default', overrides={'optim.warmup_epochs': 1.0}))")
    )
    first = make_plan(
        SearchSettings(space=str(tmp_path / "twice.py"), epochs=9, space_files=space_files(str(tmp_path / "twice.py")))
    ).first_settings()
    assert [(name, config.optim.warmup_epochs) for name, config in first.items()] == [
        ("default", TrainConfig().optim.warmup_epochs),
        ("slow start", 3.0),
        ("default (2)", 1.0),
    ]


def test_settings_survive_run_json():
    settings = SearchSettings(space="anchors", trials=3, time_budget_s=5.0, fixed={"optim.lr": 1e-3})
    assert SearchSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("45s", 45)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "90", "m", "5x", "-3m", "1.5h"])
def test_a_bad_duration_is_one_sentence(text):
    with pytest.raises(UsageError, match="--time-budget takes a time like 30m"):
        parse_duration(text)


def test_run_names():
    assert run_name("my-run_1.2", "anchors") == "my-run_1.2"
    assert run_name(None, "anchors,lr_schedules").startswith("anchors-lr_schedules-")
    assert run_name(None, "dir/my space.py").startswith("my_space-")
    for bad in ("", "../x", "a/b", ".hidden", "a b", "x" * 101, "\x1b[31m"):
        with pytest.raises(UsageError, match="a run's name is letters"):
            run_name(bad, "anchors")


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "expected"),
    [
        ({"CPU": 2.0}, None, None, (2, 1, 0)),
        ({"CPU": 8.0}, 2.0, None, (4, 2, 0)),
        ({"CPU": 8.0}, 0.5, None, (16, 0.5, 0)),
        ({"CPU": 16.0, "GPU": 2.0}, None, None, (2, 8, 1)),
        ({"CPU": 16.0, "GPU": 1.0}, None, 0.25, (4, 4, 0.25)),
        ({"CPU": 16.0, "GPU": 4.0}, None, 2.0, (2, 8, 2)),
        ({"CPU": 16.0, "GPU": 4.0}, None, 0.0, (16, 1, 0)),
        ({"CPU": 2.0, "GPU": 4.0}, None, None, (2, 1, 1)),
    ],
)
def test_slots_divide_what_there_is(resources, cpus, gpus, expected):
    slots = plan_slots([resources], cpus, gpus)
    assert (slots.count, slots.cpus, slots.gpus) == expected


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "said"),
    [
        ({"CPU": 2.0}, None, 1.0, "there is no GPU here"),
        ({"CPU": 2.0, "GPU": 1.0}, None, 2.0, "--gpus-per-trial 2: there are 1"),
        ({"CPU": 8.0, "GPU": 4.0}, None, 1.5, "must be a whole number"),
        ({"CPU": 2.0}, 3.0, None, "--cpus-per-trial 3: there are 2 cores"),
    ],
)
def test_slots_that_are_not_there_are_one_sentence(resources, cpus, gpus, said):
    with pytest.raises(UsageError, match=said):
        plan_slots([resources], cpus, gpus)


def test_a_dashboard_for_others_wants_a_login_and_says_why(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert check_dashboard("127.0.0.1") is None
    with pytest.raises(UsageError, match="everybody who can connect to the dashboard can run code here"):
        check_dashboard("0.0.0.0")
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert "run code as you through Ray's job API" in check_dashboard("0.0.0.0")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    with pytest.raises(UsageError, match=r"--dashboard-host 203\.0\.113\.7: no address of this machine"):
        check_dashboard_port(None, "203.0.113.7")


def test_one_storage_has_one_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage_address("shared/") == storage_address(str(tmp_path / "shared")) == str(tmp_path / "shared")
    assert storage_address("s3://b/runs/?region=x") == storage_address("s3://b/runs?region=x") == "s3://b/runs?region=x"


@pytest.mark.parametrize("text", ["s3:/bucket/runs", "s3:bucket", "gs:/x"])
def test_an_address_with_one_slash_is_no_folder(text):
    for name, take in (("--storage", storage_address), ("--data", data_source)):
        with pytest.raises(UsageError, match=f"{name} {text}: an address has two slashes"):
            take(text)


def test_a_trial_lies_on_one_node_and_a_cluster_may_grow():
    nodes = [{"CPU": 3.0}, {"CPU": 3.0}]
    assert plan_slots(nodes, 2.0).count == 2  # not three: one would lie on both
    head = {"CPU": 0.0}
    mixed = [head, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 2.0}]
    slots = plan_slots(mixed)
    assert (slots.count, slots.cpus, slots.gpus) == (3, 2, 1)
    assert slots.description == "3 slots of 1 GPU and 2 cores each on 3 nodes"
    with pytest.raises(UsageError, match="no node has both 1 GPU and 6 cores"):
        plan_slots([{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}], 6.0)
    grown = plan_slots([head], None, 1.0, 8, grows=True)
    assert (grown.count, grown.cpus, grown.gpus) == (8, 8, 1)
    assert [plan_slots([{"CPU": 8.0}], None, None, most).count for most in (3, 30)] == [3, 8]
    with pytest.raises(UsageError, match="there is no GPU here"):
        plan_slots([head], None, 1.0, 8)


def test_a_busy_port_is_refused():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--dashboard-port {port} is in use"):
            check_dashboard_port(port)


def test_a_comparison_trains_all_alike_unless_flags_say_otherwise():
    assert manner("roi_levels", None, None, None, None) == ("grid", "none", 3, False, True)
    assert manner("roi_levels,batch_size", None, "asha", 2, "on") == ("grid", "asha", 2, True, True)
    assert manner("roi_levels,anchors", None, None, None, None) == ("tpe", "asha", 1, True, False)
    # The lengths of its trainings differ, so equal epochs are not comparable.
    assert manner("long", None, None, None, None) == ("tpe", "none", 1, True, False)
    assert manner("long,anchors", None, "asha", None, None) == ("tpe", "asha", 1, True, False)


def test_a_comparison_counts_every_setting_once():
    assert make_plan(SearchSettings(space="roi_levels", sampler="grid")).trials == 4
    assert make_plan(SearchSettings(space="roi_levels,batch_size", sampler="grid")).trials == 40


def test_what_is_set_by_hand_holds_for_baselines_too():
    plan = make_plan(SearchSettings(space="lr_schedules", fixed={"optim.weight_decay": 0.05, "optim.optimizer": "sgd"}))
    for baseline in plan.space.baselines:
        config = TrainConfig.from_flat(baseline.overrides, plan.base)
        assert (config.optim.weight_decay, config.optim.optimizer) == (0.05, "sgd")
        assert config.optim.lr == 1e-4  # what the space varies stays the baseline's


def test_what_a_space_starts_from_can_be_set_and_configured():
    assert make_plan(SearchSettings(space="backbones")).base.model.weights == "imagenet"
    for more in ({"fixed": {"model.weights": "none"}}, {"config": {"model.weights": "none"}}):
        plan = make_plan(SearchSettings(space="backbones", **more))
        assert plan.base.model.weights == "none"


def test_stages_that_undo_a_space_are_refused():
    stages = "2 optim.lr=1e-3; 2 optim.lr=1e-4"
    with pytest.raises(UsageError, match=r"every stage sets optim\.lr, which space 'optimizer' varies"):
        make_plan(SearchSettings(space="optimizer", fixed={"optim.stages": stages}))
    make_plan(SearchSettings(space="optimizer", fixed={"optim.stages": "2; 2 optim.lr=1e-4"}))


def test_thresholds_alone_can_start_from_weights():
    plan = make_plan(SearchSettings(space="thresholds", init_from="/some/folder"))
    assert (plan.trials, plan.base.model.weights) == (1, "/some/folder")


def test_baselines_of_one_name_in_two_spaces_are_both_tried():
    plan = make_plan(SearchSettings(space="roi_heads,optimizer"))
    names = [one.name for one in plan.space.baselines]
    assert "torchvision" in names
    assert "optimizer: torchvision" in names


@pytest.mark.parametrize(("space", "baselines"), [("anchors", 3), ("anchors,lr_schedules", 6), ("lr_schedules", 4)])
def test_trials_are_sampled_in_addition_to_the_baselines(space, baselines):
    settings = SearchSettings(space=space)
    assert with_baselines(settings, 5).trials == 5 + baselines
    assert with_baselines(settings, None).trials == TRIALS + baselines
    plan = make_plan(with_baselines(settings, 5))
    assert len(plan.first_settings()) == baselines
    assert trial_words(plan).startswith(f"5 sampled + {baselines} baseline{'s' * (baselines != 1)} (default")
    only = make_plan(with_baselines(settings, 0))
    assert only.trials == baselines
    assert trial_words(only).startswith(f"{baselines} baseline")


def test_a_grid_is_trained_whole_and_thresholds_need_one_training():
    assert with_baselines(SearchSettings(space="roi_levels", sampler="grid"), None).trials is None
    assert with_baselines(SearchSettings(space="thresholds"), None).trials is None
    assert make_plan(with_baselines(SearchSettings(space="thresholds"), None)).trials == 1
