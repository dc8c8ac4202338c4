"""Text from a file is shown, never obeyed: no command lets a control character of a folder reach the terminal."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import write_shapes_folder
from digits_core import predict, to_onnx
from digits_core.config.train_config import TrainConfig
from digits_core.data import command as data
from digits_core.errors import UsageError
from digits_core.model.build import DRAWN_WEIGHTS
from results import compare, export, leaderboard, plots, report, runs
from results.tables.samples import write_boxes, write_samples
from search import driver, replay, retrain, run
from search.cli.settings import SearchSettings
from searched import Searched

NASTY = "\x1b]0;title\x07\x1b[31m\x9b31m\u202e\u2066\r\nforged line\x7f[bold]:smile:"
"""Escapes, their one-byte forms, letters that turn the direction, ends of lines, and what rich would obey."""

CLOSED = NASTY + "\x00[/red]"
"""And where no path is meant: the end of a style that was never begun makes rich fail."""


def plant(tree):
    """The same tree with that behind every text in it, keys of objects included."""
    if isinstance(tree, dict):
        return {f"{key}{CLOSED}": plant(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plant(value) for value in tree]
    return tree + CLOSED if isinstance(tree, str) else tree


def table(label, **parameters):
    from digits_core.model.anchors import setting_digest

    digest = setting_digest(TrainConfig.from_flat(parameters))
    return {"label": label + CLOSED, "config_hash": digest, "published": {"val_map": 0.4}, "detect": {}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny_data):
    """A run folder whose every text that may hold anything holds escapes; all its commands read it."""
    folder = tmp_path_factory.mktemp("planted") / "runs" / "r"
    made = Searched(folder)
    write_samples(folder, tiny_data.valid.table, tiny_data.valid.image)
    write_boxes(folder, tiny_data.train.table)
    for number, (quality, seed, role) in enumerate(
        [(0.9, 0, "search"), (0.9, 1, "replicate"), (0.9, 2, "replicate"), (0.3, 0, "search"), (0.3, 1, "replicate")]
    ):
        made.trial(
            f"t{number:04d}", quality, seed=seed, role=role, baseline=f"mine{CLOSED}" if number else "default",
            **{"optim.lr": 1e-3 if quality > 0.5 else 2e-3},
        )  # fmt: skip
    events = made.events
    for number, fault in enumerate(("failed", "diverged", "out_of_memory"), start=5):
        name = f"t{number:04d}"
        config = TrainConfig.from_flat({"optim.lr": 1e-2 / number, "model.weights": f"/w{NASTY}"}).to_flat()
        events.write(
            "trial", trial_id=name, space=f"s{CLOSED}", baseline=f"b{CLOSED}", config_hash=f"h{number}{CLOSED}", seed=0,
            config={**config, f"mine.p{CLOSED}": f"v{CLOSED}{number}"}, params=plant({"x": "y"}), optuna_number=None,
            trained_on=f"train{CLOSED}",
        )  # fmt: skip
        events.write("start", trial_id=name)
        events.write(
            "report", trial_id=name, epoch=1, val_map=0.2, device=f"d{CLOSED}", weights=f"w{CLOSED}", cut=f"c{CLOSED}",
            model={"num_parameters": 7, "left_out": [f"head.x{CLOSED}.y"]}, optima=plant({"x": "y"}),
            images_per_second=1.0, early_stopped=False, train_loss=1.0, val_loss=1.0, train_seconds=1.0,
            val_map_50=0.2, val_digit_accuracy=0.1, val_number_accuracy=0.1, peak_memory_bytes=1, epoch_seconds=1.0,
        )  # fmt: skip
        events.write("checkpoint", trial_id=name, path=f"tune/{CLOSED}")
        events.write("kept", trial_id=name, path=f"checkpoints/{NASTY}")
        if number == 7:
            events.write("start", trial_id=name)  # still at work
            continue
        events.write("fault", trial_id=name, fault=f"f{CLOSED}", reason=f"r{CLOSED}")
        events.write("end", trial_id=name, status=fault, reason=f"reason{CLOSED}")
    made.done()
    place = folder.parent.parent / f"data{NASTY}"
    write_shapes_folder(place, 4, 3)
    tree = json.loads((folder / "run.json").read_text())
    settings = SearchSettings(space="lr_schedules", name="r", replicates=3, replicate_top=9, scheduler="none").to_json()
    known = {
        "settings": settings | {"data": settings["data"] | {"folder": str(place)}},
        "base_config": {**TrainConfig().to_flat(), f"b{CLOSED}": f"v{CLOSED}"},
        "tables": [
            {
                "title": f"title{CLOSED}", "reading": f"as printed{CLOSED}", "note": f"note{CLOSED}",
                "other_question": {f"parameter{CLOSED}": [f"a{CLOSED}", f"b{CLOSED}"]},
                "rows": [table("good", **{"optim.lr": 1e-3}), table("poor", **{"optim.lr": 2e-3}), table("gone")],
            }
        ],
        "tables_measured_with": {f"b{CLOSED}": f"theirs{CLOSED}"},
        "space": {"name": f"s{CLOSED}", "trials": 9, "swept_settings": 1, **plant({"more": "x"})},
        "data": {**tree["data"], "folder": str(place), "categories": {f"1{CLOSED}": f"one{CLOSED}"}},
        **{name: plant(value) for name, value in {"command": ["python", "x"], "versions": {"ray": "2"}}.items()},
        **{name: plant(value) for name, value in {"git_commit": "abc", "machine": {"system": "x"}}.items()},
        "started_at": f"2026{CLOSED}",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**tree, **known}))
    (folder / "best.toml").write_text("[optim]\n" + json.dumps(f"lr{CLOSED}") + " = 1\n")
    (folder / "logs").mkdir()
    (folder / "logs" / "t0005.txt").write_text(CLOSED)
    model = shutil.copytree(DRAWN_WEIGHTS, folder / "models" / "t0000-r1")
    (model / "classes.json").write_text(
        json.dumps({"ids": list(range(1, 11)), "names": [f"{n}{CLOSED}" for n in range(10)]})
    )
    for name in ("metrics.json", "MODEL_CARD.md"):
        (model / name).write_text(json.dumps(plant({"run": "x", "scores": {"val_map": "y"}})))
    return folder


@pytest.fixture
def no_probe(monkeypatch):
    """No process that looks for torch: a resume goes on to what it refuses."""

    class NoProbe:
        def __init__(self, config):
            pass

        def findings(self, num_classes):
            raise UsageError("here the test ends it")

    monkeypatch.setattr(driver, "Probe", NoProbe)


@pytest.fixture
def planted(sound, tmp_path):
    shutil.copytree(sound.parent.parent, tmp_path / "copy")
    return tmp_path / "copy" / "runs" / "r"


READERS = {
    "leaderboard": (leaderboard.main, ["{run}"]),
    "leaderboard --all": (leaderboard.main, ["{run}", "--all"]),
    "leaderboard --rebuild": (leaderboard.main, ["{run}", "--rebuild"]),
    "leaderboard of several": (leaderboard.main, ["{run}", "{run}"]),
    "compare": (compare.main, ["{run}"]),
    "compare --trials": (compare.main, ["{run}", "--trials", "t0000,t0003"]),
    "compare --by parameter": (compare.main, ["{run}", "--by", "optim.lr"]),
    "compare --by baseline": (compare.main, ["{run}", "--by", "baseline"]),
    "compare --by table": (compare.main, ["{run}", "--by", "table"]),
    "compare --by nothing": (compare.main, ["{run}", "--by", "mine.p"]),
    "export csv": (export.main, ["{run}", "--format", "csv", "-o", "{out}"]),
    "export json": (export.main, ["{run}", "--format", "json", "-o", "{out}"]),
    "export md": (export.main, ["{run}", "--format", "md", "-o", "{out}"]),
    "export latex": (export.main, ["{run}", "--format", "latex", "-o", "{out}"]),
    "export epochs": (export.main, ["{run}", "--table", "epochs", "--format", "csv", "-o", "{out}"]),
    "runs": (runs.main, ["{runs}"]),
    "runs --remove": (runs.main, ["{runs}", "--remove", "r"]),
    "runs --remove --yes": (runs.main, ["{runs}", "--remove", "r", "--yes"]),
    "report": (report.main, ["{run}", "-o", "{out}"]),
    "plots": (plots.main, ["{run}", "-o", "{out}"]),
    "status": (run.main, ["--status", "{run}"]),
    "resume": (run.main, ["--resume", "r", "--out", "{runs}"]),
    "rescore": (run.main, ["--space", "thresholds", "--from", "{run}:t0007", "--dry-run", "--out", "{runs}"]),
    "config": (run.main, ["--space", "lr_schedules", "--config", "{run}/best.toml", "--dry-run"]),
    "replay": (replay.main, ["{run}"]),
    "retrain": (retrain.main, ["{run}"]),
    "retrain a failed one": (retrain.main, ["{run}", "--trial", "t0005"]),
    "predict": (predict.main, ["{run}/models/t0000-r1", "{images}", "-o", "{out}", "--device", "cpu", "--draw", "1"]),
    "onnx": (to_onnx.main, ["{run}/models/t0000-r1", "-o", "{out}.onnx", "--check", "2"]),
    "data": (data.main, ["check", "{data}"]),
}


def told(capfd, main, *arguments):
    """Run a command; its exit code and all that it printed, libraries included."""
    capfd.readouterr()
    try:
        code = main([str(one) for one in arguments])
    except SystemExit as ended:
        code = ended.code
    captured = capfd.readouterr()
    return code, captured.out + captured.err


def assert_plain(text):
    hidden = {letter for letter in text if letter != "\n" and not letter.isprintable()}
    assert not hidden, (hidden, text)
    assert not any(line.lstrip().startswith("forged line") for line in text.split("\n")), text
    assert "\N{SMILING FACE WITH OPEN MOUTH AND SMILING EYES}" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", READERS)
def test_no_control_character_of_a_run_folder_reaches_the_terminal(
    name, planted, tmp_path, tiny_folder, capfd, no_probe
):
    main, arguments = READERS[name]
    [place] = planted.parent.parent.glob("data*")
    tree = json.loads((planted / "run.json").read_text())
    tree["settings"]["data"]["folder"] = str(place)
    (planted / "run.json").write_text(json.dumps(tree))
    places = {
        "run": planted, "runs": planted.parent, "out": tmp_path / "out", "images": tiny_folder / "valid", "data": place,
    }  # fmt: skip
    code, text = told(capfd, main, *(one.format(**places) for one in arguments))
    assert code in (0, 1, 2), (code, text)
    assert text
    assert_plain(text)


def leaves(tree, path=()):
    """The place of every text in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if isinstance(value, str):
            yield (*path, key)
        else:
            yield from leaves(value, (*path, key))


