"""python -m results.export: writes leaderboards or epochs as csv, json, md, latex, parquet or xlsx."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from digits_core.command import CommandParser, run_command, say
from results.record.folder import EPOCHS_FILE, RUNS_HELP, find_runs
from results.tables.formats import FORMATS, export_table
from results.tables.parquet import read_table
from results.views.leaderboard import read_leaderboards, rebuild

TABLES = ("leaderboard", "epochs")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.export",
        description="Write the leaderboard (or the epochs) of one or more runs into one file.",
        epilog="example: python -m results.export runs/my-search --format csv -o leaderboard.csv",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument("--format", required=True, metavar="F", help=" | ".join(FORMATS))
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("--table", choices=TABLES, default="leaderboard", help="table to write (default leaderboard)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.export", lambda: _export(args))


def _export(args: argparse.Namespace) -> int:
    folders = find_runs(args.runs)
    table = read_leaderboards(folders) if args.table == "leaderboard" else _epochs(folders)
    export_table(table, args.format, args.out)
    say(f"wrote {args.out}: {len(table)} rows of {len(folders)} run{'s' * (len(folders) != 1)}")
    return 0


def _epochs(folders: list[Path]) -> pd.DataFrame:
    for folder in folders:
        if not (folder / EPOCHS_FILE).exists():
            rebuild(folder)
    return pd.concat([read_table(folder / EPOCHS_FILE) for folder in folders], ignore_index=True)


if __name__ == "__main__":
    raise SystemExit(main())
