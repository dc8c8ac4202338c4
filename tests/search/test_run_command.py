"""Mistakes of a user: one sentence, exit code 2, no files written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from digits_core.config.reading import parse_assignment
from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import open_data
from search import driver
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import data_source
from search.machine.probe import Findings, Probe, look
from search.run import build_parser, main
from spaces.catalogue import space_files


def run(*arguments):
    """Exit code of the command, also when argparse exits itself."""
    try:
        return main(list(arguments))
    except SystemExit as error:
        return error.code


@pytest.fixture(scope="module")
def thin_folder(tiny_folder, tmp_path_factory):
    """The small data set with a picture that is one pixel high."""
    folder = tmp_path_factory.mktemp("data") / "thin"
    shutil.copytree(tiny_folder, folder)
    tree = json.loads((folder / "train.json").read_text())
    last = tree["images"][-1]
    last |= {"width": 40, "height": 1}
    tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] != last["id"]]
    Image.new("RGB", (40, 1)).save(folder / "train" / last["file_name"])
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--space is missing; --list-spaces prints the spaces"),
        (["--space", "anchor"], "unknown space 'anchor'; did you mean 'anchors'?"),
        (["--space", "anchors,anchors"], "space 'anchors' is given twice"),
        (["--space", "none.py"], "--space none.py: no such file"),
        (["--space", "anchors", "--until", "done"], "--until done: takes trials, settled or settled:GAIN"),
        (["--space", "anchors", "--until", "settled:2"], "an increase of the metric between 0 and 1"),
        (["--space", "anchors", "--until", "trials:0.1"], "--until trials:0.1: takes trials, settled"),
        (["--space", "anchors", "--believe", "optim.lr=0.005"], "--believe optim.lr: space 'anchors' does not vary it"),
        (["--space", "anchors", "--believe", "optim.lr"], "--believe needs NAME=VALUE"),
        (["--space", "optimizer", "--believe", "optim.lr=5"], "draws values from about"),
        (["--space", "lr_schedules", "--believe", "optim.schedule=constant"], "draws cosine, onecycle, step; believe"),
        (["--space", "thresholds", "--believe", "optim.lr=0.001"], "does not vary it; it varies nothing"),
        (["--space", "roi_levels", "--until", "settled"], "--until settled: has no effect with --sampler grid"),
        (["--space", "roi_levels", "--believe", "model.roi_levels=2"], "has no effect with --sampler grid"),
        (["--space", "anchors", "--learn-from", "nowhere"], "nowhere"),
        (["--space", "anchors", "--set", "optim.lrr=1"], "unknown parameter 'optim.lrr'; did you mean 'optim.lr'"),
        (["--space", "anchors", "--set", "optim.lr"], "--set needs NAME=VALUE"),
        (["--space", "anchors", "--set", "optim.lr=99"], "optim.lr must be a number from 1e-08 to 10"),
        (["--space", "anchors", "--set", "model.anchor_sizes=1,2,3,4,5"], "varies this parameter"),
        (["--space", "anchors", "--config", "none.toml"], "--config none.toml: cannot be read"),
        (["--space", "anchors", "--data", "/nowhere"], "--data /nowhere: no such folder; 'drawn' is the built-in data"),
        (["--space", "anchors", "--trials", "-3"], "must be a whole number from 0, or +N with --resume, got '-3'"),
        (["--space", "anchors", "--trials", "many"], "must be a whole number from 0, or +N with --resume, got 'many'"),
        (["--space", "anchors", "--trials", "+3"], "--trials +3: +N needs --resume"),
        (["--space", "anchors", "--disk", "plenty"], "--disk takes a size like 20G, 500M or 1.5T, got 'plenty'"),
        (["--space", "anchors", "--epochs", "0"], "must be a whole number of at least 1"),
        (["--space", "anchors", "--sampler", "best"], "invalid choice: 'best'"),
        (["--space", "anchors", "--sampler", "grid"], "'anchor_base' is continuous"),
        (["--space", "anchors", "--scheduler", "pbt"], "invalid choice: 'pbt'"),
        (["--space", "anchors", "--metric", "f1"], "--metric f1: begins with the metric to maximise"),
        (["--space", "anchors", "--time-budget", "soon"], "--time-budget takes a time like 30m"),
        (["--space", "anchors", "--name", "../x"], "a run's name is letters"),
        (["--space", "anchors", "--cpus-per-trial", "0"], "must be a number above 0"),
        (["--space", "anchors", "--cpus-per-trial", "1000"], "--cpus-per-trial 1000: there are"),
        (["--space", "anchors", "--valid-fraction", "2"], "must be between 0 and 1"),
        (["--spac", "anchors"], "unrecognized arguments"),
        (["--space", "thresholds", "--trials", "4"], "needs only one training"),
        (["--space", "anchors", "--confirm", "15"], "--confirm 15: the leaderboard will have 14 configurations"),
        (["--space", "anchors", "--confirm", "0"], "must be a whole number of at least 1, got '0'"),
        (["--space", "anchors", "--replicates", "0"], "must be a whole number of at least 1"),
        (["--space", "anchors", "--confirm-fraction", "1"], "must be a number between 0 and 1, got '1'"),
        (["--space", "anchors", "--confirm", "1", "--data", "{folder}"], "each part needs at least 30"),
        (["--space", "anchors", "--screen", "maybe"], "invalid choice: 'maybe'"),
        (["--resume", "none"], "--resume none: there is no run"),
        (["--space", "anchors", "--init-from", "none"], "--init-from none: there is no such run"),
        (["--space", "anchors", "--set", "model.backbone=resnet"], "got 'resnet'; did you mean"),
        (["--space", "anchors", "--set", "augment.pipeline=colour"], "unknown pipeline 'colour'; did you mean 'color'"),
        (["--space", "anchors", "--set", "optim.stages=1;1"], "make them equal, or give shares like 50%"),
        (["--space", "anchors", "--set", "optim.t_max=0"], "optim.t_max must be a whole number from 1"),
        (["--space", "anchors", "--set", "model.roi_levels=5"], "model.roi_levels must be a whole number from 1 to 4"),
        (
            ["--space", "lr_schedules", "--data", "{thin}", "--set", "augment.pipeline=color"],
            "augment.pipeline=color needs at least 2 px on each side",
        ),
        (
            ["--space", "lr_schedules", "--data", "{shapes}", "--metric", "val_number_accuracy"],
            "the categories of this data are no digits, so there are no numbers; use val_map",
        ),
        (["--space", "anchors", "--set", "model.fresh_rpn=false"], "--set model.fresh_rpn: space 'anchors' needs"),
        (["--space", "anchors", "--set", "runtime.seed=3"], "--set runtime.seed: use the flag --seed"),
        (["--space", "anchors", "--dashboard-port", "70000"], "must be a port from 1024 to 65535, got '70000'"),
        (["--space", "anchors", "--valid-json", "val.json", "--data", "{folder}"], "contains no such file"),
        (["--resume", "none", "--seed", "3"], "--seed: a resumed run keeps its settings"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments, said, capsys, tmp_path, monkeypatch, tiny_folder, shapes_folder, thin_folder
):
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch)
    assert run(*(text.format(folder=tiny_folder, shapes=shapes_folder, thin=thin_folder) for text in arguments)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert error.startswith("search.run: ")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def findings(monkeypatch, **more):
    """Set the findings of the probe."""
    values = {"num_cores": 2, "num_gpus": 0, "torch_fault": None, "gpu_fault": None, "model_fault": None, **more}
    monkeypatch.setattr(driver.Probe, "findings", lambda *_: Findings(**values))


def test_a_gpu_where_there_is_none(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch)
    assert run("--space", "anchors", "--gpus-per-trial", "1") == 2
    assert "--gpus-per-trial 1: there is no GPU here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_probe_finds_this_machine():
    found = Probe({"default": TrainConfig()}).findings()
    assert found.num_cores >= 1
    assert found.torch_fault is None
    found.check(0)


def test_a_driver_too_old_for_torch(capsys, tmp_path, monkeypatch):
    import torch

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    found = look({"default": TrainConfig()})
    found.check(0)  # without GPUs the search can go on
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch, num_gpus=1, gpu_fault=found.gpu_fault)
    assert run("--space", "anchors") == 2
    error = capsys.readouterr().err
    assert "The NVIDIA driver on your system is too old" in error
    assert "--gpus-per-trial 0" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_torch_and_torchvision_that_do_not_fit(capsys, tmp_path, monkeypatch):
    import torchvision.ops

    def refuse(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    with monkeypatch.context() as broken:
        broken.setattr(torchvision.ops, "nms", refuse)
        found = look({"default": TrainConfig()})
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch, torch_fault=found.torch_fault)
    assert run("--space", "anchors") == 2
    error = capsys.readouterr().err
    assert "torch and torchvision are not compatible (operator torchvision::nms does not exist)" in error
    assert "install both from the package registry" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("model.weights=/nowhere/at/all", "/nowhere/at/all/model.safetensors: no such file"),
        ("model.min_size=32", None),
        ("model.anchor_sizes=8,16,32,64,128", "or set model.fresh_rpn=true"),
    ],
)
def test_initial_weights_that_cannot_be_had_stop_the_search_before_it_starts(
    parameter, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name, value = parse_assignment(parameter)
    found = look({"default": TrainConfig.from_flat({name: value})})
    findings(monkeypatch, model_fault=found.model_fault, weights_fault=found.weights_fault)
    if said is None:
        assert found.model_fault is None
        assert found.weights_fault is None
        return
    assert run("--space", "lr_schedules", "--set", parameter) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_weights_that_cannot_be_downloaded_stop_a_search_but_not_its_plan(capsys, tmp_path, monkeypatch, tiny_folder):
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch, download_fault="the COCO weights of resnet50 cannot be downloaded (no network)")
    arguments = ["--space", "reports", "--data", str(tiny_folder)]
    assert run(*arguments, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "would train: 11 baselines" in out
    assert "would take: not measured, because the initial weights are missing" in out
    assert "missing before the start: the COCO weights of resnet50 cannot be downloaded (no network)" in out
    assert run(*arguments) == 2
    assert "the COCO weights of resnet50 cannot be downloaded" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


MOVED = (
    "from spaces.registry import Baseline, space\n"
    "@space('moved', summary='', baselines=(Baseline(name='small', overrides={{'model.{parameter}': '{value}'}}),))\n"
    "def moved(trial):\n"
    "    return {{'optim.lr': trial.suggest_float('lr', 1e-4, 1e-3)}}\n"
)
"""A space whose baseline changes one parameter of the model."""


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("anchor_sizes", "4,8,12,24,48", "model.weights=drawn was trained with anchors 18,26,38,55,80"),
        ("weights", "/nowhere", "/nowhere/model.safetensors: no such file"),
    ],
)
def test_a_baseline_that_cannot_be_built_stops_the_search_before_it_starts(
    parameter, value, said, more, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("moved.py").write_text(MOVED.format(parameter=parameter, value=value))
    assert run("--space", "moved.py", *more) == 2
    error = capsys.readouterr().err
    assert f"search.run: baseline 'small' cannot be built: {said}" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "moved.py"]


def test_a_baseline_that_will_not_be_tried_is_not_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("moved.py").write_text(MOVED.format(parameter="anchor_sizes", value="4,8,12,24,48"))
    for trials, fault in ((1, False), (2, True)):
        plan = make_plan(SearchSettings(space="moved.py", trials=trials, space_files=space_files("moved.py")))
        found = look(plan.first_settings())
        assert (found.model_fault is not None) == fault


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_baseline_that_cannot_train_on_the_data_stops_the_search_before_it_starts(
    more, capsys, tmp_path, monkeypatch, thin_folder
):
    monkeypatch.chdir(tmp_path)
    findings(monkeypatch)
    assert run("--space", "augmentation", "--data", str(thin_folder), *more) == 2
    error = capsys.readouterr().err
    assert "baseline" in error
    assert "needs at least 2 px on each side" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "no Ray cluster answers there"),
        ("nonsense", "--address takes auto or HOST:PORT, got 'nonsense'"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_at_once_and_leaves_nothing(
    address, said, capsys, tmp_path, monkeypatch, tiny_folder
):
    monkeypatch.chdir(tmp_path)
    assert run("--space", "anchors", "--data", str(tiny_folder), "--address", address) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.glob("runs/*")) == []


def test_a_busy_dashboard_port(capsys, tmp_path, monkeypatch):
    import socket

    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("--space", "anchors", "--dashboard-port", str(taken.getsockname()[1])) == 2
    assert "is in use; omit the flag to use a free one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_start(capsys, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * 2**20})())
    assert run("--space", "anchors") == 2
    assert "the disk has 5 MiB free, a search needs at least 1024" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_permission_to_write(capsys, tmp_path, monkeypatch):
    import os

    monkeypatch.chdir(tmp_path)
    access = os.access  # root may write anywhere, so the answer is made
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and access(path, mode))
    assert run("--space", "anchors", "--out", str(tmp_path / "out")) == 2
    assert "no permission to write there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert run("--space", "anchors", "--name", "mine") == 2
    assert "exists; resume it with digit-search resume mine, or give another name" in capsys.readouterr().err


def test_bad_data_is_listed_and_nothing_is_written(capsys, tmp_path, monkeypatch, tiny_folder):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_folder, tmp_path / "data")
    (tmp_path / "data" / "train" / "3.png").unlink()
    assert run("--space", "anchors", "--data", "data") == 2
    error = capsys.readouterr().err
    assert "train/3.png, image 3: is missing\n" in error
    assert error.splitlines()[-1].startswith("search.run: the data has 1 problem")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_dry_run_says_what_would_run_and_writes_nothing(capsys, tmp_path, monkeypatch, tiny_folder):
    monkeypatch.chdir(tmp_path)
    assert (
        run("--space", "anchors,thresholds", "--data", str(tiny_folder), "--trials", "2", "--epochs", "3", "--dry-run")
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "would train: 2 sampled + 3 baselines (default; report B small; report B normal), of space anchors,thresholds"
        in out
    )
    assert "in total at most 15 epochs and 120 images" in out
    assert "forecast: about 13 epochs" in out  # three of five after epoch 2
    assert "swept on each trained model: 3,400 threshold settings" in out
    assert list(tmp_path.iterdir()) == []


def test_spaces_and_parameters_are_listed(capsys):
    assert run("--list-spaces") == 0
    assert run("--list-parameters") == 0
    out = capsys.readouterr().out
    for word in ("anchors", "aspect_ratios", "lr_schedules", "thresholds", "report B small", "optim.lr  (default"):
        assert word in out


def test_help_is_instant_because_nothing_heavy_is_imported():
    code = (
        "import sys; from search.run import build_parser; build_parser().format_help(); "
        "print([name for name in ('torch', 'ray', 'pandas', 'pyarrow', 'optuna', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def test_every_flag_has_help():
    assert all(action.help for action in build_parser()._actions)


def test_a_run_of_another_version_is_not_gone_on_with(tmp_path, monkeypatch, capsys, tiny_folder):
    findings(monkeypatch)
    settings = SearchSettings(space="lr_schedules", data=data_source(str(tiny_folder)), out=str(tmp_path), name="old")
    known = describe_run(settings, make_plan(settings), open_data(settings.data), None)
    del known["base_config"]["model.live_batch_norm"]  # a parameter that version did not have
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text(json.dumps(known))
    assert run("--resume", "old", "--out", str(tmp_path)) == 2
    assert "another version of digit-search, with other parameters, started this run" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "old").iterdir()} == {"run.json", ".lock"}  # held while it was looked at


def test_run_json_names_the_commit_the_machine_and_all_versions_that_the_report_shows(tiny_folder):
    from digits_core.command import version_of
    from results.page.origin import VERSIONS

    settings = SearchSettings(space="lr_schedules", data=data_source(str(tiny_folder)), name="new")
    known = describe_run(settings, make_plan(settings), open_data(settings.data), ["digit-search", "run"])
    assert set(VERSIONS) <= set(known["versions"])
    assert known["versions"]["digit-search"] == version_of("digit-search")
    assert {"git_commit", "machine", "command"} <= set(known)
    assert set(known["machine"]) == {"system", "cores"}
