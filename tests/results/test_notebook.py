"""What a notebook calls takes names, text, paths and opened runs, and answers a mistake with a sentence."""

import re
from pathlib import Path

import pytest

import results
import search
from digits_core.errors import RunError, UsageError
from results import open_run, read_leaderboard, read_leaderboards, write_report
from search import SearchError, run_search

ROOT = Path(__file__).parents[2]


@pytest.fixture
def forms(run_folder, monkeypatch):
    """The ways to name a run."""
    monkeypatch.chdir(run_folder.parent.parent)
    return [run_folder, str(run_folder), "runs/demo", "demo", open_run(run_folder)]


def test_a_run_is_named_in_any_way(forms):
    boards = [read_leaderboard(run) for run in forms]
    assert all(board.equals(boards[0]) for board in boards)
    assert [open_run(run).name for run in forms] == ["demo"] * 5


def test_several_leaderboards_are_read_from_one_name_or_many(forms):
    for run in [*forms, "runs"]:
        assert len(read_leaderboards(run)) == 5
    assert len(read_leaderboards(forms)) == 25


def test_a_report_is_written_of_one_run_or_many(forms, tmp_path):
    for number, run in enumerate((forms[3], forms[4], [forms[0]])):
        path = tmp_path / f"{number}.html"
        assert write_report(run, str(path)) == path.stat().st_size > 0


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: read_leaderboard("dmo"), RunError, "dmo: there is no such run; .* did you mean 'demo'"),
        (lambda: read_leaderboards([]), RunError, "no run is named"),
        (lambda: open_run("nowhere"), RunError, "nowhere: there is no such run"),
        (lambda: write_report("demo", "none/page.html"), UsageError, "none/page.html: there is no folder none"),
        (lambda: write_report("demo", "runs"), UsageError, "runs: is a folder"),
        (lambda: write_report([], "page.html"), RunError, "no run is named"),
        (lambda: run_search("anchors", dry_run=True), SearchError, "dry_run starts no search"),
        (lambda: run_search("anchors", trails=3), SearchError, "no flag trails; did you mean 'trials'"),
        (lambda: run_search("anchors", resume=True), SearchError, "resume=NAME"),
    ],
)
def test_a_mistake_is_a_sentence_and_writes_nothing(forms, tmp_path, call, error, said):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=said):
        call()
    assert sorted(tmp_path.iterdir()) == before


def test_the_python_page_names_all_that_a_notebook_may_import():
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    documented = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}
    assert {*results.__all__, *search.__all__} <= documented
