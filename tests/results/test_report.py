"""The report page as a file: one, whole, harmless, and right."""

import csv
import io
import json
import re

import pytest
from told import HOSTILE, told_run

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from results import open_run, read_leaderboard, report, write_report
from results.page.board import board_of, decimals
from results.page.content import content_of
from results.page.gallery import gallery_of
from results.page.origin import origin_of
from results.page.panels import panels_of
from results.tables.parquet import read_arrow, write_table
from results.tables.samples import worst_images
from searched import Searched


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("runs") / "told")


@pytest.fixture(scope="module")
def page(folder):
    return report.render([open_run(folder)])


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def without_scripts(page):
    return re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)


def test_the_first_screen_says_who_leads_by_what_and_whether_it_is_real(page, folder):
    text = re.sub(r"<[^>]+>|\s+", " ", without_scripts(page))
    text = re.sub(r"\s+", " ", text)
    [best] = read_leaderboard(folder).head(1).to_dict("records")
    assert f"{best['trial_id']} (default) is the best trial" in text
    assert f"{best['val_map']:.2f}" in text
    assert "Is the difference significant?" in text
    assert "against the second" in text
    assert "digit-search retrain" in text
    assert "space anchors,lr_schedules" in text


def test_a_run_with_one_configuration_is_not_told_to_compare(page, folder, tmp_path):
    assert f"digit-search compare {folder}" in page
    made = Searched(tmp_path / "runs" / "one")
    made.trial("t0000", 0.9)
    assert "digit-search compare" not in report.render([open_run(made.done())])


def test_a_caption_does_not_break_between_image_and_its_number(page):
    captions = re.findall(r"<figcaption>.*?</figcaption>", page)
    assert any("image&nbsp;" in caption for caption in captions)
    assert not any(re.search(r"image \d", caption) for caption in captions)


def test_the_tags_of_a_run_are_in_its_header_as_text(tmp_path):
    folder = told_run(tmp_path / "runs" / "tagged", trials=3)
    assert "tags: " not in without_scripts(report.render([open_run(folder)]))
    (folder / "tags.txt").write_text("<b>bold</b>\nsvhn\n")
    page = report.render([open_run(folder)])
    assert "tags: &lt;b&gt;bold&lt;/b&gt;, svhn" in page[: page.index('aria-label="Result"')]


def test_the_note_of_a_run_is_in_its_header_as_text(tmp_path):
    folder = told_run(tmp_path / "runs" / "noted", trials=3)
    assert "note: " not in without_scripts(report.render([open_run(folder)]))
    (folder / "note.txt").write_text("the <b>corrected</b> labels\n")
    page = report.render([open_run(folder)])
    assert "note: the &lt;b&gt;corrected&lt;/b&gt; labels" in page[: page.index('aria-label="Result"')]


def test_the_page_asks_for_nothing_from_anywhere(page):
    loaded = re.findall(r'(?:src|href)="([^"]*)"', without_scripts(page))
    assert loaded
    assert all(one.startswith(("data:", "#")) for one in loaded), loaded
    assert "default-src 'none'" in page


def test_a_page_grows_by_a_few_kilobytes_for_each_trial(tmp_path):
    few, many = (
        write_report([open_run(told_run(tmp_path / f"{trials}", trials=trials))], tmp_path / "report.html")
        for trials in (10, 50)
    )
    assert few < 6_000_000  # most of it is Plotly
    assert (many - few) / 40 < 15_000


def test_names_of_strangers_stay_text(tmp_path):
    folder = told_run(tmp_path / "runs" / "hostile", baseline=HOSTILE)
    about = json.loads((folder / "run.json").read_text())
    about["settings"]["space"] = about["data"]["folder"] = HOSTILE
    about["data"]["categories"] = {str(number): HOSTILE for number in range(1, 11)}
    (folder / "run.json").write_text(json.dumps(about))
    page = report.render([open_run(folder)])
    assert "<img" not in page.replace(r"\u003cimg", "")
    assert page.count("</script>") == 3  # data, plotly, ours
    assert data_of(page)["runs"][0]["details"]


