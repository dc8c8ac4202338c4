"""--from: sweeping a trained model, without Ray and without training."""

import pytest
import torch

from conftest import introduce, report
from digits_core.config.reading import read_toml
from digits_core.config.train_config import TrainConfig
from digits_core.model.build import DRAWN_WEIGHTS
from results.record.log import EventWriter
from results.tables.matches import read_matches
from results.tables.parquet import read_table
from results.views.leaderboard import read_leaderboard
from search import run
from spaces.catalogue import SPACES
from spaces.registry import enumerate_settings


def command(*arguments):
    return run.main([str(argument) for argument in arguments])


def test_a_checkpoint_is_swept_in_a_process_without_training(tiny_folder, tmp_path, capsys):
    arguments = ["--space", "thresholds", "--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path]
    assert command(*arguments, "--name", "swept", "--set", "detect.task2.score=0.7") == 0
    out = capsys.readouterr().out
    assert "3,400 settings scored in" in out
    assert "Task 1: the best 5 of 3,4" in out
    assert " compare " not in out
    folder = tmp_path / "swept"
    [row] = read_leaderboard(folder).to_dict("records")
    assert row["status"] == "finished"
    assert row["val_map_low"] <= row["val_map"] <= row["val_map_high"]
    sweep = read_table(folder / "thresholds" / "t0000.parquet")
    assert len(sweep) == 3400
    assert row["task1_map"] == sweep["val_map"].max() >= row["val_map"]
    own = sweep[sweep["class_agnostic"] & (sweep["nms"] == 0.5) & (sweep["score"] == 0.7)].iloc[0]
    assert own["val_number_accuracy"] == pytest.approx(row["val_number_accuracy"])
    assert len(read_matches(folder / "matches" / "t0000.parquet").image_ids) == 4
    best = TrainConfig.from_flat(read_toml(folder / "best.toml"))
    assert best.detect.task1.nms == row["task1_nms"]
    assert best.detect.task2.class_agnostic == row["task2_class_agnostic"]
    for task, name in (("Task 1", "val_map"), ("Task 2", "val_number_accuracy")):
        rows = [line.split() for line in out.partition(f"{task}: the best 5 of 3,400")[2].splitlines()]
        places = {cells[0]: cells for cells in rows[:12] if cells}
        best = sweep.sort_values([name, "val_digit_accuracy"], ascending=False, kind="stable")[name].head(5)
        assert [places[place][-2] for place in "12345"] == [f"{value:.3f}" for value in best]
        assert places["1"][1] == f"{row[task.lower().replace(' ', '') + '_nms']:g}"
        assert places["own"][1] == "0.5"
    assert places["own"][4] == "0.7"


def test_the_next_commands_fit_a_run_with_one_configuration(tiny_folder, tmp_path, capsys):
    arguments = ["--space", "thresholds", "--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path]
    assert command(*arguments, "--name", "swept") == 0
    commands = capsys.readouterr().out.partition("\nnext\n")[2]
    assert " compare " not in commands
    assert " retrain " not in commands  # the model is of no run
    [config] = [line.split("--config ")[1] for line in commands.splitlines() if "--config" in line]
    assert config == str(tmp_path / "swept" / "best.toml")
    assert f"report {tmp_path / 'swept'} --open" in commands


def test_settings_of_ones_own_are_swept_beside_the_grid(tiny_folder, tmp_path):
    (tmp_path / "top.py").write_text(
        "from spaces.registry import space\n"
        "@space('top', summary='')\n"
        "def top(trial):\n"
        "    return {'detect.task1.max_detections': trial.suggest_categorical('k', [1, 2])}\n"
    )
    arguments = ["--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path, "--name", "swept"]
    assert command("--space", tmp_path / "top.py", *arguments) == 0
    sweep = read_table(tmp_path / "swept" / "thresholds" / "t0000.parquet")
    assert set(sweep["max_detections"]) == {1, 2, 100}


def test_ways_to_merge_boxes_are_rows_of_a_leaderboard_of_one_model(tiny_folder, tmp_path, capsys):
    arguments = ["--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path, "--name", "merged"]
    assert command("--space", "box_merging", *arguments) == 0
    out = capsys.readouterr().out
    assert "evaluated once" in out
    assert "All rows are one trained model" in out or "statistically tied" not in out
    assert "--replicates" not in out
    folder = tmp_path / "merged"
    board = read_leaderboard(folder).set_index("trial_id")
    ways = enumerate_settings(SPACES["box_merging"])
    assert len(board) == 1 + len(ways)
    configs = {name: TrainConfig.from_json(text) for name, text in board["config"].items()}
    assert configs["t0000"].detect == TrainConfig().detect
    seen = [tuple(configs[name].detect.before_nms.items()) for name in sorted(configs)[1:]]
    assert len(set(seen)) == len(ways)
    for name, row in board.iterrows():
        sweep = read_table(folder / "thresholds" / f"{name}.parquet")
        assert row["task1_map"] == sweep["val_map"].max()
        if name != "t0000":  # scored at its own best thresholds
            assert row["val_map"] == pytest.approx(row["task1_map"])
            assert configs[name].detect.task1.nms == row["task1_nms"]
    assert command("--space", "box_merging", "--data", tiny_folder, "--out", tmp_path) == 2
    assert "which is scored on a trained model; train first" in capsys.readouterr().err


def test_dry_run_writes_nothing(tiny_folder, tmp_path, capsys):
    arguments = ["--space", "thresholds", "--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path / "runs"]
    assert command(*arguments, "--dry-run") == 0
    assert "would sweep this model without any training" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def searched(tmp_path):
    """A run without checkpoints, and one without any score."""
    import json

    for name, value in (("gone", 0.5), ("empty", None)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        events = EventWriter(folder, name)
        events.write("run", metric="val_map", trials=1, resumed=False)
        introduce(events, "t0000")
        events.write("report", trial_id="t0000", **report(1, value))
        events.close()
        (folder / "run.json").write_text(json.dumps({"settings": {"data": {}}}))
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "nowhere"], "--from nowhere: there is no such run; name a run in {out}/"),
        (["--from", "gone"], "the checkpoint of t0000 was not kept"),
        (["--from", "gone:t0000"], "look at its sweep in {out}/gone/thresholds/t0000.parquet"),
        (["--from", "gone:t7"], "run 'gone' has no trial 't7'"),
        (["--from", "empty"], "run 'empty' has no trial with a score"),
        (["--from", "gone", "--space", "anchors"], "space 'anchors' needs training; use thresholds or box_merging"),
        (["--from", "gone", "--metric", "val_map,latency"], "--from trains nothing, so give only a metric"),
        (["--from", "gone", "--replicates", "3"], "--replicates: has no effect with --from"),
        (["--from", "gone", "--set", "optim.lr=0.1"], "only detect.* can be set"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(searched, arguments, said, capsys):
    before = sorted(searched.rglob("*"))
    space = [] if "--space" in arguments else ["--space", "thresholds"]
    assert command(*space, *arguments, "--out", searched) == 2
    error = capsys.readouterr().err
    assert said.format(out=searched) in error
    assert error.count("\n") == 1
    assert sorted(searched.rglob("*")) == before


def test_the_model_of_a_checkpoint_is_the_one_that_is_scored(tiny_folder, tmp_path, tiny_data, one_thread):
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.model.build import build_model
    from digits_core.model.checkpoint import load_config, load_model
    from digits_core.training.device import choose_dtype

    arguments = ["--space", "thresholds", "--from", DRAWN_WEIGHTS, "--data", tiny_folder, "--out", tmp_path]
    assert command(*arguments, "--name", "swept") == 0
    config = load_config(DRAWN_WEIGHTS)
    model, _ = build_model(config)
    load_model(DRAWN_WEIGHTS, model)
    dtype = choose_dtype(config.runtime.precision, torch.device("cpu"))
    one = evaluate(model, tiny_data.valid, config.detect, 0.01, batch_size=32, dtype=dtype)
    [row] = read_leaderboard(tmp_path / "swept").to_dict("records")
    assert row["val_map"] == pytest.approx(one.scores.map, abs=1e-9)


def test_a_model_of_other_classes_is_one_sentence(shapes_folder, tmp_path, capsys):
    arguments = ["--space", "thresholds", "--from", DRAWN_WEIGHTS, "--data", shapes_folder, "--out", tmp_path / "runs"]
    assert command(*arguments) == 2
    assert "detects digits, the data at" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