def changed(tree, path):
    """The tree with escapes behind the text at one place."""
    tree = json.loads(json.dumps(tree))
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] += CLOSED
    return tree


def test_every_text_of_a_run_file_may_be_wrong_and_is_shown_when_it_is_refused(planted, capfd, no_probe):
    tree = json.loads((planted / "run.json").read_text())
    tree["base_config"].pop(f"b{CLOSED}")
    places = [
        path
        for path in leaves({"settings": tree["settings"], "base_config": tree["base_config"], "data": tree["data"]})
    ]
    assert len(places) > 20
    for path in places:
        (planted / "run.json").write_text(json.dumps(changed(tree, path)))
        for main, arguments in (
            (run.main, ["--status", planted]),
            (run.main, ["--resume", "r", "--out", planted.parent]),
            (compare.main, [planted, "--by", "table"]),
        ):
            code, text = told(capfd, main, *arguments)
            assert code in (0, 1, 2), (path, code, text)
            assert_plain(text)


def test_every_text_of_a_record_may_be_wrong_and_is_shown_when_it_is_refused(planted, capfd):
    lines = (planted / "events.jsonl").read_text().splitlines()
    firsts = {}
    for number, line in enumerate(lines):
        event = json.loads(line)
        for path in leaves(event):
            if path[0] != "config" or path[1] in ("model.weights", "optim.schedule"):
                firsts.setdefault((event["kind"], *path), number)
    assert len(firsts) > 20
    for (_, *path), number in firsts.items():
        wrong = [*lines[:number], json.dumps(changed(json.loads(lines[number]), path)), *lines[number + 1 :]]
        (planted / "events.jsonl").write_text("\n".join([*wrong, ""]))
        for main, arguments in (
            (run.main, ["--status", planted]),
            (runs.main, [planted.parent]),
            (compare.main, [planted]),
            (replay.main, [planted]),
        ):
            code, text = told(capfd, main, *arguments)
            assert code in (0, 1, 2), (path, code, text)
            assert_plain(text)


