"""python -m results.leaderboard: prints the leaderboard of one or more runs."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.command import CALLED_AS, JSON_HELP, CommandParser, at_least, run_command, say, say_json
from digits_core.errors import RunError
from results.record.folder import LEADERBOARD_FILE, RUNS_HELP, find_runs, read_record_of
from results.record.run import RunRecord
from results.tables.formats import json_rows
from results.tables.parquet import rebuild_words
from results.verdicts.words import ERROR, check_words, confirmation_words, length_words, twin_words
from results.views.leaderboard import read_leaderboard, rebuild
from results.views.note import read_note, read_tags
from results.views.terminal_table import in_order, print_leaderboard


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.leaderboard",
        description="Print the leaderboard of one or more runs, best first.",
        epilog="example: digit-search board runs/my-search --top 10",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument("--top", type=at_least(1), default=None, metavar="N", help="print the best N rows of each run")
    parser.add_argument(
        "--all", action="store_true", help="one row per trial, including replicates and screened configurations"
    )
    parser.add_argument("--rebuild", action="store_true", help="first rebuild the Parquet tables from events.jsonl")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.leaderboard", lambda: _print(args))


def _print(args: argparse.Namespace) -> int:
    from digits_core.terminal import open_console

    console = open_console()
    folders, faults, documents = find_runs(args.runs), 0, []
    for folder in folders:
        try:
            if args.rebuild:
                rebuild(folder)
            board, record = read_leaderboard(folder), read_record_of(folder)
            if args.json:
                documents.append(document_of(board, record, folder, top=args.top, whole=args.all))
            else:
                _print_run(board, record, folder, args, console)
        except RunError as error:  # show the other runs
            if len(folders) == 1:
                raise
            faults += 1
            say(f"{CALLED_AS.get() or 'results.leaderboard'}: {error}", error=True)
    if args.json:
        say_json({"runs": documents})
    return 2 if faults else 0


def document_of(
    board: pd.DataFrame, record: RunRecord, folder: Path, *, top: int | None = None, whole: bool = False
) -> dict[str, Any]:
    """The leaderboard of a run as values for JSON.

    Args:
        board: as `read_leaderboard` returns it.
        record: the run's.
        folder: the run folder.
        top: rows to keep; None keeps all.
        whole: one row per trial, as with `--all`.
    """
    shown, _ = in_order(board, whole=whole)
    rows = []
    for rank, row in enumerate(json_rows(shown.head(len(shown) if top is None else top)), start=1):
        rows.append({"rank": rank, **row, **{name: _parsed(row[name], folder) for name in ("config", "model")}})
    return {
        "run": record.run,
        "folder": str(folder),
        "metric": record.metric,
        "note": read_note(folder),
        "tags": read_tags(folder),
        "notes": [*_notes(record, folder), *check_words(record)],
        "rows": rows,
    }


def _parsed(text: str | None, folder: Path) -> Any:
    """The values of a column that holds JSON."""
    try:
        return None if text is None else json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        raise RunError(f"{folder / LEADERBOARD_FILE} is damaged; {rebuild_words(folder)}") from None


def _notes(record: RunRecord, folder: Path) -> list[str]:
    return [*length_words(record), *confirmation_words(record, folder), *twin_words(record)]


def _print_run(board: pd.DataFrame, record: RunRecord, folder: Path, args: argparse.Namespace, console: Any) -> None:
    console.print(str(folder))
    note, tags = read_note(folder), read_tags(folder)
    for name, text in (("note", note), ("tags", ", ".join(tags))):
        if text:
            console.print(f"{name}: {text}", soft_wrap=True)
    print_leaderboard(board, record.metric, console, top=args.top, whole=args.all)
    for line in _notes(record, folder):
        console.print(line, soft_wrap=True)
    for line in check_words(record):
        console.print(line, style="bold red" if line.startswith(ERROR) else None, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
