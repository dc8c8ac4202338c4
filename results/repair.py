"""python -m results.repair: describes the damage of a record and writes the recovered part."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from digits_core.command import JSON_HELP, CommandParser, run_command, say, say_json
from digits_core.errors import ConfigError, RunError
from results.record.folder import BEST_FILE, RUN_HELP, find_run, read_run_file
from results.record.lock import lock_run, unlock_run
from results.record.log import EVENTS_FILE
from results.record.salvage import STRAY, Piece, Salvage, salvage
from results.record.schema import ENDED
from results.tables.parquet import free_name, keep_aside, write_text
from results.views.leaderboard import rebuild
from results.views.winner import write_best

_EPILOG = """
examples:
  digit-search repair runs/my-search            describe the damage; change nothing
  digit-search repair runs/my-search --write    keep a copy of the damaged file and write the recovered record

exit codes: 0 not damaged, or repaired; 1 damaged and not changed; 2 wrong arguments
"""


def look(folder: Path) -> Salvage:
    """The recoverable and lost parts of the record of a run; changes nothing.

    Raises:
        RunError: the folder is not a run.
    """
    try:
        about = read_run_file(folder)
    except RunError:  # the record contains most of it
        about = {}
    return salvage((folder / EVENTS_FILE).read_bytes(), folder.resolve().name, about)


def write_repaired(folder: Path, found: Salvage) -> Path:
    """Keep a copy of the damaged record, write the recovered one, and rebuild the views.

    Args:
        folder: the run folder; the caller has its lock.
        found: the result of `look`.

    Returns:
        The copy of the damaged record.
    """
    path = folder / EVENTS_FILE
    kept = keep_aside(path)
    events = [*found.events, found.repaired(kept.name, datetime.now(UTC).isoformat(timespec="milliseconds"))]
    write_text(path, "".join(json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n" for event in events))
    record = rebuild(folder)
    if (folder / BEST_FILE).is_file() and record.winner() is not None:
        with contextlib.suppress(ConfigError):  # of another version: a resume writes it again
            write_best(folder, record)
    return kept


def lost_lines(found: Salvage) -> list[str]:
    """One line per dropped piece; other events of dropped trials in one line per trial."""
    lines, with_trial = [], dict[str, list[Piece]]()
    for piece in found.lost:
        trial_id = piece.seems.get("trial_id")
        if trial_id in found.gone and piece.fault.startswith("names an unknown trial"):
            with_trial.setdefault(trial_id, []).append(piece)
        else:
            where = f"line {piece.line}, bytes {piece.start} to {piece.end - 1}"
            lines.append(f"{where}: {piece.words} ({piece.fault})")
    for trial_id, pieces in with_trial.items():
        what = f"{len(pieces)} other events" if len(pieces) > 1 else "another event"
        lines.append(
            f"{_ranges([piece.line for piece in pieces])}: {what} of trial {trial_id}, whose configuration is lost"
        )
    if found.missing:
        what = f"{found.missing} events are" if found.missing > 1 else "one event is"
        lines.append(f"{what} not in the file, according to the event numbers")
    if found.renumbered and not lines:
        lines.append("nothing; but event numbers do not match the order, so events are renumbered")
    return lines


def _ranges(numbers: list[int]) -> str:
    """`line 3`, or `lines 3 to 5, 8`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    words = ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    return f"line{'s' * (len(numbers) > 1)} {words}"