def section(page, name):
    return re.search(rf'<section id="r0-{name}">(.*?)</section>', page, re.DOTALL)[1]


def words_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).strip()


def test_the_page_has_the_panels_of_the_evaluation_at_the_winners_thresholds(page, folder):
    from results.tables.matches import matches_path, read_matches
    from results.views.evaluation import evaluation_of, tables_of

    opened = open_run(folder)
    winner = opened.record.winner()
    stored = read_matches(matches_path(folder, winner.trial_id, "val"))
    detect = TrainConfig.from_flat(winner.config).detect
    shown = words_of(section(page, "evaluation"))
    for title, columns, rows in tables_of(evaluation_of(stored, detect, str)):
        assert f"{title} {' '.join(columns)}" in shown
        for row in rows:
            assert " ".join(" ".join(row[1:]).split()) in shown
    assert f"{winner.trial_id} after epoch 3, on 40 validation images" in shown
    assert "at the thresholds of the search (Task 1: NMS " in shown
    assert f"digit-search evaluate {folder} prints the same" in shown
    figures = data_of(page)["runs"][0]["figures"]
    assert {"precision_recall", "confusion", "errors", "sizes"} <= set(figures)
    assert len(figures["precision_recall"]["data"]) == len(set(stored.truth.labels.tolist()))


def test_a_match_table_that_cannot_be_evaluated_is_said_in_a_sentence(tmp_path):
    folder = told_run(tmp_path / "runs" / "old", trials=3)
    winner = open_run(folder).record.winner().trial_id
    path = folder / "matches" / f"{winner}.parquet"
    write_table(path, read_arrow(path, "").drop_columns(["truth_boxes", "crowds", "crowd_boxes"]))
    shown = words_of(section(report.render([open_run(folder)]), "evaluation"))
    assert f"An older version wrote the match table of {winner} without the annotated boxes; train it again" in shown
    path.write_bytes(b"nothing")
    shown = words_of(section(report.render([open_run(folder)]), "evaluation"))
    assert re.search(r"best trial \S+ is damaged or no Parquet file .*\.$", shown)
    path.unlink()
    page = report.render([open_run(folder)])
    shown = words_of(section(page, "evaluation"))
    assert shown.endswith(f"There is no match table of {winner}; a training writes it at its end.")
    assert words_of(section(page, "gallery")).endswith("Not shown for the same reason.")


def test_labels_without_a_name_are_shown_by_their_number(tmp_path):
    folder = told_run(tmp_path / "runs" / "few", trials=3)
    about = json.loads((folder / "run.json").read_text())
    about["data"]["categories"] = {"1": "zero"}
    (folder / "run.json").write_text(json.dumps(about))
    shown = {
        row[0] for row in next(rows for title, _, rows in panels_of(open_run(folder))["tables"] if title == "Classes")
    }
    assert {"zero", "2", "10"} <= shown


def test_below_the_recommendation_the_page_says_how_the_search_was_started(tmp_path):
    folder = told_run(tmp_path / "runs" / "made", trials=3)
    about = json.loads((folder / "run.json").read_text())
    about["command"] = ["digit-search", "run", "--space", "anchors", "--set", "optim.lr=1e-3", "--name", "a b"]
    about["versions"] = {
        "digit-search": "9.8.7",
        "python": "3.12.1",
        "torch": "2.1.0",
        "torchvision": "0.2",
        "ray": "2.3",
    }
    about["git_commit"], about["machine"] = "abc123", {"system": "Plan 9", "cores": 64}
    (folder / "run.json").write_text(json.dumps(about))
    page = report.render([open_run(folder)])
    text = words_of(page[page.index('class="advice"') : page.index("is the best trial")])
    told = (
        "command digit-search run --space anchors --set optim.lr=1e-3 --name &#39;a b&#39; copy "
        "commit abc123 versions digit-search 9.8.7, Python 3.12.1, torch 2.1.0, torchvision 0.2, ray 2.3 "
        "machine Plan 9, 64 cores"
    )
    assert told in text


