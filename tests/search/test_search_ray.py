"""Whole searches under a real local Ray, as a user starts them: a command in a separate process."""

import csv
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import optuna
import psutil
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from digits_core.config.reading import read_toml
from digits_core.config.train_config import TrainConfig
from processes import finish, wait_until
from results.record.log import read_record
from results.record.schema import THRESHOLDS
from results.views.leaderboard import read_leaderboard
from search import run
from search.monitor.summary import this_program
from search.replay import replay, training_table
from search.retrain import choose_trial

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]

SPACE = """
from spaces.registry import Baseline, space

@space("toy", summary="rates, one of them far too high", baselines=(
    Baseline(name="wild", source="test", overrides={
        "optim.lr": 10.0, "optim.optimizer": "sgd", "optim.schedule": "constant", "optim.max_grad_norm": 0.0}),
))
def toy(trial):
    return {"optim.lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True)}
"""

TINY = ["--set", "model.min_size=32", "--set", "model.max_size=128"]


def command(*arguments):
    return [sys.executable, "-m", "search.run", *arguments]


def started(*arguments):
    """A running search in its own process group, as from a shell."""
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    from digits_core.data.drawn import write_drawn_folder

    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_folder(folder, 64, 64, seed=9)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, drawn):
    """One search from start to end: its run folder and its output."""
    base = tmp_path_factory.mktemp("whole")
    (base / "toy.py").write_text(SPACE)
    code, out, errors = finish(
        started(
            *("--space", f"{base / 'toy.py'},thresholds", "--data", str(drawn), "--out", str(base / "runs")),
            *("--name", "whole", "--trials", "3", "--epochs", "3", "--keep", "2", *TINY),
            *("--replicates", "2", "--replicate-top", "1", "--confirm", "1", "--confirm-fraction", "0.5"),
        )
    )
    assert code == 0, errors
    return base / "runs" / "whole", out


def test_it_ends_with_leaderboard_winner_folder_and_next_commands(whole):
    folder, out = whole
    assert re.search(r"1\s+t000\d", out)
    assert re.search(r"winner: t000\d", out)
    assert "configurations: 3 sampled + 2 baselines (default; wild)" in out
    assert re.search(r"mAP of t000\d checked by torchmetrics [\d.]+: 0\.\d{4}", out)
    assert f"run folder  {folder}" in out
    trained = sum(len(one.epochs) for one in read_record(folder, "whole").trials.values())
    forecast = json.loads((folder / "run.json").read_text())["forecast"]["epochs"]
    assert re.search(rf"^forecast {forecast} epochs.*, trained {trained}\b", out, re.MULTILINE)
    for verb in ("board", "compare", "report"):
        assert re.search(rf"(digit-search| -m search.command) {verb} ", out), verb
    assert "dashboard: http://127.0.0.1:" in out
    assert "\x1b" not in out  # plain lines, not a terminal


def test_the_board_has_a_row_per_trial_and_the_diverged_one_keeps_its_reason(whole):
    board = read_leaderboard(whole[0]).set_index("trial_id")
    board = board[board["role"] == "search"]
    assert sorted(board.index) == [f"t{number:04d}" for number in range(5)]
    wild = board[board["baseline"] == "wild"].iloc[0]
    assert wild["status"] == "diverged"
    assert "the loss is not finite" in wild["stop_reason"]
    rest = board[board["baseline"] != "wild"]
    assert set(rest["status"]) <= {"finished", "stopped"}
    assert rest["val_map"].notna().all()
    assert (rest["trial_seconds"] >= rest["train_seconds"]).all()
    for row in rest[rest["status"] == "stopped"].to_dict("records"):
        assert row["stop_reason"].startswith("asha: val_map")
    assert "t0001 diverged" in whole[1]


def test_what_the_models_have_is_read_back_into_the_rows(whole):
    for row in read_leaderboard(whole[0]).to_dict("records"):
        if row["status"] != "diverged":
            model, config = json.loads(row["model"]), json.loads(row["config"])
            assert model["min_size"] == config["model.min_size"] == 32
            assert model["nms"] == config["detect.task1.nms"]
            assert model["num_parameters"] == row["num_parameters"]


def test_trials_ran_side_by_side(whole):
    record = read_record(whole[0], "whole")
    spans = [(trial.started_at, trial.finished_at) for trial in record.trials.values()]
    overlap = [a for a in spans for b in spans if a is not b and a[0] < b[1] and b[0] < a[1]]
    assert overlap or os.cpu_count() == 1