def affected_lines(found: Salvage) -> list[str]:
    """The consequences for the run."""
    lines = []
    for start in found.restored:
        which = f"the start of the search at event {start['n']}" if start["n"] > 1 else "the first start of the search"
        lines.append(
            f"{which}, with the metric {start['metric']}, is reconstructed from other starts, its trials and run.json"
        )
    for trial_id in found.gone:
        lines.append(f"trial {trial_id} is lost, its files stay; a resume may try its configuration again")
    for trial_id, trial in sorted(found.record.trials.items()):
        mine = [piece for piece in found.lost if piece.seems.get("trial_id") == trial_id]
        kinds = {piece.kind for piece in mine}
        epochs = {piece.seems.get("epoch") for piece in mine if piece.kind == "report"} - trial.epochs.keys()
        if epochs:
            named = ", ".join(str(epoch or "?") for epoch in sorted(epochs, key=lambda one: one or 0))
            lines.append(f"trial {trial_id} lacks the scores of epoch {named}")
        if "end" in kinds and trial.status not in ENDED:
            lines.append(f"trial {trial_id} counts as not ended, and a resume continues it")
        if "checkpoint" in kinds and trial.status not in ENDED:
            lines.append(f"trial {trial_id} continues from an earlier checkpoint or from the start at a resume")
        if "kept" in kinds:
            kept = f"kept in {trial.checkpoint}" if trial.checkpoint else "not kept"
            lines.append(f"the model of trial {trial_id} counts as {kept}")
        if kinds & {"start", "fault", "longer", "claim", None}:
            named = ", ".join(
                piece.words for piece in mine if piece.kind in ("start", "fault", "longer", "claim", None)
            )
            lines.append(f"trial {trial_id} lacks {named}")
    nameless = [piece for piece in found.lost if "trial_id" not in piece.seems and piece.kind not in (STRAY, "run")]
    open_ones = [trial_id for trial_id, trial in sorted(found.record.trials.items()) if trial.status not in ENDED]
    if (found.missing or nameless) and open_ones:
        lines.append(f"these trials count as not ended, and a resume continues them: {', '.join(open_ones)}")
    if any(piece.kind in ("report", "trial", None) for piece in found.lost) or found.missing:
        lines.append("early stopping and sampler do not know the lost events: digit-search replay may find differences")
    return lines


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.repair",
        description="Describe the damage in the record of a run (events.jsonl) and what the run lacks without it. "
        "With --write, keep a copy of the damaged file and write the recovered record.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the recovered record and its tables; the old file is kept as events.jsonl.damaged-N",
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.repair", lambda: _repair(args))


def _repair(args: argparse.Namespace) -> int:
    folder = find_run(args.run)
    lock = lock_run(folder)
    try:
        found = look(folder)
        kept = write_repaired(folder, found) if args.write and not found.sound else None
    finally:
        unlock_run(lock)
    if args.json:
        say_json(document_of(folder, found, kept))
    else:
        _report(folder, found, kept)
    return 0 if found.sound or kept is not None else 1


def document_of(folder: Path, found: Salvage, kept: Path | None) -> dict[str, Any]:
    """The damage of a record as values for JSON; `kept` is the copy of the damaged file after a repair."""
    return {
        "file": str(folder / EVENTS_FILE),
        "damaged": not found.sound,
        "incomplete_line": None if found.cut is None else found.cut.line,
        "events": len(found.events),
        "trials": len(found.record.trials),
        "dropped": [] if found.sound else lost_lines(found),
        "affected": [] if found.sound else affected_lines(found),
        "damaged_copy": None if kept is None else str(kept),
    }


def _report(folder: Path, found: Salvage, kept: Path | None) -> None:
    path = folder / EVENTS_FILE
    if found.cut is not None:
        say(f"{path} line {found.cut.line} is incomplete, as after a crash: the next resume removes it")
    if found.sound:
        say(f"{path} is not damaged: {len(found.events)} events of {len(found.record.trials)} trials")
        return
    say(f"{path} is damaged; {len(found.events)} events of {len(found.record.trials)} trials can be kept")
    say("to be dropped:" if kept is None else "dropped:")
    for line in lost_lines(found):
        say(f"  {line}")
    say("affected:")
    for line in affected_lines(found) or ["nothing"]:
        say(f"  {line}")
    if kept is None:
        say(
            f"nothing was changed; digit-search repair {quote(str(folder))} --write keeps the old file as "
            f"{free_name(path).name} and writes the recovered record"
        )
    else:
        say(f"wrote {path} and its tables; the damaged record is {kept}")


if __name__ == "__main__":
    raise SystemExit(main())