@pytest.mark.parametrize("odd", [None, [], "text", 7, {"torch": None}])
def test_what_a_run_did_not_record_of_its_start_is_said(tmp_path, odd):
    folder = told_run(tmp_path / "runs" / "made", trials=2)
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**about, **({"versions": odd, "machine": odd} if odd else {})}))
    origin = origin_of(open_run(folder))
    assert origin["command"] is None
    facts = dict(origin["facts"])
    assert facts["commit"] == facts["machine"] == "not recorded"
    assert "torch not recorded" in facts["versions"] or facts["versions"] == "not recorded"
    assert "command not recorded" in words_of(report.render([open_run(folder)]))


def test_rows_that_tie_stand_first_and_seeds_under_their_setting(folder):
    board = board_of(open_run(folder))
    first = [row["first"] for row in board["rows"]]
    assert first == sorted(first, reverse=True)
    names = [row["trial"] for row in board["rows"]]
    assert names.index("t0901") == names.index("t0000") + 1
    cells = board["rows"][names.index("t0901")]["cells"]
    assert "replicate of t0000" in cells


def test_searched_parameters_are_directly_after_the_score_and_reasons_are_last(folder):
    labels = [column.label for column in board_of(open_run(folder))["columns"]]
    shown = ["#", "trial", "mAP", "95 %", "mean of replicates", "anchor_sizes", "lr", "baseline"]
    assert [label for label in labels if label in shown] == labels[: labels.index("baseline") + 1]
    assert labels.index("lr") < labels.index("mAP@.5")
    assert "best/trained epochs" in labels


def test_baselines_are_named_before_the_parameters_if_there_are_many(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "many")
    made.trial("t0000", 0.9, baseline="default")
    many = {
        "optim.lr": 0.002, "optim.momentum": 0.8, "optim.weight_decay": 0.01, "optim.max_grad_norm": 2.0,
        "optim.batch_size": 2, "model.fresh_rpn": True, "augment.mirror": True,
    }  # fmt: skip
    made.trial("t0001", 0.8, **many)
    labels = [column.label for column in board_of(open_run(made.done()))["columns"]]
    assert labels.index("baseline") < labels.index("lr")


def test_configurations_with_a_score_are_ranked_and_replicates_are_not(folder):
    board = board_of(open_run(folder))
    assert board["columns"][0].label == "#"
    ranks = {row["trial"]: row["values"][0] for row in board["rows"]}
    assert ranks["t0901"] is None
    assert ranks["t0900"] is None  # diverged
    known = [rank for rank in ranks.values() if rank is not None]
    assert known == list(range(1, len(known) + 1))


def test_scores_have_the_decimals_that_their_intervals_support(folder):
    board = read_leaderboard(folder)
    places = decimals(board, "val_map")
    half = float((board["val_map_high"] - board["val_map_low"]).median()) / 2
    assert places <= 3 or 10**-places <= half < 10 ** -(places - 1)
    assert decimals(board.assign(val_map_low=0.5, val_map_high=0.506), "val_map") == 3
    few = board.head(2).assign(val_map=[0.8, 0.7], val_map_low=None, val_map_high=None).astype(board.dtypes)
    assert decimals(few, "val_map") == 2


def test_scores_that_two_decimals_print_alike_have_three(folder):
    few = read_leaderboard(folder).head(2)
    few = few.assign(train_map=[0.744, 0.741], val_map=[0.744, 0.741], val_map_low=0.6, val_map_high=0.8)
    assert [decimals(few, name) for name in ("val_map", "train_map")] == [3, 3]
    assert decimals(few.assign(val_map=[0.744, 0.744]), "val_map") == 2  # equal scores have no order


