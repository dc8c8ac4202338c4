"""python -m results.leaderboard: prints the leaderboard of one or more runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits_core.command import CommandParser, at_least, run_command, say
from digits_core.errors import RunError
from results.record.folder import RUNS_HELP, find_runs, read_record_of
from results.verdicts.words import ERROR, check_words, confirmation_words, length_words, twin_words
from results.views.leaderboard import read_leaderboard, rebuild
from results.views.terminal_table import print_leaderboard


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.leaderboard",
        description="Print the leaderboard of one or more runs, best first.",
        epilog="example: python -m results.leaderboard runs/my-search --top 10",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument("--top", type=at_least(1), default=None, metavar="N", help="print the best N rows of each run")
    parser.add_argument(
        "--all", action="store_true", help="one row per trial, including replicates and screened configurations"
    )
    parser.add_argument("--rebuild", action="store_true", help="first rebuild the Parquet tables from events.jsonl")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.leaderboard", lambda: _print(args))


def _print(args: argparse.Namespace) -> int:
    from digits_core.terminal import open_console

    console = open_console()
    folders, faults = find_runs(args.runs), 0
    for folder in folders:
        try:
            _print_run(folder, args, console)
        except RunError as error:  # show the other runs
            if len(folders) == 1:
                raise
            faults += 1
            say(f"results.leaderboard: {error}", error=True)
    return 2 if faults else 0


def _print_run(folder: Path, args: argparse.Namespace, console: Any) -> None:
    if args.rebuild:
        rebuild(folder)
    board, record = read_leaderboard(folder), read_record_of(folder)
    console.print(str(folder))
    print_leaderboard(board, record.metric, console, top=args.top, whole=args.all)
    for line in [*length_words(record), *confirmation_words(record, folder), *twin_words(record)]:
        console.print(line, soft_wrap=True)
    for line in check_words(record):
        console.print(line, style="bold red" if line.startswith(ERROR) else None, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
