"""python -m search.replay: repeats the decisions of a run from its record and compares them with the recorded ones."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from digits_core.command import JSON_HELP, CommandParser, run_command, say, say_json
from digits_core.data.cache import open_data
from digits_core.data.coco import Table
from digits_core.errors import RunError, UserError
from digits_core.model.anchors import setting_digest
from results.record.events import Event
from results.record.folder import RUN_HELP, find_run, read_run_file
from results.record.log import EVENTS_FILE, read_events
from results.record.run import RunRecord
from search.cli.run_folder import resumed_settings
from search.cli.settings import SearchSettings, make_plan
from search.cli.trusted import Choice, choices_of, is_remembered
from search.policy.decisions import Add, Policy
from search.policy.screen import Screen
from search.policy.stopping import RULES, Stopping
from spaces.catalogue import space_files

_EPILOG = """
examples:
  digit-search replay runs/my-search

exit codes: 0 every decision is the same, 1 some are not, 2 a mistake in what was asked
"""


@dataclass(slots=True)
class Replay:
    """The result of a replay.

    Attributes:
        reports: number of scores given to the scheduler.
        stops: number of scores after which it stopped the trial.
        proposals: number of repeated proposals.
        drivers: number of starts of the search.
        differing: decisions and configurations that differ from the record, in words.
        lost: number of events that a repair of the record dropped.
    """

    reports: int = 0
    stops: int = 0
    proposals: int = 0
    drivers: int = 0
    differing: list[str] = field(default_factory=list)
    lost: int = 0


def replay(folder: Path, table: Table | None = None, events: Iterable[Event] | None = None) -> Replay:
    """Give the reports of a run, in the order of their arrival, to a scheduler that was never interrupted.

    Args:
        folder: the run folder.
        table: the annotations of its training split; with them, the proposals are repeated, too.
        events: the events of the run, if they are already read.

    Raises:
        RunError: there is no record, it is damaged, or it does not name its scheduler.
    """
    record, found = RunRecord(folder.name), Replay()
    stopping: Stopping | None = None
    policy: Policy | None = None
    for event in read_events(folder, RunRecord(folder.name)) if events is None else events:
        if event["kind"] == "run" and table is not None:
            policy = policy_of(folder, event, table)
        if event["kind"] == "trial" and event.get("role") != "retrain" and policy is not None:
            _propose_again(policy, record, event, found)
        record.apply(event)
        if event["kind"] == "run":
            found.drivers += 1
            name = event.get("scheduler", "none")
            if name not in RULES:
                raise RunError(f"{folder / EVENTS_FILE}: event {event['n']} names the unknown scheduler {name}")
            stopping = Stopping(name, int(event.get("epochs", 0)))
        if event["kind"] != "report" or stopping is None or record.trials[event["trial_id"]].role != "search":
            continue
        one = record.arrivals[-1]
        if one.value is None:
            continue
        cut = stopping.judge(record, one.trial_id, one.epoch, one.value)
        found.reports += 1
        found.stops += cut is not None
        if cut != one.cut:
            found.differing.append(
                f"report {one.number}, {one.trial_id} at epoch {one.epoch}: recorded {one.cut or 'continues'}; "
                f"replayed {cut or 'continues'}"
            )
    found.lost = record.num_lost
    return found


def policy_of(folder: Path, event: Event, table: Table) -> Policy | None:
    """The policy of a run from a `run` event on.

    None if the event lacks settings, or the run needs a space file or data that the user has not typed on this machine.
    """
    if not {"space", "sampler", "seed", "screen"} <= event.keys():
        return None  # written by an older version
    settings = _of_space(resumed_settings(str(folder.parent), folder.name), str(event["space"]))
    if not all(is_remembered(one) for one in _choices(settings)):
        return None
    names = ("trials", "epochs", "sampler", "seed", "replicates", "replicate_top", "confirm", "until_settled", "gain")
    settings = replace(settings, until_settled=False)  # unless the event says it
    plan = make_plan(replace(settings, **{name: event[name] for name in names if name in event}))
    return Policy(plan, Screen(table, active=event["screen"]))


def _of_space(settings: SearchSettings, space: str) -> SearchSettings:
    return replace(settings, space=space, space_files=space_files(space))


def _choices(settings: SearchSettings) -> list[Choice]:
    """The choices of a run that proposals need and only the user may make: space files and remote data."""
    return [one for one in choices_of(settings) if one.flag in ("--space", "--data")]


def _propose_again(policy: Policy, record: RunRecord, event: Event, found: Replay) -> None:
    """Compare a recorded new trial with the policy's decision from the record before it."""
    # Every trial that had not ended was running: otherwise it would have been continued instead of this new one.
    again = policy.next_action(record, running=record.trials)
    found.proposals += 1
    role, words = event.get("role", "search"), "nothing"
    if isinstance(again, Add):
        config = again.proposed.config
        if (again.role, setting_digest(config), config.runtime.seed) == (role, event["config_hash"], event["seed"]):
            return
        words = _words(again.role, again.proposed.baseline, again.proposed.params)
    recorded = _words(role, event["baseline"], event["params"])
    found.differing.append(f"proposal {event['n']}, {event['trial_id']}: recorded {recorded}; replayed {words}")


def _words(role: str, baseline: str | None, params: dict[str, Any]) -> str:
    return str(baseline or params) if role == "search" else role


def training_table(folder: Path) -> Table | str:
    """The annotations of a run's training split, or why they cannot be used, in words."""
    try:
        settings = resumed_settings(str(folder.parent), folder.name)
        if not all(is_remembered(one) for one in _choices(_of_space(settings, settings.space))):
            return "its space file or its data address was not typed on this machine before"
        data = open_data(settings.data)
        known = (read_run_file(folder).get("data") or {}).get("fingerprint")
    except UserError as error:
        return str(error)
    return data.train.table if data.fingerprint == known else f"the data at {settings.data.folder} has changed"


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.replay",
        description="Repeat the proposals and the early stopping of a run and compare them with its record: they are "
        "the same, however often the run was interrupted.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def document_of(folder: Path, found: Replay, fault: str | None) -> dict[str, Any]:
    """The result of a replay as values for JSON; `fault` says why proposals are not repeated."""
    return {
        "run": str(folder),
        "starts": found.drivers,
        "reports": found.reports,
        "stopped": found.stops,
        "proposals": found.proposals,
        "proposals_not_repeated": fault,
        "differences": found.differing,
        "lost_events": found.lost,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)

    def show() -> int:
        folder = find_run(args.run).resolve()
        events = list(read_events(folder, RunRecord(folder.name)))  # before opening the data, which takes longer
        table = training_table(folder)
        found = replay(folder, None if isinstance(table, str) else table, events)
        if args.json:
            say_json(document_of(folder, found, table if isinstance(table, str) else None))
            return 1 if found.differing else 0
        for line in found.differing:
            say(line)
        if isinstance(table, str):
            say(f"proposals not repeated: {table}")
        say(
            f"{found.proposals} proposals and {found.reports} reports in {found.drivers} "
            f"start{'s' * (found.drivers != 1)} of the search: {found.stops} trials stopped, {len(found.differing)} "
            "differences"
        )
        if found.lost:
            say(f"{found.lost} events were lost when the record was repaired: their scores are missing in the replay")
        return 1 if found.differing else 0

    return run_command("search.replay", show)


if __name__ == "__main__":
    raise SystemExit(main())