def test_the_caption_of_the_curves_says_how_many_lines_are_cut(page, folder):
    from results.figures.training import num_cut

    cut = num_cut(open_run(folder), "val_map")
    assert cut > 1
    assert f"chosen for the best configurations: {cut} lines are cut at" in page


def test_the_history_is_the_first_figure_after_the_learning_curves(page):
    assert re.findall(r'<figure id="r0-(\w+)"', page)[:2] == ["curves", "history"]


def test_the_csv_on_the_page_is_the_leaderboard(page, folder):
    rows = list(csv.DictReader(io.StringIO(data_of(page)["runs"][0]["csv"])))
    board = read_leaderboard(folder)
    assert [row["trial_id"] for row in rows] == board["trial_id"].tolist()
    assert [float(row["optim.lr"]) for row in rows] == board["optim.lr"].tolist()


def test_the_gallery_shows_the_worst_misses_first_and_a_sample_whatever_it_is(folder):
    opened = open_run(folder)
    gallery = gallery_of(opened)
    wrong = [one["wrong"] for one in gallery["misses"]]
    assert wrong == sorted(wrong, reverse=True)
    assert all(wrong)
    assert len(gallery["samples"]) == 12
    for one in [*gallery["misses"], *gallery["samples"]]:
        assert one["annotated"] != one["read"] or not one["wrong"]


def test_wrong_labels_are_counted_as_by_hand():
    from collections import Counter

    import numpy as np

    from digits_core.evaluation.metrics import wrong_labels

    generator = np.random.default_rng(0)
    for _ in range(50):
        image, truth_image = (np.sort(generator.integers(0, 5, 12)) for _ in range(2))
        labels, truth = (generator.integers(1, 4, 12) for _ in range(2))
        counts = wrong_labels(image, labels, truth_image, truth, 5)
        for place in range(5):
            found, known = Counter(labels[image == place].tolist()), Counter(truth[truth_image == place].tolist())
            assert counts[place] == sum((found - known).values()) + sum((known - found).values())


def test_worst_images_holds_only_what_is_wrong(folder):
    from results.tables.matches import matches_path, read_matches

    record = open_run(folder).record
    stored = read_matches(matches_path(folder, "t0009", "val"))
    worst, wrong = worst_images(stored, record.trials["t0009"].config)
    assert (wrong[worst] > 0).all()
    assert len(worst) == (wrong > 0).sum()


def test_a_run_without_any_score_has_a_page(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "new")
    made.done()
    page = report.render([open_run(tmp_path / "runs" / "new")])
    assert "No trial has a score yet" in page


def test_a_running_search_is_read_without_writing_into_its_folder(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "live")
    made.trial("t0000", 0.9)
    before = sorted(tmp_path.rglob("*"))
    opened = open_run(made.folder)
    assert opened.live
    assert not opened.ended
    page = report.render([opened], watch=5)
    assert 'data-watch="5"' in page
    assert "running: 1 of 1 trials finished" in page
    assert "t0000 leads so far" in words_of(page)
    assert "is the best trial" not in page
    assert "None: the default leads so far." in page
    assert sorted(tmp_path.rglob("*")) == before
    made.done()


def test_several_runs_share_a_page_that_says_first_which_one_leads(folder, tmp_path):
    other = told_run(tmp_path / "runs" / "other", trials=3)
    page = report.render([open_run(folder), open_run(other)])
    text = without_scripts(page)
    assert [text.index(f'id="{name}-board"') for name in ("all0", "r0", "r1")] == sorted(
        text.index(f'id="{name}-board"') for name in ("all0", "r0", "r1")
    )
    said = re.search(r"The best trials of (\w+) \(t\d+, mAP 0\.\d+\) and (\w+) \(t\d+", text[: text.index('id="all0"')])
    assert {said[1], said[2]} == {"told", "other"}