def test_every_report_is_one_epoch_and_in_order(whole):
    record = read_record(whole[0], "whole")
    for trial in record.trials.values():
        assert list(trial.epochs) == list(range(1, len(trial.epochs) + 1))
    events = [json.loads(line) for line in (whole[0] / "events.jsonl").read_text().splitlines()]
    reports = [(event["trial_id"], event["epoch"]) for event in events if event["kind"] == "report"]
    assert len(set(reports)) == len(reports)


def test_the_kept_checkpoint_is_the_best_epochs_and_scores_what_the_board_says(whole, drawn, one_thread):
    from digits_core.data.cache import open_data
    from digits_core.data.source import DataSource
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.model.build import build_model
    from digits_core.model.checkpoint import load_config, load_model

    folder, _ = whole
    board = read_leaderboard(folder)
    row = board[board["status"] != "diverged"].iloc[0]
    checkpoint = folder / row["checkpoint"]
    config = load_config(checkpoint)
    model, _ = build_model(config)
    load_model(checkpoint, model)
    data = open_data(DataSource(folder=str(drawn), confirm_fraction=0.5))
    import torch

    from digits_core.training.device import choose_dtype

    dtype = choose_dtype(config.runtime.precision, torch.device("cpu"))
    one = evaluate(model, data.valid, config.detect, 0.01, batch_size=32, dtype=dtype)
    scores = one.scores
    assert scores.map == pytest.approx(row["val_map"], abs=1e-4)
    assert scores.number_accuracy == pytest.approx(row["val_number_accuracy"], abs=1e-9)


def test_losers_checkpoints_are_gone(whole):
    folder, _ = whole
    board = read_leaderboard(folder)
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == set(board["trial_id"][board["checkpoint"].notna()])
    assert len(kept) == 2
    assert {path.stem for path in (folder / "matches").glob("t????.parquet")} == set(
        board["trial_id"][board["val_map"].notna() & (board["status"] != "diverged")]
    )
    there = {path.parent.name for path in (folder / "tune").glob("*/*/checkpoint_*")}
    finished_ones = set(board["trial_id"][board["status"] == "finished"])
    assert there == kept & finished_ones  # to go on from, should the run be made longer


def test_each_trained_model_is_swept_and_the_optimum_is_the_tables(whole):
    folder, _ = whole
    for row in read_leaderboard(folder).to_dict("records"):
        if row["status"] == "diverged":
            continue
        table = pq.read_table(folder / "thresholds" / f"{row['trial_id']}.parquet")
        assert table.schema.equals(THRESHOLDS)
        sweep = table.to_pandas()
        assert len(sweep) == 3400
        assert sweep["val_map"].max() == pytest.approx(row["task1_map"])
        assert sweep["val_number_accuracy"].max() == pytest.approx(row["task2_number_accuracy"])
        # the trial's own settings are of the grid
        for agnostic, score, name in ((False, 0.01, "val_map"), (True, 0.5, "val_number_accuracy")):
            mine = (sweep["class_agnostic"] == agnostic) & (sweep["nms"] == 0.5) & (sweep["score"] == score)
            assert sweep[mine].iloc[0][name] == pytest.approx(row[name])
        for name in ("map", "map_50", "digit_accuracy", "number_accuracy"):
            assert row[f"val_{name}_low"] <= row[f"val_{name}"] <= row[f"val_{name}_high"]


def test_the_best_is_replicated_and_confirmed_on_images_that_took_no_part(whole):
    folder, out = whole
    board = read_leaderboard(folder)
    record = read_record(folder, "whole")
    assert board["role"].value_counts()["replicate"] == 1
    [replicate] = board[board["role"] == "replicate"].to_dict("records")
    assert replicate["seed"] == 1
    assert replicate["epochs"] == 3
    confirms = board[board["role"] == "confirm"]
    settings = confirms.groupby("config_hash")["seed"].nunique()
    assert set(settings) == {3}
    default = next(trial for trial in record.trials.values() if trial.baseline == "default")
    assert default.config_hash in settings.index
    assert confirms["confirm_map"].notna().all()
    assert (confirms["confirm_map_low"] <= confirms["confirm_map"]).all()
    assert board[board["role"] != "confirm"]["confirm_map"].isna().all()
    assert len(list((folder / "matches").glob("*.confirm.parquet"))) == len(confirms)
    tree = json.loads((folder / "run.json").read_text())
    assert (tree["data"]["num_valid"], tree["data"]["num_confirm"]) == (32, 32)
    assert tree["data"]["fingerprint"].endswith("-confirm0.5")
    if len(settings) > 1:
        assert "confirmation (val_map" in out


