"""The leaderboard as a table on a terminal."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from results.views.leaderboard import SHOWN, parameter_columns

DROPPED = ("digits", "mAP@.5", "status", "epochs")
"""Columns that a narrow terminal does without first."""


def print_board(board: pd.DataFrame, metric: str, console: Any, *, top: int | None = None, whole: bool = False) -> None:
    """Print a leaderboard as a table that fits the console: one row per setting, those that tie with the best first.

    Args:
        board: as `read_leaderboard` returns it.
        metric: the run's metric; its column comes first, with its interval.
        console: a rich Console.
        top: rows to print; None prints all.
        whole: print a row per trial: further seeds and screened settings too.
    """
    from rich import box
    from rich.table import Table

    shown = board if whole else board[(board["role"] == "search") & (board["status"] != "screened")]
    tied = shown["ties_with_best"].fillna(False).astype(bool)
    tied &= tied.sum() > 1  # the first alone ties with nobody
    if not whole:
        shown, tied = pd.concat([shown[tied], shown[~tied]]), pd.concat([tied[tied], tied[~tied]])
    rows = [_cells(row, board, metric, whole=whole) for row in shown.to_dict("records")]
    if not rows:
        console.print("no trial has started yet")
        return
    parameters = [parameter for parameter in parameter_columns(board) if shown[parameter].astype(str).nunique() > 1]
    headers = [name for name in rows[0] if name not in parameter_columns(board) or name in parameters]
    texts = ("baseline", *parameters)  # may fold
    short = [name.rpartition(".")[2] for name in parameters]
    heading = {
        name: name.rpartition(".")[2] if name in parameters and short.count(name.rpartition(".")[2]) == 1 else name
        for name in headers
    }
    ties = tied.tolist()

    def width(name: str) -> int:
        """What a column needs: all of a figure, twelve letters of a text that may fold."""
        longest = max(len(row[name]) for row in rows)
        return max(min(12, longest) if name in texts else longest, len(heading[name]))

    # A narrow terminal gets fewer columns, never cut figures.
    names, left_out = list(headers), []
    for name in [*DROPPED, *reversed(parameters), "baseline"]:
        if sum(width(one) + 3 for one in names) + 4 <= console.width:
            break
        if name in names:
            names.remove(name)
            left_out.append(heading[name])
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    for name in names:
        plain = name in ("run", "trial", "status", "95 %", "role", *texts)
        table.add_column(
            heading[name],
            justify="left" if plain else "right",
            no_wrap=name not in texts,
            overflow="fold",
            min_width=width(name),
        )
    for number, row in enumerate(rows[:top]):
        place = f"{number + 1}{'=' if ties[number] and not whole else ' '}"
        last_tie = ties[number] and number + 1 < len(ties) and not ties[number + 1]
        table.add_row(place, *(row[name] for name in names), end_section=last_tie and not whole)
    console.print(table)
    if left_out:
        console.print(f"hidden, terminal too narrow: {', '.join(left_out)}")
    if top is not None and len(rows) > top:
        console.print(f"and {len(rows) - top} more")
    if any(ties) and not whole:
        console.print("= cannot be told apart from the first, all pairs of the leaderboard considered (95 %)")
    screened = int((board["status"] == "screened").sum())
    if screened and not whole:
        console.print(f"{screened} more settings were screened out before training, for their anchors")


def _cells(row: Mapping[Any, Any], board: pd.DataFrame, metric: str, *, whole: bool) -> dict[str, str]:
    """What a row of the printed board shows, by column."""
    score, interval = score_cells(row, metric)
    best = "-" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
    cells = {"run": str(row["run"])} if board["run"].nunique() > 1 else {}
    cells |= {"trial": row["trial_id"], SHOWN.get(metric, metric): score, "95 %": interval}
    if not whole and board["num_seeds"].notna().any():
        several = pd.notna(row["num_seeds"])
        cells["mean of seeds"] = f"{row['seeds_mean']:.3f} ({row['num_seeds']:.0f})" if several else ""
    cells |= {SHOWN[name]: "-" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in SHOWN if name != metric}
    cells |= {"epochs": f"{best}/{row['epochs']}", "status": row["status"]}
    cells |= {"role": row["role"]} if whole else {}
    cells |= {parameter: _short(row[parameter]) for parameter in parameter_columns(board)}
    return cells | {"baseline": "" if pd.isna(row["baseline"]) else row["baseline"]}


def score_cells(row: Mapping[Any, Any], metric: str) -> list[str]:
    """A score and its interval: three decimals with one, two without."""
    value, low, high = (row.get(f"{metric}{end}") for end in ("", "_low", "_high"))
    if value is None or pd.isna(value):
        return ["-", ""]
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return [f"{value:.2f}", ""]
    return [f"{value:.3f}", f"[{low:.3f}, {high:.3f}]"]


def _short(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