def test_several_runs_have_one_leaderboard_with_the_run_as_a_column(folder, tmp_path):
    other = told_run(tmp_path / "runs" / "other", trials=3)
    whole, *single = data_of(report.render([open_run(folder), open_run(other)]))["runs"]
    assert len(whole["rows"]) == sum(len(run["rows"]) for run in single)
    assert {row["trial"] for row in whole["rows"]} == set(whole["details"])
    rows = list(csv.DictReader(io.StringIO(whole["csv"])))
    assert {row["run"] for row in rows} == {"told", "other"}
    finished = [row for row in rows if row["role"] == "search" and row["status"] == "finished"]
    scores = [float(row["seeds_mean"] or row["val_map"]) for row in finished]
    assert len({row["run"] for row in finished[:4]}) == 2  # ranked together, not run after run
    assert scores == sorted(scores, reverse=True)


def test_the_figures_of_several_runs_have_one_entry_in_the_legend_and_one_colour_for_each_run(folder, tmp_path):
    other = told_run(tmp_path / "runs" / "other", trials=3)
    whole = data_of(report.render([open_run(folder), open_run(other)]))["runs"][0]
    assert list(whole["figures"]) == ["curves", "history"]
    for figure in whole["figures"].values():
        named = [trace for trace in figure["data"] if trace.get("showlegend")]
        assert [trace["name"] for trace in named] == ["told", "other"]
        colors = {(trace["legendgroup"], trace["line"]["color"]) for trace in figure["data"]}
        assert len(colors) == 2


def test_the_recommended_command_is_the_first_on_the_page(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.3, baseline="default")
    made.trial("t0001", 0.95, **{"optim.lr": 1e-3})
    content = content_of(open_run(made.done()), 0)
    (name, command), *others = content["commands"]
    assert name == "add replicates (recommended)"
    assert command.startswith("digit-search resume demo ")
    assert command[command.index("--replicates") :] in content["recommendation"]
    assert "--replicates 3 --replicate-top " in command
    assert others[0][0] == "train the best again"


def test_scores_of_different_data_are_not_ranked_together(folder, tmp_path, capsys):
    about = json.loads((folder / "run.json").read_text())
    other = told_run(tmp_path / "runs" / "other", trials=3)
    about["data"]["fingerprint"] = "e" * 32
    (other / "run.json").write_text(json.dumps(about))
    page = report.render([open_run(folder), open_run(other)])
    assert "Scores of different data are not ranked together: told | other." in page
    assert 'id="all0"' not in page
    about["data"]["folder"] = "numbers"
    (other / "run.json").write_text(json.dumps(about))
    assert report.main([str(folder), str(other), "-o", str(tmp_path / "both.html")]) == 0
    said = capsys.readouterr().err
    assert said == "Scores of different data are not ranked together: told (drawn) | other (numbers).\n"
    third = told_run(tmp_path / "more" / "other", trials=3)
    page = report.render([open_run(folder), open_run(other), open_run(third)])
    assert f"not ranked together: told, {third} (drawn) | {other} (numbers)." in page
    assert 'id="all0-board"' in page


