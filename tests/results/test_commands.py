import csv
import json
import re
import shutil

import openpyxl
import pyarrow.parquet as pq
import pytest

from results import export, leaderboard
from results.tables.formats import FORMATS, TEXT_FORMATS
from searched import Searched, strict_json

LR = "optim.lr"


def test_leaderboard_prints_best_first_and_says_why_not(run_folder, capsys):
    assert leaderboard.main([str(run_folder)]) == 0
    out = capsys.readouterr().out
    assert out.index("t0000") < out.index("t0001") < out.index("t0002")
    assert "0.42" in out
    assert "diverged" in out
    assert "lr" in out


def test_leaderboard_takes_several_runs_and_the_top(run_folder, capsys):
    assert leaderboard.main([str(run_folder), str(run_folder.parent), "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("t0000") == 2
    assert "and 3 more" in out


def test_rebuild_writes_the_views(run_folder, capsys):
    assert leaderboard.main([str(run_folder), "--rebuild"]) == 0
    assert (run_folder / "epochs.parquet").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_holds_every_trial(run_folder, tmp_path, form, capsys):
    path = tmp_path / f"board.{form}"
    assert export.main([str(run_folder), "--format", form, "-o", str(path)]) == 0
    assert "5 rows of 1 run" in capsys.readouterr().out
    if form == "csv":
        rows = list(csv.DictReader(path.open()))
        assert [row["trial_id"] for row in rows][:2] == ["t0000", "t0004"]
        assert rows[-1]["val_map"] == ""
        assert rows[0]["started_at"].endswith("+00:00")
    if form == "json":
        rows = json.loads(path.read_text())
        assert rows[-1]["val_map"] is None
        assert rows[0]["best_epoch"] == 2
    if form == "parquet":
        assert pq.read_table(path).num_rows == 5
        assert str(pq.read_schema(path).field("optim.lr").type) == "double"
    if form == "xlsx":
        sheet = openpyxl.load_workbook(path).active
        assert sheet.max_row == 6
        assert sheet.cell(1, 1).value == "run"
    if form == "md":
        lines = path.read_text().splitlines()
        assert len(lines) == 7
        assert lines[0] == "| trial | val_map | val_number_accuracy | epochs | status | optim.lr |"
        assert lines[2] == "| t0000 | 0.420 | 0.500 | 3 | finished | 0.001 |"
    if form == "latex":
        text = path.read_text()
        assert text.count(r"\\") == 6
        assert "val\\_map" in text


def test_epochs_are_exported_too(run_folder, tmp_path):
    path = tmp_path / "epochs.csv"
    assert export.main([str(run_folder), "--format", "csv", "--table", "epochs", "-o", str(path)]) == 0
    assert len(list(csv.DictReader(path.open()))) == 6


def exported(arguments, capsys):
    assert export.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_columns_are_chosen_in_the_order_given(run_folder, capsys):
    out = exported([run_folder, "--format", "csv", "-o", "-", "--columns", "val_map, trial_id,optim.lr"], capsys)
    assert out.splitlines()[:2] == ["val_map,trial_id,optim.lr", "0.42,t0000,0.001"]
    assert len(out.splitlines()) == 6
    out = exported([run_folder, "--format", "md", "-o", "-", "--columns", "trial_id,stop_reason"], capsys)
    assert "| t0002 | step 9: loss \\| not finite |" in out


@pytest.mark.parametrize("form", TEXT_FORMATS)
def test_standard_output_gets_what_a_file_gets_and_nothing_else(run_folder, tmp_path, form, capsys):
    path = tmp_path / "board"
    exported([run_folder, "--format", form, "-o", path], capsys)
    assert exported([run_folder, "--format", form, "-o", "-"], capsys) == path.read_text()


@pytest.mark.parametrize(("name", "beginning"), [("a.csv", b"run,"), ("a.TEX", b"\\begin"), ("a.parquet", b"PAR1")])
def test_the_ending_of_a_file_says_its_format(run_folder, tmp_path, name, beginning, capsys):
    exported([run_folder, "-o", tmp_path / name], capsys)
    assert (tmp_path / name).read_bytes().startswith(beginning)


def test_a_paper_table_has_the_metric_with_its_interval_and_the_parameters(tmp_path, capsys):
    made = Searched(tmp_path / "runs" / "demo", metric="val_number_accuracy")
    made.trial("t0000", 0.9, baseline="default")
    made.trial("t0001", 0.7, **{"optim.lr": 0.00012345})
    folder = made.done()
    head, _, first, second = exported([folder, "--format", "md", "-o", "-"], capsys).splitlines()
    assert head == "| trial | val_number_accuracy | 95 % | epochs | status | optim.lr | baseline |"
    assert re.fullmatch(
        r"\| t0000 \| 0\.\d{3} \| \[0\.\d{3}, [01]\.\d{3}\] \| 2 \| finished \| .* \| default \|", first
    )
    assert "| 0.0001234 |" in second
    epochs = exported([folder, "--format", "md", "-o", "-", "--table", "epochs"], capsys)
    assert epochs.startswith("| trial | epoch | val_number_accuracy | val_map |")


@pytest.mark.parametrize(("epoch_seconds", "trial_seconds"), [(2.5, "5.0"), (None, "")])
def test_a_retraining_is_no_searched_configuration(tmp_path, epoch_seconds, trial_seconds, capsys):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.6, **{"optim.lr": 2e-3})
    made.retraining("t0000-r1", "t0000", epoch_seconds=epoch_seconds, **{"detect.task1.nms": 0.75, "optim.epochs": 9})
    folder = made.done()
    head, _, *rows = exported([folder, "--format", "md", "-o", "-"], capsys).splitlines()
    assert head == ("| trial | role | val_map | 95 % | val_number_accuracy | epochs | status | optim.lr |")
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| t0000", "search"], ["| t0001", "search"], ["| t0000-r1", "retrain"],
    ]  # fmt: skip
    columns = "trial_id,trial_seconds,started_at"
    lines = exported([folder, "--format", "csv", "-o", "-", "--columns", columns], capsys).splitlines()
    assert f"t0000-r1,{trial_seconds}," in lines


