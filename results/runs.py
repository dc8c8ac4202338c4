"""python -m results.runs: lists and removes run folders, and stores notes and tags about them."""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from digits_core.command import JSON_HELP, CommandParser, run_command, say, say_json
from digits_core.errors import RunError, UsageError, UserError, did_you_mean, printable
from digits_core.files import folder_bytes, size_words
from results.record.folder import find_run, find_runs, read_record_of, read_run_file
from results.record.lock import DRIVER_FILE, driver_at_work, lock_run
from results.record.schema import ENDED
from results.views.note import MOST_LETTERS, TAG_LETTERS, add_tag, read_note, read_tags, remove_tag, write_note


class Run(NamedTuple):
    """The summary of a run folder; unknown values of a damaged run are None.

    Attributes:
        folder: the run folder.
        started: start time from run.json, UTC.
        space, data: search space and data folder.
        trials, ended: number of trials without retrainings, and of those that have ended.
        metric, best: the metric, and its value for the best configuration.
        size: bytes on disk.
        storage: place of its checkpoints and its copy, if set.
        fault: why it cannot be read.
        note: its note.
        tags: its tags.
    """

    folder: Path
    started: str | None
    space: str | None
    data: str | None
    trials: int
    ended: int
    metric: str | None
    best: float | None
    size: int
    storage: str | None
    fault: str | None
    note: str | None
    tags: list[str]


def look(folder: Path) -> Run:
    """Summarise one run folder; a damaged run as far as possible."""
    size, _ = folder_bytes(folder)
    note, tags = read_note(folder), read_tags(folder)
    try:
        tree = read_run_file(folder)
        record = read_record_of(folder)
    except UserError as error:
        return Run(folder, None, None, None, 0, 0, None, None, size, None, str(error), note, tags)
    settings = tree.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    data = settings.get("data")
    trials = [one for one in record.trials.values() if one.status != "screened" and one.role != "retrain"]
    winner = record.winner()
    return Run(
        folder,
        _text(tree.get("started_at")),
        _text(settings.get("space")),
        _text(data.get("folder")) if isinstance(data, dict) else None,
        len(trials),
        sum(trial.status in ENDED for trial in trials),
        record.metric,
        None if winner is None else record.standing(winner),
        size,
        _text(settings.get("storage")),
        None,
        note,
        tags,
    )


def print_runs(runs: list[Run], console: Any) -> None:
    """Print a table of runs, newest last."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    more = [name for name in ("tags", "note") if any(getattr(run, name) for run in runs)]
    headers = ("run", "started (UTC)", "space", "data", "trials", "best", "size")
    for header in (*headers, *more):
        table.add_column(header, justify="right" if header in ("trials", "best", "size") else "left", overflow="fold")
    for run in sorted(runs, key=lambda one: (one.started or "", one.folder.name)):
        best = "-" if run.best is None else f"{run.metric} {run.best:.2f}"
        open_ones = f" ({run.trials - run.ended} open)" if run.trials > run.ended else ""
        cells = (
            run.folder.name,
            (run.started or "-").replace("T", " ").rstrip("Z")[:16],
            run.space or "-",
            run.data or "-",
            f"{run.trials}{open_ones}" if run.fault is None else "damaged",
            best,
            size_words(run.size),
        )
        words = {"tags": ", ".join(run.tags), "note": run.note or ""}
        table.add_row(*cells, *(words[name] for name in more))
    console.print(table)
    total = sum(run.size for run in runs)
    console.print(f"{len(runs)} run{'s' * (len(runs) != 1)}, {size_words(total)}")


def document_of(run: Run) -> dict[str, Any]:
    """The summary of a run as values for JSON; `size_bytes` is its size on disk."""
    tree = {"run": run.folder.name, **run._asdict(), "folder": str(run.folder)}
    return {"size_bytes" if name == "size" else name: value for name, value in tree.items()}


def remove(folders: list[Path]) -> None:
    """Delete run folders.

    Raises:
        RunError: a process writes one of them; none is deleted then.
    """
    locks = []
    try:
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                driver = driver_at_work((folder / DRIVER_FILE).read_bytes())
                if driver is not None:
                    raise RunError(f"{printable(str(folder))} is the copy of a run that {printable(driver)} writes")
            locks.append(lock_run(folder))
        for folder in folders:
            shutil.rmtree(folder)
    finally:
        for lock in locks:
            lock.close()


_EPILOG = """
examples:
  digit-search runs
  digit-search runs --note anchors-1 "with the corrected labels"
  digit-search runs --tag anchors-1 baseline
  digit-search runs --with-tag baseline
  digit-search runs runs --remove anchors-1 anchors-2
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.runs",
        description="List the runs in a folder with space, data, best score and size; store a note or tags of a run.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), help="folder that contains run folders (default runs)"
    )
    parser.add_argument(
        "--note",
        nargs=2,
        metavar=("NAME", "TEXT"),
        help=f"store a note of at most {MOST_LETTERS} characters about this run; an empty text removes it",
    )
    parser.add_argument(
        "--tag",
        nargs=2,
        metavar=("NAME", "TAG"),
        help=f"give this run a tag: one word of at most {TAG_LETTERS} characters",
    )
    parser.add_argument("--untag", nargs=2, metavar=("NAME", "TAG"), help="take a tag from this run")
    parser.add_argument("--with-tag", metavar="TAG", help="list only the runs that have this tag")
    parser.add_argument("--remove", nargs="+", metavar="NAME", help="delete these runs after a confirmation")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.add_argument("--yes", action="store_true", help="delete without confirmation")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.runs", lambda: _handle(args))


