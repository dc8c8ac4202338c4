"""python -m results.leaderboard: prints the leaderboard of one run or several."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.command import CommandParser, at_least, run_command
from results.store import LEADERBOARD_FILE, find_runs, read_record_of, read_table, rebuild

SHOWN = {"val_map": "mAP", "val_map_50": "mAP@.5", "val_number_accuracy": "numbers"}
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


def print_board(board: pd.DataFrame, metric: str, console: Any, *, top: int | None = None) -> None:
    """Print a leaderboard as a table that fits the console.

    Args:
        board: as `read_leaderboard` returns it.
        metric: the run's metric; its column comes first.
        console: a rich Console.
        top: rows to print; None prints all.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    knobs = knob_columns(board)
    several = board["run"].nunique() > 1
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    columns = [metric, *(name for name in SHOWN if name != metric)]
    headers = ["#", *(["run"] if several else []), "trial", *(SHOWN[name] for name in columns), "epochs", "status"]
    for header in headers:
        table.add_column(header, justify="left" if header in ("run", "trial", "status") else "right", no_wrap=True)
    for knob in knobs:
        table.add_column(knob.rpartition(".")[2], overflow="fold")
    table.add_column("baseline", overflow="fold")
    shown = board if top is None else board.head(top)
    for number, row in enumerate(shown.to_dict("records"), start=1):
        best = "-" if pd.isna(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
        cells = [str(number), *([row["run"]] if several else []), row["trial_id"]]
        cells += ["-" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in columns]
        cells += [f"{best}/{row['epochs']}", row["status"]]
        cells += [_short(row[knob]) for knob in knobs]
        cells.append("" if pd.isna(row["baseline"]) else row["baseline"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    console.print(table)
    if top is not None and len(board) > top:
        console.print(f"and {len(board) - top} more")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.leaderboard",
        description="Print the leaderboard of one run or several, best first.",
        epilog="example: python -m results.leaderboard runs/my-search --top 10",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or a folder of runs")
    parser.add_argument("--top", type=at_least(1), default=None, metavar="N", help="print the best N rows of each run")
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
        print_board(read_leaderboard(folder), read_record_of(folder).metric, console, top=args.top)
    return 0


def _short(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
