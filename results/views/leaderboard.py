"""The leaderboards of run folders, as tables."""

from pathlib import Path

import pandas as pd

from digits_core.errors import RunError
from results.record.folder import LEADERBOARD_FILE
from results.record.schema import LEADERBOARD
from results.tables.parquet import read_table, rebuild_words
from results.views.parquet_views import rebuild

SHOWN = {"val_map": "mAP", "val_map_50": "mAP@.5", "val_digit_accuracy": "digits", "val_number_accuracy": "numbers"}
"""Scores on the printed board, and their short names."""


def read_leaderboard(folder: Path) -> pd.DataFrame:
    """The leaderboard of a run folder, best first.

    Raises:
        RunError: the folder holds no run, or its table is damaged or of another version.
    """
    path = folder / LEADERBOARD_FILE
    if not path.exists():  # the run has just begun, or died before its first view
        rebuild(folder)
    board = read_table(path)
    if not set(LEADERBOARD.names) <= set(board.columns):
        raise RunError(f"{path} is no leaderboard; {rebuild_words(folder)}")
    return board


def read_leaderboards(folders: list[Path]) -> pd.DataFrame:
    """Several leaderboards as one, best first within each run; a parameter that one lacks is null there."""
    return pd.concat([read_leaderboard(folder) for folder in folders], ignore_index=True)


def parameter_columns(board: pd.DataFrame) -> list[str]:
    """The columns of parameters that vary."""
    return [name for name in board.columns if "." in name]