def _handle(args: argparse.Namespace) -> int:
    from digits_core.terminal import open_console

    if args.yes and not args.remove:
        raise UsageError("--yes: needs --remove")
    if args.json and args.remove:
        raise UsageError("--json: lists runs, so it cannot be combined with --remove")
    stored = _store(args)
    if stored is not None:
        return stored
    if args.remove and args.with_tag is not None:
        raise UsageError("--with-tag: lists runs, so it cannot be combined with --remove")
    console = open_console()
    folders = find_runs([args.folder])
    if args.remove is None:
        listed = sorted(map(look, folders), key=lambda one: (one.started or "", one.folder.name))
        if args.with_tag is not None:
            known = {tag for run in listed for tag in run.tags}
            listed = [run for run in listed if args.with_tag in run.tags]
            if not listed and not args.json:
                said = f"no run in {printable(str(args.folder))} has the tag '{printable(args.with_tag)}'"
                say(said + did_you_mean(args.with_tag, sorted(known)))
                return 0
        if args.json:
            say_json({"runs": [document_of(run) for run in listed]})
        else:
            print_runs(listed, console)
        return 0
    named = {folder.name: folder for folder in folders}
    lacking = [name for name in args.remove if name not in named]
    if lacking:
        raise RunError(f"--remove {printable(lacking[0])}: {printable(str(args.folder))} has no such run")
    chosen = [named[name] for name in dict.fromkeys(args.remove)]
    runs = [look(folder) for folder in chosen]
    print_runs(runs, console)
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("--remove: needs a terminal to confirm, or --yes")
        if input("delete these runs permanently? [y/N] ").strip().lower() not in ("y", "yes"):
            console.print("nothing was deleted")
            return 0
    remove(chosen)
    for run in runs:
        if run.storage is not None:
            console.print(f"{run.folder.name}: the copy in {run.storage} is not deleted", soft_wrap=True)
    console.print(f"deleted {len(chosen)} run{'s' * (len(chosen) != 1)}, {size_words(sum(run.size for run in runs))}")
    return 0


def _store(args: argparse.Namespace) -> int | None:
    """Do what `--note`, `--tag` or `--untag` asks for; None if none of them is given."""
    writes = {"--note": (args.note, _note), "--tag": (args.tag, _tag), "--untag": (args.untag, _untag)}
    given = [flag for flag, (values, _) in writes.items() if values is not None]
    others = {"--with-tag": args.with_tag is not None, "--remove": bool(args.remove), "--json": args.json}
    if given:
        beside = [*given[1:], *(flag for flag, is_given in others.items() if is_given)]
        if beside:
            raise UsageError(f"{given[0]}: cannot be combined with {beside[0]}")
        (name, text), store = writes[given[0]]
        return store(name, text, args.folder)
    return None


def _note(name: str, text: str, out: Path) -> int:
    folder = find_run(name, out)
    before = read_note(folder)
    write_note(folder, text)
    now = read_note(folder)
    if now is not None:
        say(f"{folder}: stored the note: {now}")
    else:
        say(f"{folder}: removed the note" if before is not None else f"{folder}: has no note")
    return 0


def _tag(name: str, tag: str, out: Path) -> int:
    folder = find_run(name, out)
    say(f"{folder}: has the tags {', '.join(add_tag(folder, tag))}")
    return 0


def _untag(name: str, tag: str, out: Path) -> int:
    folder = find_run(name, out)
    left = remove_tag(folder, tag)
    say(f"{folder}: has the tags {', '.join(left)}" if left else f"{folder}: has no tags")
    return 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


if __name__ == "__main__":
    raise SystemExit(main())