def test_texts_of_tables_are_shown(planted, tmp_path, capfd):
    assert told(capfd, leaderboard.main, planted, "--rebuild")[0] == 0
    for path in (planted / "leaderboard.parquet", planted / "epochs.parquet"):
        before = pq.read_table(path)
        columns = [
            pa.array([None if value is None else value + CLOSED for value in column.to_pylist()], pa.string())
            if pa.types.is_string(column.type)
            else column
            for column in before.columns
        ]
        pq.write_table(pa.table(columns, schema=before.schema), path)
    for main, arguments in (
        (leaderboard.main, [planted]),
        (leaderboard.main, [planted, "--all"]),
        (export.main, [planted, "--format", "md", "-o", tmp_path / "out.md"]),
        (export.main, [planted, "--table", "epochs", "--format", "latex", "-o", tmp_path / "out.tex"]),
    ):
        code, text = told(capfd, main, *arguments)
        assert code == 0, text
        assert_plain(text)
    assert_plain((tmp_path / "out.md").read_text())
    assert_plain((tmp_path / "out.tex").read_text())


def test_what_a_file_says_of_itself_is_shown_when_it_is_refused(planted, tmp_path, tiny_folder, capfd):
    for path in (
        planted / "leaderboard.parquet",
        *(planted / "matches").glob("t000*.parquet"),
        planted / "samples.parquet",
    ):
        table = pa.table({f"x{CLOSED}": ["y"]}, metadata={"schema_version": f"3{CLOSED}"})
        pq.write_table(table, path)
    for main, arguments in (
        (leaderboard.main, [planted]),
        (compare.main, [planted]),
        (plots.main, [planted, "-o", tmp_path / "plots"]),
        (report.main, [planted, "-o", tmp_path / "page.html"]),
    ):
        code, text = told(capfd, main, *arguments)
        assert code in (0, 2), (code, text)
        assert_plain(text)
    model = planted / "models" / "t0000-r1"
    known = json.loads((model / "config.json").read_text())
    for path in leaves(known):
        (model / "config.json").write_text(json.dumps(changed(known, path)))
        code, text = told(capfd, predict.main, model, tiny_folder / "valid", "-o", tmp_path / "out", "--device", "cpu")
        assert code == (0 if path == ("model.weights",) else 2), (path, text)  # the weights are those beside it
        assert_plain(text)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
