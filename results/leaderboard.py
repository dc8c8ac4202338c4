"""python -m results.leaderboard: prints the leaderboard of one run or several."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.command import CommandParser, at_least, run_command
from results.compare import confirmation_words, twin_words
from results.store import LEADERBOARD_FILE, find_runs, read_record_of, rebuild
from results.tables import read_table

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
    return read_table(path)


def read_leaderboards(folders: list[Path]) -> pd.DataFrame:
    """Several leaderboards as one, best first within each run; a knob that one lacks is null there."""
    return pd.concat([read_leaderboard(folder) for folder in folders], ignore_index=True)


def knob_columns(board: pd.DataFrame) -> list[str]:
    """The columns of knobs that vary."""
    return [name for name in board.columns if "." in name]


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
    from rich.text import Text

    shown = board if whole else board[(board["role"] == "search") & (board["status"] != "screened")]
    if not whole:
        tied = shown["ties_with_best"].fillna(False).astype(bool)
        shown = pd.concat([shown[tied], shown[~tied]])
    knobs = [name for name in knob_columns(board) if shown[name].astype(str).nunique() > 1]
    several = board["run"].nunique() > 1
    seeds = fresh_scores(board, metric)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    others = [name for name in SHOWN if name != metric]
    headers = ["#", *(["run"] if several else []), "trial", SHOWN.get(metric, metric), "95 %"]
    headers += [
        *(["fresh seeds"] if seeds and not whole else []),
        *(SHOWN[name] for name in others),
        "epochs",
        "status",
    ]
    for header in headers:
        table.add_column(
            header, justify="left" if header in ("run", "trial", "status", "95 %") else "right", no_wrap=True
        )
    if whole:
        table.add_column("role")
    for knob in knobs:
        table.add_column(knob.rpartition(".")[2], overflow="fold")
    table.add_column("baseline", overflow="fold")
    rows = shown.to_dict("records") if top is None else shown.head(top).to_dict("records")
    for number, row in enumerate(rows, start=1):
        best = "-" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
        tie = not pd.isna(row["ties_with_best"]) and bool(row["ties_with_best"])
        cells = [f"{number}{'=' if tie and not whole else ' '}", *([row["run"]] if several else []), row["trial_id"]]
        cells += score_cells(row, metric)
        cells += [_fresh(seeds.get(row["config_hash"]))] if seeds and not whole else []
        cells += ["-" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in others]
        cells += [f"{best}/{row['epochs']}", row["status"], *([row["role"]] if whole else [])]
        cells += [_short(row[knob]) for knob in knobs]
        cells.append("" if pd.isna(row["baseline"]) else row["baseline"])
        following = rows[number : number + 1]
        ends = (
            tie
            and bool(following)
            and not (following[0]["ties_with_best"] is True or following[0]["ties_with_best"] == 1)
        )
        table.add_row(*(Text(str(cell)) for cell in cells), end_section=ends and not whole)
    console.print(table)
    if top is not None and len(shown) > top:
        console.print(f"and {len(shown) - top} more")
    if not whole and board["ties_with_best"].fillna(False).sum() > 1:
        console.print("= cannot be told apart from the first, with all pairs of the board compared (95 %)")
    screened = int((board["status"] == "screened").sum())
    if screened and not whole:
        console.print(f"{screened} more settings were screened out before training, for their anchors")


def score_cells(row: Mapping[Any, Any], metric: str) -> list[str]:
    """A score and its interval: three decimals with one, two without."""
    value, low, high = (row.get(f"{metric}{end}") for end in ("", "_low", "_high"))
    if value is None or pd.isna(value):
        return ["-", ""]
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return [f"{value:.2f}", ""]
    return [f"{value:.3f}", f"[{low:.3f}, {high:.3f}]"]


def fresh_scores(board: pd.DataFrame, metric: str) -> dict[str, list[float]]:
    """The scores of further seeds that trained to their end, by the setting's digest."""
    further = board[(board["role"] != "search") & (board["status"] == "finished")].dropna(subset=[metric])
    return {str(digest): rows[metric].astype(float).tolist() for digest, rows in further.groupby("config_hash")}


def _fresh(scores: list[float] | None) -> str:
    return "" if not scores else f"{sum(scores) / len(scores):.3f} ({len(scores)})"


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.leaderboard",
        description="Print the leaderboard of one run or several, best first.",
        epilog="example: python -m results.leaderboard runs/my-search --top 10",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or a folder of runs")
    parser.add_argument("--top", type=at_least(1), default=None, metavar="N", help="print the best N rows of each run")
    parser.add_argument("--all", action="store_true", help="a row per trial: further seeds and screened settings too")
    parser.add_argument("--rebuild", action="store_true", help="write the Parquet views anew from events.jsonl first")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.leaderboard", lambda: _print(args))


def _print(args: argparse.Namespace) -> int:
    from results.terminal import open_console

    console = open_console()
    for folder in find_runs(args.runs):
        if args.rebuild:
            rebuild(folder)
        console.print(f"{folder}", markup=False)
        record = read_record_of(folder)
        print_board(read_leaderboard(folder), record.metric, console, top=args.top, whole=args.all)
        for line in [*confirmation_words(record, folder), *twin_words(record)]:
            console.print(line, markup=False, soft_wrap=True)
    return 0


def _short(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
