"""The page that docs/make_gallery.py writes, without its searches."""

import runpy
from pathlib import Path

import pytest
from told import told_run

from results import open_run
from results.verdicts.comparison import whole_board
from results.views.winner import recommend
from spaces.catalogue import SPACES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def gallery():
    return runpy.run_path(str(ROOT / "docs" / "make_gallery.py"), run_name="gallery")


def test_each_space_is_searched_or_says_why_not(gallery):
    assert {*gallery["FLAGS"], *gallery["NOT_RUN"]} == set(SPACES)
    assert not set(gallery["FLAGS"]) & set(gallery["NOT_RUN"])


def test_the_commands_are_searches_that_the_command_line_takes(gallery):
    from search.cli.flags import build_parser

    for space in gallery["FLAGS"]:
        verb, *arguments = gallery["command_of"](space, Path("runs/gallery"))
        assert verb == "run"
        assert build_parser().parse_args(arguments).space == space


def test_a_row_has_the_trials_and_the_recommendation_of_the_run(gallery, tmp_path):
    run = open_run(told_run(tmp_path / "anchors", trials=3))
    shown = gallery["shown_of"](run, "anchors")
    assert shown.verdict == recommend(run.record, whole_board(run.record, run.folder, run.metric))
    assert shown.trials == sum(bool(trial.epochs) for trial in run.record.trials.values())
    page = gallery["page"]([shown], tmp_path)
    [row] = [line for line in page.splitlines() if line.startswith("| [`anchors`](#anchors) |")]
    assert shown.verdict in row
    assert "![" not in page  # no picture was taken
    (tmp_path / "anchors.png").write_bytes(b"")
    assert "(images/gallery/anchors.png)" in gallery["page"]([shown], tmp_path)


def test_the_page_has_a_row_for_each_space_and_small_pictures(gallery):
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| `", "| [`"))]
    assert [row.split("`")[1] for row in rows] == list(SPACES)
    for space in gallery["FLAGS"]:
        picture = ROOT / "docs" / "images" / "gallery" / f"{space}.png"
        assert f"images/gallery/{space}.png" in text
        assert 0 < picture.stat().st_size <= gallery["MAX_PICTURE_BYTES"]
