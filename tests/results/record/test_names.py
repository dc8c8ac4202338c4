"""How a run is named: by its name, by its folder, or not at all."""

import json

import pytest

from digits_core.errors import RunError
from results.record.folder import RUN_FILE, find_run, find_runs, latest_run
from results.record.log import EVENTS_FILE


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, started in (("monday", "2026-01-05T10:00:00Z"), ("tuesday", "2026-01-06T10:00:00Z"), ("old", None)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / EVENTS_FILE).touch()
        if started:
            (folder / RUN_FILE).write_text(json.dumps({"started_at": started}))
    return tmp_path / "runs"


def test_a_run_is_found_by_its_name_and_by_its_folder(runs):
    assert find_run("monday").resolve() == runs / "monday"
    assert find_run("runs/monday").resolve() == runs / "monday"
    assert find_run(runs / "monday") == runs / "monday"
    assert [one.resolve() for one in find_runs(["monday", "runs/tuesday"])] == [runs / "monday", runs / "tuesday"]


def test_runs_elsewhere_are_found_by_name_too(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    assert find_run("monday", runs) == runs / "monday"


def test_no_name_means_the_latest_run_and_says_which(runs, capsys):
    assert find_run(None).resolve() == runs / "tuesday"
    assert [one.resolve() for one in find_runs([])] == [runs / "tuesday"]
    assert latest_run(runs) == runs / "tuesday"
    assert capsys.readouterr().err.splitlines() == [
        "latest run: runs/tuesday",
        "latest run: runs/tuesday",
        f"latest run: {runs / 'tuesday'}",
    ]


def test_all_names_are_listed_if_none_is_similar(runs):
    with pytest.raises(RunError, match=r"there is no such run; .*; known: .*monday"):
        find_runs(["xyz"])


def test_a_mistyped_name_is_suggested(runs):
    with pytest.raises(RunError, match=r"mondai: there is no such run; .*; did you mean 'monday'"):
        find_run("mondai")


def test_without_any_run_no_name_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match=r"no run is named, and .* has none"):
        find_runs([], tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / EVENTS_FILE).touch()
    with pytest.raises(RunError, match="has several runs; name one of them"):
        find_run(tmp_path)
