"""python -m search.replay: tells a run's reports to a fresh scheduler, and compares what it decides with the record."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from digits_core.command import CommandParser, run_command
from digits_core.errors import RunError, printable
from results.record import EVENTS_FILE, RunRecord, read_events
from results.store import find_run
from search.scheduler import RULES, Rule, fresh_rule

_EPILOG = """
examples:
  python -m search.replay runs/my-search

exit codes: 0 every decision is the same, 1 some are not, 2 a mistake in what was asked
"""


@dataclass(slots=True)
class Replay:
    """What a replay found.

    Attributes:
        reports: scores told to the scheduler.
        stops: of them, those after which it stopped the trial.
        drivers: starts of the search.
        differing: decisions that the record has otherwise, in words.
        lost: events that a repair of the record dropped.
    """

    reports: int = 0
    stops: int = 0
    drivers: int = 0
    differing: list[str] = field(default_factory=list)
    lost: int = 0


def replay(folder: Path) -> Replay:
    """Tell the reports of a run, in the order of arrival, to one scheduler that never stopped.

    Raises:
        RunError: there is no record, it is damaged, or it does not name its scheduler.
    """
    record, found = RunRecord(folder.name), Replay()
    rule: Rule | None = None
    for event in read_events(folder, record):
        if event["kind"] == "run":
            found.drivers += 1
            name = event.get("scheduler", "none")
            if name not in RULES:
                raise RunError(f"{folder / EVENTS_FILE}: event {event['n']} names the unknown scheduler {name}")
            rule = rule or fresh_rule(name, 0, record)
            rule.epochs = int(event.get("epochs", 0))
        if event["kind"] != "report" or rule is None or record.trials[event["trial_id"]].role != "search":
            continue
        one = record.arrivals[-1]
        if one.value is None:
            continue
        cut = rule.decide(one.trial_id, one.epoch, one.value)
        found.reports += 1
        found.stops += cut is not None
        if cut != one.cut:
            found.differing.append(
                f"report {one.number}, {one.trial_id} at epoch {one.epoch}: recorded {one.cut or 'goes on'}; "
                f"replayed {cut or 'goes on'}"
            )
    found.lost = record.num_lost
    return found


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.replay",
        description="Tell the reports of a run to a fresh scheduler and compare its decisions with the recorded ones: "
        "they are the same, however often the run was interrupted.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)

    def show() -> int:
        found = replay(find_run(args.run))
        for line in found.differing:
            print(printable(line))
        print(
            f"{found.reports} reports in {found.drivers} start{'s' * (found.drivers != 1)} of the search: "
            f"{found.stops} trials stopped, {len(found.differing)} decisions differ"
        )
        if found.lost:
            print(
                f"{found.lost} events were lost to damage, and the record was repaired: scores among them are not told"
            )
        return 1 if found.differing else 0

    return run_command("search.replay", show)


if __name__ == "__main__":
    raise SystemExit(main())