def test_a_paper_table_of_several_runs_names_the_run_and_each_metric(run_folder, capsys):
    made = Searched(run_folder.parent / "other", metric="val_number_accuracy")
    made.trial("t0000", 0.9)
    made.done()
    head = exported([run_folder.parent, "--format", "md", "-o", "-"], capsys).splitlines()[0]
    assert head == (
        "| run | trial | val_map | val_map, 95 % | val_number_accuracy | val_number_accuracy, 95 % | epochs | status "
        "| optim.lr |"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "-o", "{out}/a"], "needs an ending; end the name with one of .csv"),
        (["{run}", "-o", "{out}/a.doc"], "does not know the ending '.doc'"),
        (["{run}", "-o", "-"], "-o -: needs --format: csv, json, md, latex"),
        (["{run}", "-o", "-", "--format", "xlsx"], "-o -: xlsx is a binary format; name a file"),
        (["{run}", "-o", "{out}/a.csv", "--columns", "run,lr"], "--columns lr: the table has no such column; did you"),
        (["{run}", "-o", "{out}/a.csv", "--columns", ","], "--columns: names no column"),
        (["{run}", "--format", "xls", "-o", "{out}/a"], "--format xls: unknown format; did you mean 'xlsx'"),
        (["{out}/none", "--format", "csv", "-o", "{out}/a"], "there is no such run"),
        (["{out}", "--format", "csv", "-o", "{out}/a"], "this folder has no run"),
        (["{run}", "--format", "csv", "-o", "{out}"], "is a folder; name a file"),
        (["{run}", "--format", "csv", "-o", "{out}/none/a"], "there is no folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(run_folder, tmp_path, arguments, said, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert export.main([text.format(run=run_folder, out=out) for text in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(out.iterdir()) == []


def test_an_unknown_flag_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as caught:
        leaderboard.main(["--nothing"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("whole", [False, True])
def test_a_narrow_terminal_keeps_the_scores_before_the_parameters_and_names_what_it_hides(run_folder, width, whole):
    import io

    from digits_core.terminal import PlainConsole

    out = io.StringIO()
    leaderboard.print_leaderboard(
        leaderboard.read_leaderboard(run_folder), "val_map", PlainConsole(file=out, width=width), whole=whole
    )
    text = out.getvalue()
    for figure in ("t0000", "0.42", "t0001", "0.20"):
        assert figure in text
    lines = text.splitlines()
    assert max(len(line) for line in lines if not line.startswith("hidden: ")) <= width
    headings = lines[1].split()
    scores = [name for name in headings if name in ("mAP", "mAP@.5", "digits", "numbers")]
    assert scores == ["mAP", "mAP@.5", "digits", "numbers"]
    if "lr" in headings:
        assert headings.index("lr") > headings.index("numbers")
    hidden = [line for line in lines if line.startswith("hidden: ")]
    assert bool(hidden) == (not {"lr", "status", "epochs", "baseline"} <= set(headings))
    for line in hidden:
        named = line.removeprefix("hidden: ").removesuffix(" (the terminal is too narrow)").split(", ")
        assert not set(named) & set(headings)
        assert "status" not in named or set(named) >= {"epochs", "baseline", "lr"}  # because a trial has diverged


def printed_board(board, width):
    import io

    from digits_core.terminal import PlainConsole

    out = io.StringIO()
    leaderboard.print_leaderboard(board, "val_map", PlainConsole(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", range(70, 120, 5))
def test_a_narrow_column_breaks_a_value_only_after_a_comma_or_a_space(tmp_path, width):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.9, baseline="report B\nnormal", **{"model.anchor_sizes": "101,202,303,404,505"})
    made.trial("t0001", 0.5, **{"model.anchor_sizes": "111,222,333,444,555"})
    text = printed_board(leaderboard.read_leaderboard(made.done()), width)
    assert max(len(line) for line in text.splitlines() if line.startswith((" ", "1"))) <= width
    whole = {f"{one}0{one}" for one in range(1, 6)} | {f"{one}{one}{one}" for one in range(1, 6)}
    assert whole <= set(re.findall(r"\d+", text)) or "anchor_sizes (the terminal" in text


def test_the_status_stays_on_a_narrow_board_while_a_trial_is_not_finished(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.5, status="interrupted", **{LR: 2e-3})
    board = leaderboard.read_leaderboard(made.done())
    assert "interrupted" in printed_board(board, 80)
    board["status"] = "finished"
    assert "hidden: status" in printed_board(board, 80)


def test_the_board_says_that_means_decide_the_order_and_which_epoch_is_the_best(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.9)
    said = printed_board(leaderboard.read_leaderboard(made.folder), 200)
    assert "sorted" not in said
    assert "epochs: " not in said
    made.trial("t0001", 0.5, peak=1, **{LR: 2e-3})
    made.trial("t0002", 0.9, seed=1, role="replicate")
    leaderboard.rebuild(made.done())
    said = printed_board(leaderboard.read_leaderboard(made.folder), 200)
    assert "sorted by the mean of the replicates; the first training does not count" in said
    assert "epochs: best epoch / trained epochs" in said


def test_one_bad_run_does_not_hide_the_others(run_folder, capsys):
    other = run_folder.with_name("another")
    shutil.copytree(run_folder, other)
    (other / "leaderboard.parquet").write_bytes(b"PAR1")
    assert leaderboard.main([str(run_folder.parent)]) == 2
    captured = capsys.readouterr()
    assert "t0000" in captured.out
    assert captured.err.count("\n") == 1
    assert "rebuild it with" in captured.err


def test_json_has_the_rows_in_the_order_of_the_table_with_null_for_missing_values(run_folder, capsys):
    assert leaderboard.main([str(run_folder), "--json"]) == 0
    [found] = strict_json(capsys.readouterr().out)["runs"]
    assert (found["run"], found["metric"]) == ("demo", "val_map")
    rows = found["rows"]
    assert [row["trial_id"] for row in rows] == ["t0000", "t0004", "t0001", "t0002", "t0003"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["val_map"] == 0.42
    assert rows[-1]["val_map"] is None
    assert rows[0]["config"]["optim.lr"] == 1e-3
    assert rows[0]["started_at"].endswith("+00:00")


def test_json_tells_ties_and_notes_and_obeys_top_and_all(tmp_path, capsys):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.9, like="t0000", **{"optim.lr": 0.002})
    made.trial("t0002", 0.2, **{"optim.lr": 0.003})
    made.trial("t0003", 0.9, seed=1, role="replicate")
    folder = made.done()

    def rows(*flags):
        assert leaderboard.main([str(folder), "--json", *flags]) == 0
        return strict_json(capsys.readouterr().out)["runs"][0]["rows"]

    assert {row["trial_id"]: row["ties_with_best"] for row in rows()} == {"t0000": True, "t0001": True, "t0002": False}
    assert len(rows("--top", "1")) == 1
    assert len(rows("--all")) == 4


def test_json_of_several_runs_leaves_out_a_damaged_one_and_says_so(run_folder, capsys):
    other = run_folder.with_name("another")
    shutil.copytree(run_folder, other)
    (other / "leaderboard.parquet").write_bytes(b"PAR1")
    assert leaderboard.main([str(run_folder.parent), "--json"]) == 2
    captured = capsys.readouterr()
    assert [one["run"] for one in strict_json(captured.out)["runs"]] == ["demo"]
    assert captured.err.count("\n") == 1