def test_a_run_is_compared_and_its_model_swept_without_training(whole, tmp_path, capsys):
    from results import compare
    from search import run

    folder, _ = whole
    assert compare.main([str(folder)]) == 0
    assert "against" in capsys.readouterr().out
    arguments = ["--space", "thresholds", "--from", str(folder), "--out", str(tmp_path), "--name", "swept"]
    assert run.main(arguments) == 0
    out = capsys.readouterr().out
    assert "3,400 settings scored in" in out
    [row] = read_leaderboard(tmp_path / "swept").to_dict("records")
    source = read_record(folder, "whole").winner()
    assert row["val_map"] == pytest.approx(source.best("val_map")["val_map"], abs=1e-4)
    assert row["task2_number_accuracy"] == pytest.approx(source.optima["task2_number_accuracy"], abs=1e-9)


def test_the_winners_settings_are_a_file_that_config_takes(whole):
    folder, _ = whole
    config = TrainConfig.from_flat(read_toml(folder / "best.toml"))
    winner = read_record(folder, "whole").winner()
    assert config.optim.lr == winner.config["optim.lr"]
    assert config.detect.task2.score == winner.optima["task2_score"]


def test_optuna_knows_what_became_of_each_drawn_trial(whole):
    folder, _ = whole
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    [study] = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    record = read_record(folder, "whole")
    drawn = [trial for trial in record.trials.values() if trial.baseline is None and trial.role == "search"]
    assert len(trials) == len(drawn) == 3
    states = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    for trial in drawn:
        [mine] = [one for one in trials if one.user_attrs["trial_id"] == trial.trial_id]
        assert mine.state == states[trial.status]
        assert mine.params == trial.params
        assert mine.intermediate_values == pytest.approx({n: epoch["val_map"] for n, epoch in trial.epochs.items()})


def test_run_json_says_what_ran_on_what(whole, drawn):
    tree = json.loads((whole[0] / "run.json").read_text())
    assert tree["settings"]["trials"] == 5
    assert tree["data"]["num_train"] == 64
    assert re.fullmatch("[0-9a-f]{32}-confirm0.5", tree["data"]["fingerprint"])
    assert tree["versions"]["ray"]
    assert tree["command"][:3] == ["python", "-m", "search.run"]
    assert datetime.fromisoformat(tree["started_at"])


@pytest.mark.slow
def test_a_time_budget_ends_the_run_and_what_it_broke_off_can_go_on(tmp_path, drawn):
    code, _out, errors = finish(
        started(
            *("--space", "lr_schedules", "--data", str(drawn), "--out", str(tmp_path), "--name", "short"),
            *("--trials", "50", "--epochs", "40", "--scheduler", "median", "--time-budget", "30s", *TINY),
        )
    )
    assert code in (0, 1), errors  # 1 where the machine was too slow for a single epoch
    record = read_record(tmp_path / "short", "short")
    assert 0 < len(record.trials) < 50
    assert {trial.status for trial in record.trials.values()} <= {"stopped", "finished", "interrupted"}
    broken_off = [trial for trial in record.trials.values() if trial.stop_reason == "the time budget was used up"]
    assert broken_off
    assert {trial.status for trial in broken_off} == {"interrupted"}
    board = read_leaderboard(tmp_path / "short").set_index("trial_id")
    assert len(board) == len(record.trials)
    for trial in broken_off:
        if trial.saved is not None:  # --resume goes on from there
            assert (tmp_path / "short" / trial.saved).is_dir()
            assert board.loc[trial.trial_id, "val_map_low"] <= board.loc[trial.trial_id, "val_map_high"]


