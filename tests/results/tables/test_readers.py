"""Other tools read the tables: DuckDB, Polars, pandas and Excel see the same values with their types."""

import datetime

import pytest
from told import told_run

from results import export, read_leaderboard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("runs") / "told", trials=5)


def test_duckdb_reads_the_leaderboard_with_nulls_times_and_types(folder):
    import duckdb

    told_run_board = read_leaderboard(folder)
    rows = duckdb.sql(
        f"select trial_id, val_map, baseline, epochs, ties_with_best, \"optim.lr\" from '{folder}/leaderboard.parquet'"
    ).fetchall()
    assert [row[0] for row in rows] == told_run_board["trial_id"].tolist()
    assert rows[0][1] == told_run_board["val_map"][0]
    assert {type(row[3]) for row in rows} == {int}
    assert None in {row[2] for row in rows}
    kinds = dict(
        duckdb.sql(f"select column_name, column_type from (describe select * from '{folder}/leaderboard.parquet')")
        .fetchall()
    )  # fmt: skip
    assert kinds["started_at"] == "TIMESTAMP WITH TIME ZONE"
    assert kinds["ties_with_best"] == "BOOLEAN"


def test_duckdb_reads_the_lists_of_a_match_table(folder):
    import duckdb

    [(counted,)] = duckdb.sql(f"select sum(len(truth)) from '{folder}/matches/t0000.parquet'").fetchall()
    from results.tables.matches import matches_path, read_matches

    assert counted == len(read_matches(matches_path(folder, "t0000", "val")).truth.labels)


def test_polars_reads_lists_nulls_and_utc_times(folder):
    import polars as pl

    board = pl.read_parquet(folder / "leaderboard.parquet")
    assert board.schema["started_at"] == pl.Datetime("us", "UTC")
    assert board.schema["epochs"] == pl.Int32
    assert board["baseline"].null_count() == len(board) - 1
    matches = pl.read_parquet(folder / "matches" / "t0000.parquet")
    assert matches.schema["task1_scores"] == pl.List(pl.Float32)
    assert board["val_map"].to_list() == read_leaderboard(folder)["val_map"].tolist()


def test_excel_holds_numbers_as_numbers_and_nothing_as_nothing(folder, tmp_path):
    import openpyxl

    assert export.main([str(folder), "--format", "xlsx", "-o", str(tmp_path / "board.xlsx")]) == 0
    sheet = openpyxl.load_workbook(tmp_path / "board.xlsx").active
    header, *rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    board = read_leaderboard(folder)
    assert header == list(board.columns)
    assert [row[header.index("val_map")] for row in rows] == board["val_map"].tolist()
    assert {row[header.index("confirm_map")] for row in rows} == {None}
    started = rows[0][header.index("started_at")]
    assert datetime.datetime.fromisoformat(started).tzinfo is not None


def test_an_export_as_parquet_keeps_what_pandas_and_polars_see(folder, tmp_path):
    import pandas as pd
    import polars as pl

    assert export.main([str(folder), "--format", "parquet", "-o", str(tmp_path / "board.parquet")]) == 0
    board = read_leaderboard(folder)
    assert pd.read_parquet(tmp_path / "board.parquet")["trial_id"].tolist() == board["trial_id"].tolist()
    assert pl.read_parquet(tmp_path / "board.parquet").schema["started_at"] == pl.Datetime("us", "UTC")
