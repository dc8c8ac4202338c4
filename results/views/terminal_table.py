"""The leaderboard as a table on a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.views.curves import short
from results.views.fitted_columns import Column, Fitted, column_of, empty_table, fit
from results.views.leaderboard import SHOWN, parameter_columns

DETAILS, LAST_HIDDEN = ("status", "epochs", "role"), ("95 %", "mean of replicates", "run")
"""Columns that a narrow terminal hides before the parameters and after them; scores are never hidden."""

LEFT = ("run", "trial", "status", "95 %", "role")
"""Columns aligned to the left, besides texts."""

TIE_WORDS = "= statistically tied with the best (95 %, corrected for all pairs)"


def print_leaderboard(
    board: pd.DataFrame, metric: str, console: Any, *, top: int | None = None, whole: bool = False
) -> None:
    """Print a leaderboard as a table that fits the console: one row per configuration, ties with the best first.

    Args:
        board: as `read_leaderboard` returns it.
        metric: the run's metric; its column comes first, with its interval.
        console: a rich Console.
        top: rows to print; None prints all.
        whole: print one row per trial, including replicates and screened configurations.
    """
    shown, tied = in_order(board, whole=whole)
    rows = [_cells(row, board, metric, whole=whole) for row in shown.to_dict("records")]
    if not rows:
        console.print("no trial has started yet")
        return
    parameters = [parameter for parameter in parameter_columns(board) if shown[parameter].astype(str).nunique() > 1]
    constant = set(parameter_columns(board)) - set(parameters)
    ties = [False] * len(rows) if whole else tied.tolist()
    for number, row in enumerate(rows):
        row["#"] = f"{number + 1}{'=' if ties[number] else ' '}"
    names = [name for name in rows[0] if name not in constant and name != "#"]
    fitted = _fitted(_columns(["#", *names], rows, parameters), parameters, console.width)
    console.print(_table(fitted, rows, ties, top))
    if fitted.hidden_words:
        console.print(fitted.hidden_words, soft_wrap=True)
    if top is not None and len(rows) > top:
        console.print(f"and {len(rows) - top} more")
    if any(ties):
        console.print(TIE_WORDS)
    screened = int((board["status"] == "screened").sum())
    if screened and not whole:
        console.print(f"{screened} more configurations were screened out before training because of their anchors")


def in_order(board: pd.DataFrame, *, whole: bool = False) -> "tuple[pd.DataFrame, pd.Series[bool]]":
    """The rows of a leaderboard as they are shown, and which of them tie with the best.

    Args:
        board: as `read_leaderboard` returns it.
        whole: keep one row per trial in the order of the board; otherwise one per configuration, ties first.
    """
    shown = board if whole else board[(board["role"] == "search") & (board["status"] != "screened")]
    tied = shown["ties_with_best"].fillna(False).astype(bool)
    tied &= tied.sum() > 1  # a tie needs a second row
    if not whole:
        shown, tied = pd.concat([shown[tied], shown[~tied]]), pd.concat([tied[tied], tied[~tied]])
    return shown, tied


def _columns(names: list[str], rows: list[dict[str, str]], parameters: list[str]) -> list[Column]:
    """The columns in order; a parameter is headed by the last part of its name where that is unique."""
    last_parts = [name.rpartition(".")[2] for name in parameters]
    found = []
    for name in names:
        last = name.rpartition(".")[2]
        heading = last if name in parameters and last_parts.count(last) == 1 else name
        found.append(column_of(name, heading, rows, is_text=name == "baseline" or name in parameters))
    return found


def _fitted(columns: list[Column], parameters: list[str], width: int) -> Fitted:
    """The columns that fit: the scores stay, and of the parameters the first ones."""
    return fit(columns, [*DETAILS, "baseline", *reversed(parameters), *LAST_HIDDEN], width)


def _table(fitted: Fitted, rows: list[dict[str, str]], ties: list[bool], top: int | None) -> Any:
    """A rich Table of the first `top` rows, with a line under the last tie."""
    table = empty_table(fitted)
    for one in fitted.columns:
        table.add_column(
            one.heading,
            justify="left" if one.is_text or one.name in LEFT else "right",
            no_wrap=not one.is_text,
            overflow="fold",
            min_width=one.width,
        )
    for number, row in enumerate(rows[:top]):
        last_tie = ties[number] and number + 1 < len(ties) and not ties[number + 1]
        table.add_row(*(row[one.name] for one in fitted.columns), end_section=last_tie)
    return table


def _cells(row: Mapping[Any, Any], board: pd.DataFrame, metric: str, *, whole: bool) -> dict[str, str]:
    """The text of each cell of a row, by column name."""
    score, interval = score_cells(row, metric)
    best = "-" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
    cells = {"run": str(row["run"])} if board["run"].nunique() > 1 else {}
    cells |= {"trial": row["trial_id"], SHOWN.get(metric, metric): score, "95 %": interval}
    if not whole and board["num_seeds"].notna().any():
        several = pd.notna(row["num_seeds"])
        cells["mean of replicates"] = f"{row['seeds_mean']:.3f} ({row['num_seeds']:.0f})" if several else ""
    cells |= {SHOWN[name]: "-" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in SHOWN if name != metric}
    cells |= {"epochs": f"{best}/{row['epochs']}", "status": row["status"]}
    cells |= {"role": row["role"]} if whole else {}
    cells |= {name: "" if pd.isna(row[name]) else short(row[name]) for name in parameter_columns(board)}
    return cells | {"baseline": "" if pd.isna(row["baseline"]) else row["baseline"]}


def score_cells(row: Mapping[Any, Any], metric: str) -> list[str]:
    """A score and its interval as text: three decimals with an interval, two without."""
    value, low, high = (row.get(f"{metric}{end}") for end in ("", "_low", "_high"))
    if value is None or pd.isna(value):
        return ["-", ""]
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return [f"{value:.2f}", ""]
    return [f"{value:.3f}", f"[{low:.3f}, {high:.3f}]"]