def test_ctrl_c_keeps_all_rows_and_resume_goes_on_where_it_stood(tmp_path, drawn, capsys):
    arguments = ["--out", str(tmp_path / "runs")]
    folder = tmp_path / "runs" / "held"
    process = started(
        *("--space", "lr_schedules", "--data", str(drawn), "--name", "held", "--trials", "0"),
        *("--epochs", "6", "--scheduler", "none", *TINY, *arguments),
    )
    events = folder / "events.jsonl"
    wait_until(
        lambda: events.exists() and events.read_text().count('"kind":"checkpoint"') >= 2, "a second checkpoint", process
    )
    assert run.main(["--status", str(folder)]) == 0
    status = capsys.readouterr().out
    assert f"running, written by process {process.pid} on " in status
    assert "0 of 4 trials ended" in status or "1 of 4 trials ended" in status
    assert re.search(r"t000\d +(?:epoch \d/6|starts|ends), \d+ s", status)
    titles = [" ".join(child.cmdline()) for child in psutil.Process(process.pid).children(recursive=True)]
    assert any(re.search(r"ray::digit-search t000\d ", title) for title in titles), titles
    listening = [
        ipaddress.ip_address(one.laddr.ip)
        for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in child.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert all((getattr(one, "ipv4_mapped", None) or one).is_loopback for one in listening)

    def under_way():
        trials = read_record(folder, "held").trials.values()
        return any(trial.status == "running" and 1 <= trial.num_epochs <= 2 for trial in trials)

    wait_until(under_way, "a trial with some of its epochs", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to every process of the group
    code, out, _ = finish(process)
    assert code == 130
    assert "resume held" in out
    before = read_record(folder, "held")
    assert len(read_leaderboard(folder)) == len(before.trials)
    assert {trial.status for trial in before.trials.values()} <= {"interrupted", "finished"}
    assert any(trial.status == "interrupted" and trial.num_epochs for trial in before.trials.values())
    assert run.main(["--status", str(folder)]) == 0
    status = capsys.readouterr().out
    assert ": not running" in status
    assert f"resume with {this_program()} resume held --out {shlex.quote(str(tmp_path / 'runs'))}" in status

    code, out, errors = finish(started("--resume", "held", "--trials", "+1", "--epochs", "7", *arguments))
    assert code == 0, errors
    after = read_record(folder, "held")
    assert {(trial.status, trial.num_epochs) for trial in after.trials.values()} == {("finished", 7)}
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    reports = [(line["trial_id"], line["epoch"]) for line in lines if line["kind"] == "report"]
    assert sorted(set(reports)) == [(f"t{trial:04d}", epoch) for trial in range(5) for epoch in range(1, 8)]
    assert len(reports) - len(set(reports)) <= 2  # in each slot the epoch that had no checkpoint yet
    for trial_id, trial in before.trials.items():  # what was trained is not trained again
        for epoch, values in trial.epochs.items():
            assert epoch > trial.saved_epoch or after.trials[trial_id].epochs[epoch] == values
    assert json.loads((folder / "run.json").read_text())["settings"]["epochs"] == 7
    found = replay(folder, training_table(folder))
    assert (found.drivers, found.proposals, found.differing) == (2, 5, [])


@pytest.mark.slow
@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_does_what_ctrl_c_does(to_all, tmp_path, drawn):
    """Docker and Kubernetes send the signal only to the search, systemd and Slurm also to Ray's processes."""
    process = started(
        *("--space", "lr_schedules", "--data", str(drawn), "--out", str(tmp_path), "--name", "ended"),
        *("--trials", "8", "--epochs", "30", "--scheduler", "none", *TINY),
    )
    events = tmp_path / "ended" / "events.jsonl"
    wait_until(lambda: events.exists() and '"kind":"checkpoint"' in events.read_text(), "a checkpoint", process)
    if to_all:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    assert code == 143
    assert re.search(r"1=? +t000\d", out)  # the leaderboard
    assert f"resume ended --out {shlex.quote(str(tmp_path))}" in out
    record = read_record(tmp_path / "ended", "ended")
    board = read_leaderboard(tmp_path / "ended")
    assert set(board["trial_id"]) == set(record.trials)


COMPARISON = """
from dataclasses import replace
from spaces.registry import Baseline, Row, Table, space

@space("levels", summary="two published rows", comparison=True, baselines=(
    Baseline(name="two", source="a paper", overrides={"model.roi_levels": 2}),
))
def levels(trial):
    return {"model.roi_levels": trial.suggest_categorical("levels", [4, 2])}

rows = (Row(label="four", setting="default", published={"val_map": 0.5}),
        Row(label="two", setting="two", published={"val_map": 0.4}))
levels = replace(levels, baselines=(Baseline(name="default", source="", overrides={}), *levels.baselines),
                 tables=(Table(title="Table 1", reading="as printed", rows=rows),))
"""


@pytest.mark.slow
def test_a_comparison_on_other_categories_answers_its_table(tmp_path, shapes_folder, capsys):
    from results import compare, plots

    (tmp_path / "levels.py").write_text(COMPARISON)
    code, out, errors = finish(
        started(
            *("--space", str(tmp_path / "levels.py"), "--data", str(shapes_folder), "--out", str(tmp_path)),
            *("--name", "levels", "--set", "runtime.train_sample=8"),
            *("--set", "optim.stages=1 augment.pipeline=color; 1 augment.pipeline=geometric", "--epochs", "2"),
        )
    )
    assert code == 0, errors
    assert "3 categories (circle, square, triangle): these are not digits, so no numbers are read" in out
    assert "initial weights drawn: 4 tensors do not fit this model and were left out" in out
    assert "model.roi_levels had no effect here" in out  # at this size no shape reaches a coarser level
    assert "--by table" in out
    record = read_record(tmp_path / "levels", "levels")
    assert sorted((trial.config["model.roi_levels"], trial.seed) for trial in record.trials.values()) == [
        (levels, seed) for levels in (2, 4) for seed in range(3)
    ]
    for trial in record.trials.values():
        assert sorted(trial.epochs) == [1, 2]
        assert trial.epochs[2]["train_map"] is not None
        assert trial.epochs[2]["val_number_accuracy"] is None
    assert compare.main([str(tmp_path / "levels"), "--by", "table"]) == 0
    assert (
        "four against two: noise: the weights at the best epoch are the same for each seed" in capsys.readouterr().out
    )
    assert plots.main([str(tmp_path / "levels")]) == 0
    assert (tmp_path / "levels" / "plots" / "predictions.svg").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_best_is_retrained_by_two_processes_killed_and_gone_on_with(whole, drawn, tmp_path, capsys):
    from digits_core import predict
    from digits_core.submission.files import numbered_images

    folder = shutil.copytree(whole[0], tmp_path / "again")
    best, why = choose_trial(read_record(folder, "again"), folder, "best")
    arguments = ["-m", "search.retrain", str(folder), "--epochs", "3", "--workers", "2"]

    def begin():
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    name = f"{best.trial_id}-r1"
    written = folder / "retrain" / name / "epochs.jsonl"
    process = begin()
    wait_until(lambda: written.exists() and written.read_text().count("\n") >= 1, "the first epoch", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "models").exists()
    code, out, errors = finish(begin())
    assert code == 0, errors
    assert f"retraining {best.trial_id} of {folder}: {why}" in out
    assert "optim.epochs = 3" not in out  # as in the search
    model = folder / "models" / name
    assert {path.name for path in model.iterdir()} == {
        "model.safetensors", "config.json", "classes.json", "metrics.json", "MODEL_CARD.md",
    }  # fmt: skip
    metrics = json.loads((model / "metrics.json").read_text())
    assert (metrics["parent"], metrics["workers"], metrics["epochs"]) == (best.trial_id, 2, 3)
    board = read_leaderboard(folder)
    [row] = board[board["role"] == "retrain"].to_dict("records")
    assert (row["trial_id"], row["parent"], row["trained_on"], row["status"]) == (
        name,
        best.trial_id,
        "train",
        "finished",
    )
    record = read_record(folder, "again")
    assert sorted(record.trials[name].epochs) == [1, 2, 3]
    chosen = choose_trial(record, folder, "best")[0].trial_id
    assert chosen == best.trial_id  # a retraining takes no part in the search

    # What the folder claims is what its files say: on the images that chose it, for confirm took half of valid.
    assert predict.main([str(model), str(drawn / "valid"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    read = set(pq.read_table(folder / "matches" / f"{name}.parquet").column("image_id").to_pylist())
    assert read < set(numbered_images(drawn / "valid"))
    tree = json.loads((drawn / "valid.json").read_text())
    truth = {image: sorted((row["bbox"][0] + row["bbox"][2] / 2, row["category_id"] - 1) for row in tree["annotations"]
                           if row["image_id"] == image) for image in read}  # fmt: skip
    with (tmp_path / "out" / "pred.csv").open() as file:
        said = {int(row["image_id"]): row["pred_label"] for row in csv.DictReader(file)}
    right = sum(said[image] == "".join(str(digit) for _, digit in truth[image]) for image in read)
    # batches are padded otherwise here, which may move one box over a threshold
    assert right / len(read) == pytest.approx(metrics["scores"]["val_number_accuracy"][0], abs=2.1 / len(read))
