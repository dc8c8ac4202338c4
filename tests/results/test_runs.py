import json
import time

import pytest

from results import runs
from results.record.log import EventWriter
from searched import Searched, strict_json


@pytest.fixture
def folder(tmp_path):
    for name, quality in (("first", 0.9), ("second", 0.5)):
        run = Searched(tmp_path / "runs" / name)
        run.trial("t0000", quality)
        run.done()
        tree = {"name": name, "started_at": f"2026-01-0{2 - (name == 'first')}T10:20:30Z"}
        tree["settings"] = {"space": "anchors", "data": {"folder": "/data/svhn"}}
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(tree))
    return tmp_path / "runs"


def test_runs_are_listed_with_what_they_are_about(folder, capsys):
    (folder / "third").mkdir()
    (folder / "third" / "events.jsonl").write_text("{")
    (folder / "third" / "run.json").write_text("\x1b[2J")
    assert runs.main([str(folder)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    [first] = [line for line in lines if line[:1] == ["first"]]
    assert first[:7] == ["first", "2026-01-01", "10:20", "anchors", "/data/svhn", "1", "val_map"]
    assert 0 < float(first[7]) <= 1
    assert [line[0] for line in lines if line and line[0] in ("first", "second", "third")] == [
        "third", "first", "second",
    ]  # fmt: skip
    assert any("damaged" in line for line in lines)
    assert "3 runs, " in out
    assert "\x1b" not in out


def test_json_lists_the_runs_in_the_same_order(folder, capsys):
    (folder / "third").mkdir()
    (folder / "third" / "events.jsonl").write_text("{")
    assert runs.main([str(folder), "--json"]) == 0
    listed = strict_json(capsys.readouterr().out)["runs"]
    assert [run["run"] for run in listed] == ["third", "first", "second"]
    third, first, _ = listed
    assert (third["best"], third["trials"]) == (None, 0)
    assert "run.json cannot be read" in third["fault"]
    assert (first["space"], first["data"], first["metric"], first["fault"]) == (
        "anchors",
        "/data/svhn",
        "val_map",
        None,
    )
    assert first["size_bytes"] > 0


def test_runs_are_removed_by_name_and_nothing_else(folder, capsys):
    assert runs.main([str(folder), "--remove", "first", "--yes"]) == 0
    assert "deleted 1 run" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["second"]


def test_a_run_that_is_being_written_stays_and_so_do_the_others(folder, capsys):
    events = EventWriter(folder / "second", "second")
    assert runs.main([str(folder), "--remove", "first", "second", "--yes"]) == 2
    assert "is being written by process" in capsys.readouterr().err
    events.close()
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_the_copy_of_a_run_that_is_driven_stays(folder, capsys):
    (folder / "first" / "driver.json").write_text(
        json.dumps({"driver": "process 7 on another.example, 1", "seen": time.time()})
    )
    assert runs.main([str(folder), "--remove", "first", "--yes"]) == 2
    assert "is the copy of a run that process 7 on another.example writes" in capsys.readouterr().err
    assert (folder / "first").is_dir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remove", "../runs/first", "--yes"], "--remove ../runs/first: "),
        (["--remove", "none"], "has no such run"),
        (["--remove", "first"], "needs a terminal to confirm, or --yes"),
        (["--yes"], "--yes: needs --remove"),
        (["--json", "--remove", "first", "--yes"], "--json: lists runs"),
    ],
)
def test_a_mistake_is_one_sentence(folder, arguments, said, capsys):
    assert runs.main([str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_a_person_is_asked(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda words: "no")
    assert runs.main([str(folder), "--remove", "first"]) == 0
    assert "nothing was deleted" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda words: "y")
    assert runs.main([str(folder), "--remove", "first"]) == 0
    assert not (folder / "first").exists()
