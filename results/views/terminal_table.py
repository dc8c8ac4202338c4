"""The leaderboard as a table on a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from digits_core.errors import printable
from results.views.costs import COST_WORDS, TIMES
from results.views.curves import short
from results.views.fitted_columns import Column, Fitted, column_of, empty_table, fit, in_lines
from results.views.leaderboard import SHOWN, parameter_columns

MEAN = "mean of replicates"

DETAILS, LAST_HIDDEN = ("status", "epochs", "role"), ("95 %", MEAN, "run")
"""Columns that a narrow terminal hides before the parameters and after them; scores are never hidden.

The status is hidden after the parameters if a trial of the board has not ended as planned."""

AS_PLANNED = ("finished", "stopped", "screened")
"""The statuses of trials that ended as planned."""

FRONT_WORDS = "front: on the Pareto front, no other trial is better in all aims; ms: milliseconds an image"

EPOCHS_WORDS = "epochs: best epoch / trained epochs"

MEAN_WORDS = "configurations with replicates are sorted by the mean of the replicates"
NOT_COUNTED = "; the first training does not count, because its score selected it"

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
    odd = not set(shown["status"]) <= set(AS_PLANNED)
    fitted = _fitted(_columns(["#", *names], rows, parameters), parameters, console.width, keep_status=odd)
    console.print(_table(fitted, rows, ties, top))
    if fitted.hidden_words:
        console.print(fitted.hidden_words, soft_wrap=True)
    if top is not None and len(rows) > top:
        console.print(f"and {len(rows) - top} more")
    if any(ties):
        console.print(TIE_WORDS)
    for line in _footnotes(board, rows, [one.name for one in fitted.columns]):
        console.print(line, soft_wrap=True)
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


def _footnotes(board: pd.DataFrame, rows: list[dict[str, str]], names: list[str]) -> list[str]:
    """What the columns mean whose cells can surprise: a mean that decides the order, a best epoch before the last."""
    notes = []
    if "front" in names:
        notes.append(FRONT_WORDS)
    if "epochs" in names and any(best != last for best, last in (row["epochs"].split("/") for row in rows)):
        notes.append(EPOCHS_WORDS)
    if MEAN in names:
        trained = board[(board["role"] == "replicate") & (board["status"] == "finished")]
        replicates = trained["config_hash"].value_counts()
        counted = board["num_seeds"] > board["config_hash"].map(replicates).fillna(0)  # true in comparisons
        notes.append(MEAN_WORDS + ("" if counted.fillna(False).any() else NOT_COUNTED))
    return notes


def _fitted(columns: list[Column], parameters: list[str], width: int, *, keep_status: bool) -> Fitted:
    """The columns that fit: the scores stay, and of the parameters the first ones."""
    details = [name for name in DETAILS if name != "status" or not keep_status]
    late = ["status"] if keep_status else []
    return fit(columns, [*details, "baseline", *reversed(parameters), *late, *LAST_HIDDEN], width)


def _table(fitted: Fitted, rows: list[dict[str, str]], ties: list[bool], top: int | None) -> Any:
    """A rich Table of the first `top` rows, with a line under the last tie."""
    from rich.text import Text

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
        cells = [
            Text(in_lines(printable(row[one.name]), one.width)) if one.is_text else row[one.name]
            for one in fitted.columns
        ]
        table.add_row(*cells, end_section=last_tie)
    return table


def _cells(row: Mapping[Any, Any], board: pd.DataFrame, metric: str, *, whole: bool) -> dict[str, str]:
    """The text of each cell of a row, by column name."""
    score, interval = score_cells(row, metric)
    best = "-" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
    cells = {"run": str(row["run"])} if board["run"].nunique() > 1 else {}
    cells |= {"trial": row["trial_id"], SHOWN.get(metric, metric): score, "95 %": interval}
    if not whole and board["num_seeds"].notna().any():
        several = pd.notna(row["num_seeds"])
        cells[MEAN] = f"{row['seeds_mean']:.3f} ({row['num_seeds']:.0f})" if several else ""
    cells |= {SHOWN[name]: "-" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in SHOWN if name != metric}
    if board["on_front"].notna().any():
        cells["front"] = "yes" if pd.notna(row["on_front"]) and row["on_front"] else ""
    cells |= {
        COST_WORDS[name].heading: "-" if pd.isna(row[name]) else f"{row[name]:.3g}"
        for name in TIMES
        if board[name].notna().any()
    }
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
