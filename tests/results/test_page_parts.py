"""The parts of the report page: what runs now, captions, the arrangement of figures, the words of the evaluation."""

import re

import pytest
from test_report import section, words_of
from told import told_run

from results import open_run, report
from results.page.fill import whole
from results.page.panels import panels_of
from results.page.pictures import WIDE, arranged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("runs") / "told")


@pytest.fixture(scope="module")
def page(folder):
    return report.render([open_run(folder)])


def test_a_running_search_shows_its_trials_slots_and_time_left(tmp_path):
    from conftest import introduce, report
    from results.page.now import now_of
    from results.report import render
    from searched import Searched

    made = Searched(tmp_path / "runs" / "live")
    for name, done in (("t0000", 1), ("t0001", 0)):
        introduce(made.events, name, **{"optim.epochs": 4, "optim.lr": 0.001 + done / 1000})
        made.events.write("start", trial_id=name)
        for epoch in range(1, done + 1):
            made.events.write("report", trial_id=name, **report(epoch, 0.5) | {"epoch_seconds": 100.0})
    found = dict(now_of(open_run(made.folder)))
    assert found == {
        "t0000": "epoch 2 of 4, mAP 0.50 so far",
        "t0001": "epoch 1 of 4",
        "slots in use": "2",
        "time left": "2 min to 6 min",
    }
    page = words_of(render([open_run(made.folder)]))
    assert "Running now t0000 epoch 2 of 4" in page
    assert (
        "Thresholds for Task 1, Thresholds for Task 2: the map of t0000 is written at the end of its training" in page
    )
    assert now_of(open_run(made.done())) == []


def test_flags_are_not_broken_and_lists_are_broken_after_commas():
    assert whole("add --replicates 3") == 'add <span class="flag">--replicates</span> 3'
    assert whole("18,26") == "18,<wbr>26"
    assert whole("--x <b>, </b>") == '<span class="flag">--x</span> &lt;b&gt;,<wbr> &lt;/b&gt;'


@pytest.mark.parametrize("drawn", ["abc", "abcd", "a curves bcd", "ab parallel c slices d"])
def test_no_figure_is_alone_in_a_row_of_two(drawn):
    keys = [key for word in drawn.split() for key in ([word] if word in WIDE else word)]
    row = 0
    for picture in arranged([{"key": key, "figure": {"data": []}} for key in keys]):
        if picture["wide"]:
            assert row % 2 == 0
        else:
            row += 1
    assert row % 2 == 0


def test_figures_that_cannot_be_drawn_share_one_list(tmp_path):
    page = report.render([open_run(told_run(tmp_path / "runs" / "few", trials=4))])
    shown = words_of(section(page, "pictures"))
    assert shown.count("Nothing to draw") == 1
    assert "Parameter importance, Contour plot: needs 10 sampled configurations" in shown


def test_captions_say_what_the_figure_shows(page):
    shown = words_of(section(page, "pictures"))
    assert "over both parameters" in shown
    assert "A line that rises means overfitting if validation mAP falls at the same time" in shown


def test_errors_are_counted_and_weighed_over_different_detections(folder):
    [columns] = [columns for title, columns, _ in panels_of(open_run(folder))["tables"] if title == "Errors"]
    assert re.fullmatch(r"count above score 0\.\d\d", columns[1])
    assert columns[2] == "mAP@.5 lost at all scores"


def test_the_evaluation_says_that_the_best_thresholds_are_others(tmp_path):
    folder = told_run(tmp_path / "runs" / "swept", trials=3)
    opened = open_run(folder)
    winner = opened.record.winner()
    winner.optima_after[winner.best_epoch(opened.metric)] = {"task1_map": 0.9}
    assert "at the thresholds of the search, not the best ones above (Task 1" in panels_of(opened)["about"]