def test_a_run_that_is_named_twice_is_shown_once(folder, capsys):
    assert report.main([str(folder), str(folder / ".." / folder.name)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="r0-board"' in page
    assert 'id="r1-board"' not in page


def test_several_runs_without_any_score_have_a_page(tmp_path):
    from searched import Searched

    folders = [Searched(tmp_path / "runs" / name).done() for name in ("one", "two")]
    assert "No run leads: no trial has a score yet." in report.render([open_run(one) for one in folders])


def test_the_command_writes_beside_the_run_and_says_so(folder, capsys):
    assert report.main([str(folder)]) == 0
    assert f"wrote {folder / 'report.html'}: " in capsys.readouterr().out
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: there is no such run"),
        (["RUN", "-o", "no/such/folder.html"], "-o no/such/folder.html: there is no folder no/such"),
        (["RUN", "-o", "."], "-o .: is a folder; name a file"),
    ],
)
def test_mistakes_are_a_sentence(arguments, words, folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.main([str(folder) if one == "RUN" else one for one in arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_table_of_the_winner_leaves_the_page_whole(tmp_path):
    folder = told_run(tmp_path / "runs" / "damaged", trials=3)
    (folder / "boxes.parquet").write_bytes(b"nothing")
    (folder / "misses.parquet").write_bytes(b"nothing")
    page = report.render([open_run(folder)])
    shown = words_of(section(page, "pictures"))
    assert re.search(r"Nothing to draw .*Anchors and box sizes: \S+ is damaged or no Parquet file", shown)


def test_opened_runs_have_a_word_for_themselves(folder):
    opened = open_run(folder)
    assert re.fullmatch(r"<run told: 16 trials, best t\d+ with mAP 0\.\d\d>", repr(opened))
    assert "&lt;run told" in opened._repr_html_()
    assert opened.best["model.backbone"] == "tiny"
    assert len(opened.epochs) == sum(len(one.epochs) for one in opened.record.trials.values())
    with pytest.raises(RunError):
        open_run(folder / "nowhere")


def untrained(made, name, status, reason, **parameters):
    """A trial that ended with a reason before its first epoch."""
    from digits_core.config.train_config import TrainConfig
    from digits_core.model.anchors import setting_digest

    config = TrainConfig.from_flat(parameters)
    made.events.write(
        "trial", trial_id=name, space="s", role="search", baseline=None, config=config.to_flat(), seed=0, params={},
        config_hash=setting_digest(config),
    )  # fmt: skip
    made.events.write("end", trial_id=name, status=status, reason=reason)


def test_rows_say_why_a_trial_was_screened_stopped_or_failed(tmp_path):
    from search.policy.stopping import Asha, Median
    from searched import Searched

    made = Searched(tmp_path / "runs" / "reasons")
    made.trial("t0000", 0.9)
    asha, median = Asha("val_map", 8), Median("val_map", 8)
    assert asha.decide("a", 2, 0.7) is None
    for trial in "abcd":
        median.decide(trial, 1, 0.7)
    reasons = {
        "t0001": ("screened", "screen: its anchors overlap the training digits by a mean IoU of 0.21"),
        "t0002": ("stopped", asha.decide("b", 2, 0.244)),
        "t0003": ("stopped", median.decide("e", 1, 0.1)),
        "t0004": ("diverged", "loss is nan at step 3"),
        "t0005": ("failed", None),
        "t0006": ("out_of_memory", "CUDA out of memory"),
    }
    for number, (name, (status, reason)) in enumerate(reasons.items(), start=1):
        assert reason is not None or status == "failed"
        untrained(made, name, status, reason, **{"optim.lr": number / 1000})
    made.done()
    opened = open_run(tmp_path / "runs" / "reasons")
    board = board_of(opened)
    assert board["columns"][-1].label == "reason"
    place = -1
    assert {row["trial"]: row["cells"][place] for row in board["rows"]} == {
        "t0000": "",
        "t0001": "screened, not trained: its anchors overlap the training digits by a mean IoU of 0.21",
        "t0002": "stopped by ASHA after epoch 2: mAP 0.244 is below 0.700, the limit of the best 1/2",
        "t0003": "stopped by the median rule after epoch 1: best mAP 0.100, median of the others 0.700",
        "t0004": "diverged: loss is nan at step 3",
        "t0005": "failed: no reason is recorded",
        "t0006": "out of memory: CUDA out of memory",
    }
    assert "stopped by ASHA after epoch 2" in report.render([opened])


def test_a_board_of_finished_trials_has_no_column_for_reasons(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "plain")
    made.trial("t0000", 0.9)
    board = board_of(open_run(made.done()))
    assert "reason" not in [column.label for column in board["columns"]]
