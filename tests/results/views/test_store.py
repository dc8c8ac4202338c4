import errno
import json
import math
import shlex
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from digits_core.errors import RunError
from results.figures.detection import plot_thresholds
from results.record.folder import EPOCHS_FILE, LEADERBOARD_FILE, THRESHOLDS, find_runs, read_record_of
from results.record.schema import ENDED, EPOCHS, LEADERBOARD, SCHEMA_VERSION, STATUSES
from results.tables.matches import count_images, matches_path, read_matches
from results.tables.parquet import read_table, write_table
from results.views.leaderboard import leaderboard_table, read_leaderboard, rebuild, write_views


def test_the_views_are_rebuilt_from_the_events_alone(run_folder):
    rebuild(run_folder)
    first = pq.read_table(run_folder / LEADERBOARD_FILE)
    (run_folder / LEADERBOARD_FILE).unlink()
    (run_folder / EPOCHS_FILE).unlink()
    rebuild(run_folder)
    assert pq.read_table(run_folder / LEADERBOARD_FILE).equals(first)


def test_the_leaderboard_has_one_row_per_trial_failed_ones_too(run_folder):
    rebuild(run_folder)
    board = read_leaderboard(run_folder)
    assert board["trial_id"].tolist() == ["t0000", "t0004", "t0001", "t0002", "t0003"]
    assert set(board["status"]) <= set(STATUSES)
    row = board.set_index("trial_id").loc["t0000"]
    assert row["best_epoch"] == 2
    assert row["val_map"] == pytest.approx(0.42)
    assert row["train_seconds"] == pytest.approx(4.5)
    assert row["num_parameters"] == 7
    assert json.loads(row["config"])["optim.lr"] == 1e-3
    assert row["optim.lr"] == 1e-3


def test_parameters_that_vary_have_a_typed_column_and_others_none(run_folder):
    table = leaderboard_table(read_record_of(run_folder), run_folder)
    assert table.schema.field("optim.lr").type == pa.float64()
    assert [name for name in table.schema.names if "." in name] == ["optim.lr"]


def test_a_missing_score_is_null_and_integers_stay_integers(run_folder):
    rebuild(run_folder)
    table = pq.read_table(run_folder / LEADERBOARD_FILE)
    scores = table.column("val_map").to_pylist()
    assert scores[-1] is None
    assert not any(score is not None and math.isnan(score) for score in scores)
    board = read_leaderboard(run_folder)
    assert str(board["best_epoch"].dtype) == "int32[pyarrow]"
    assert board["best_epoch"].isna().sum() == 1


def test_board_and_epochs_agree(run_folder):
    rebuild(run_folder)
    board, epochs = read_leaderboard(run_folder), read_table(run_folder / EPOCHS_FILE)
    assert len(epochs) == 6
    for row in board.dropna(subset=["best_epoch"]).to_dict("records"):
        same = epochs[(epochs["trial_id"] == row["trial_id"]) & (epochs["epoch"] == row["best_epoch"])]
        for name in ("val_map", "val_map_50", "val_map_75", "val_number_accuracy", "train_loss"):
            assert same.iloc[0][name] == row[name]


def test_times_are_utc(run_folder):
    rebuild(run_folder)
    assert str(pq.read_schema(run_folder / LEADERBOARD_FILE).field("started_at").type) == "timestamp[us, tz=UTC]"


def test_schema_and_statuses_are_consistent():
    assert set(ENDED) < set(STATUSES)
    assert LEADERBOARD.metadata[b"schema_version"].decode() == SCHEMA_VERSION
    assert len(set(LEADERBOARD.names)) == len(LEADERBOARD.names)


def test_another_schema_version_is_refused_with_the_way_out(run_folder):
    rebuild(run_folder)
    path = run_folder / LEADERBOARD_FILE
    write_table(path, pq.read_table(path).replace_schema_metadata({b"schema_version": b"99"}))
    with pytest.raises(RunError, match="has schema version 99, this program reads 3; rebuild it with"):
        read_leaderboard(run_folder)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 50 + b"PAR1", b"text"])
def test_a_damaged_table_is_one_sentence(run_folder, content):
    (run_folder / LEADERBOARD_FILE).write_bytes(content)
    with pytest.raises(RunError, match="damaged or no Parquet file") as caught:
        read_leaderboard(run_folder)
    assert str(caught.value).endswith(f"; rebuild it with digit-search board {shlex.quote(str(run_folder))} --rebuild")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text"])
def test_a_damaged_table_that_events_do_not_hold_names_another_way_out(run_folder, content):
    path = matches_path(run_folder, "t0000", "val")
    path.parent.mkdir()
    path.write_bytes(content)
    for reader in (read_matches, count_images):
        with pytest.raises(RunError, match=r"t0000\.parquet is damaged .*; delete it to continue without it"):
            reader(path)
    path = run_folder / THRESHOLDS / "t0000.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"t0000\.parquet is damaged .*; delete it to continue without it"):
        plot_thresholds(run_folder, trial="t0000")


def test_a_table_that_may_not_be_read_is_not_called_damaged(run_folder, monkeypatch):
    rebuild(run_folder)

    def refuse(self, *more, **settings):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    with monkeypatch.context() as refused:
        refused.setattr(Path, "open", refuse)
        with pytest.raises(RunError, match=r"leaderboard\.parquet cannot be read: Permission denied$"):
            read_table(run_folder / LEADERBOARD_FILE)


def test_a_run_without_a_view_yet_is_read_from_its_events(run_folder):
    assert len(read_leaderboard(run_folder)) == 5


def test_a_reader_never_sees_half_a_table(run_folder):
    record = read_record_of(run_folder)
    write_views(run_folder, record)
    done = threading.Event()

    def write():
        for _ in range(60):
            write_views(run_folder, record)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert len(read_table(run_folder / LEADERBOARD_FILE)) == 5
        assert len(read_table(run_folder / EPOCHS_FILE)) == 6
        reads += 1
    writer.join()
    assert reads > 3
    assert not list(run_folder.glob(".*.half"))


def test_runs_are_found_by_name_or_in_their_folder(run_folder):
    assert find_runs([run_folder]) == [run_folder]
    assert find_runs([run_folder.parent]) == [run_folder]


@pytest.mark.parametrize("name", ["none", "."])
def test_a_path_without_runs_is_one_sentence(tmp_path, name):
    with pytest.raises(RunError, match=r"it contains events\.jsonl"):
        find_runs([tmp_path / name])


def test_epochs_schema_holds_every_number_of_a_report():
    from dataclasses import fields

    from digits_core.training.reports import EpochMetrics

    reported = {item.name for item in fields(EpochMetrics)} - {"early_stopped"}
    assert reported == set(EPOCHS.names) - {"run", "trial_id", "reported_at"}
