"""python -m results.export: writes leaderboards, epochs or detections for other programs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from digits_core.command import CommandParser, run_command, say, say_text
from digits_core.errors import UsageError, did_you_mean, printable
from results.record.folder import EPOCHS_FILE, RUNS_HELP, find_run, find_runs, read_record_of
from results.tables.formats import (
    BINARY_FORMATS,
    FOR_PAPER,
    FORMATS,
    TEXT_FORMATS,
    check_format,
    export_table,
    format_of,
)
from results.tables.parquet import read_table
from results.views.leaderboard import read_leaderboards, rebuild
from results.views.opened_run import open_run
from results.views.paper_table import epochs_for_paper, leaderboard_for_paper

TABLES = ("leaderboard", "epochs")

STANDARD_OUTPUT = Path("-")

_EPILOG = """
examples:
  digit-search export runs/my-search -o leaderboard.csv
  digit-search export runs/my-search -o leaderboard.tex
  digit-search export runs/my-search --columns trial_id,val_map,optim.lr --format csv -o -
  digit-search export runs/my-search --detections coco

md and latex get the columns that a paper needs unless --columns names others.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.export",
        description="Write the leaderboard (or the epochs) of one or more runs into a file, or detections as COCO.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument("--format", metavar="F", help=f"{' | '.join(FORMATS)} (default: the ending of FILE)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="file to write; - is the standard output")
    parser.add_argument("--table", choices=TABLES, default="leaderboard", help="table to write (default leaderboard)")
    parser.add_argument(
        "--columns", metavar="A,B", help="columns to write, in this order (default: all; md and latex: a selection)"
    )
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FOLDER",
        help="write the annotations and the detections of the two best configurations into this new folder, as COCO "
        "files (truth.json, TRIAL/detections.json); no model is run",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="with --detections: where the data of the run is now, for names of images"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.export", lambda: _export(args))


def _export(args: argparse.Namespace) -> int:
    if args.detections is not None:
        return _export_detections(args)
    if args.data is not None:
        raise UsageError("--data: has an effect only together with --detections")
    if args.out is None:
        raise UsageError("-o is missing: name a file to write, or give --detections FOLDER")
    form = chosen_format(args.format, args.out)
    folders = find_runs(args.runs)
    table = read_leaderboards(folders) if args.table == "leaderboard" else _epochs(folders)
    if args.columns is not None:
        table = table[chosen_columns(args.columns, [str(name) for name in table.columns])]
    elif form in FOR_PAPER:
        metrics = list(dict.fromkeys(read_record_of(folder).metric for folder in folders))
        of_table = leaderboard_for_paper if args.table == "leaderboard" else epochs_for_paper
        table = of_table(table, metrics)
    if args.out == STANDARD_OUTPUT:
        say_text(TEXT_FORMATS[form](table))
        return 0
    export_table(table, form, args.out)
    say(f"wrote {args.out}: {len(table)} rows of {len(folders)} run{'s' * (len(folders) != 1)}")
    return 0


def _export_detections(args: argparse.Namespace) -> int:
    """Write the detections of the two best configurations of one run."""
    from results.views.detections import write_detections

    for flag, value in (("-o", args.out), ("--format", args.format), ("--columns", args.columns)):
        if value is not None:
            raise UsageError(f"--detections: cannot be combined with {flag}")
    if args.table != TABLES[0]:
        raise UsageError("--detections: cannot be combined with --table")
    if len(args.runs) > 1:
        raise UsageError(f"--detections: takes one run, got {len(args.runs)}")
    done = write_detections(open_run(find_run(args.runs[0] if args.runs else None)), args.detections, args.data)
    each = ", ".join(f"{trial_id}/detections.json ({count:,})" for trial_id, count in done.detections.items())
    say(f"wrote truth.json ({done.annotations:,} boxes on {done.images:,} images), {each} to {args.detections}")
    if done.note is not None:
        say(done.note)
    return 0


def chosen_format(form: str | None, out: Path) -> str:
    """The format of `--format`, or that of the file's ending.

    Raises:
        UsageError: the format is unknown or missing, or a binary format is asked for on the standard output.
    """
    if form is None and out == STANDARD_OUTPUT:
        raise UsageError(f"-o -: needs --format: {', '.join(TEXT_FORMATS)}")
    form = format_of(out) if form is None else form
    check_format(form)
    if out == STANDARD_OUTPUT and form in BINARY_FORMATS:
        raise UsageError(f"-o -: {form} is a binary format; name a file")
    return form


def chosen_columns(names: str, known: Sequence[str]) -> list[str]:
    """The columns that `--columns` names, in that order.

    Raises:
        UsageError: a column is unknown, or none is named.
    """
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not chosen:
        raise UsageError("--columns: names no column; write for example --columns trial_id,val_map")
    for name in chosen:
        if name not in known:
            raise UsageError(f"--columns {printable(name)}: the table has no such column{did_you_mean(name, known)}")
    return chosen


def _epochs(folders: list[Path]) -> pd.DataFrame:
    for folder in folders:
        if not (folder / EPOCHS_FILE).exists():
            rebuild(folder)
    return pd.concat([read_table(folder / EPOCHS_FILE) for folder in folders], ignore_index=True)


if __name__ == "__main__":
    raise SystemExit(main())
