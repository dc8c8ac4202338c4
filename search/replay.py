"""python -m search.replay: decides a run again from its record, and compares settings and decisions with it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from digits_core.command import CommandParser, run_command, say
from digits_core.data.cache import open_data
from digits_core.data.coco import Table
from digits_core.errors import RunError, UserError
from digits_core.model.anchors import setting_digest
from results.record.events import Event
from results.record.folder import RUN_HELP, find_run, read_record_of, read_run_file
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
  python -m search.replay runs/my-search

exit codes: 0 every decision is the same, 1 some are not, 2 a mistake in what was asked
"""


@dataclass(slots=True)
class Replay:
    """What a replay found.

    Attributes:
        reports: scores told to the scheduler.
        stops: of them, those after which it stopped the trial.
        proposals: settings that were proposed again.
        drivers: starts of the search.
        differing: decisions and settings that the record has otherwise, in words.
        lost: events that a repair of the record dropped.
    """

    reports: int = 0
    stops: int = 0
    proposals: int = 0
    drivers: int = 0
    differing: list[str] = field(default_factory=list)
    lost: int = 0


def replay(folder: Path, table: Table | None = None) -> Replay:
    """Tell the reports of a run, in the order of arrival, to one scheduler that never stopped.

    Args:
        folder: the run folder.
        table: the annotations of its training split; with them its settings are proposed again, too.

    Raises:
        RunError: there is no record, it is damaged, or it does not name its scheduler.
    """
    record, found = RunRecord(folder.name), Replay()
    stopping: Stopping | None = None
    policy: Policy | None = None
    read = RunRecord(folder.name)  # one event ahead of `record`
    for event in read_events(folder, read):
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
                f"report {one.number}, {one.trial_id} at epoch {one.epoch}: recorded {one.cut or 'goes on'}; "
                f"replayed {cut or 'goes on'}"
            )
    found.lost = record.num_lost
    return found


def policy_of(folder: Path, event: Event, table: Table) -> Policy | None:
    """What decided in a run from its `run` event on.

    None where the event does not say enough, or names a space file that the user has not named on this machine.
    """
    if not {"space", "sampler", "seed", "screen"} <= event.keys():
        return None  # of an older version
    settings = _of_space(resumed_settings(str(folder.parent), folder.name), str(event["space"]))
    if not all(is_remembered(one) for one in _choices(settings)):
        return None
    names = ("trials", "epochs", "sampler", "seed", "replicates", "replicate_top", "confirm")
    plan = make_plan(replace(settings, **{name: event[name] for name in names if name in event}))
    return Policy(plan, Screen(table, active=event["screen"]))


def _of_space(settings: SearchSettings, space: str) -> SearchSettings:
    return replace(settings, space=space, space_files=space_files(space))


def _choices(settings: SearchSettings) -> list[Choice]:
    """What of a run only the user may choose, as far as proposing needs it: code that is run, data that is fetched."""
    return [one for one in choices_of(settings) if one.flag in ("--space", "--data")]


def _propose_again(policy: Policy, record: RunRecord, event: Event, found: Replay) -> None:
    """Compare a new trial with what is decided from all that had been reported before it."""
    # Whatever had not ended then was in a slot: otherwise it would have gone on in the place of this one.
    again = policy.next_action(record, running=record.trials)
    found.proposals += 1
    role, words = event.get("role", "search"), "nothing"
    if isinstance(again, Add):
        config = again.proposed.config
        if (again.role, setting_digest(config), config.runtime.seed) == (role, event["config_hash"], event["seed"]):
            return
        words = _words(again.role, again.proposed.baseline, again.proposed.params)
    recorded = _words(role, event["baseline"], event["params"])
    found.differing.append(f"setting {event['n']}, {event['trial_id']}: recorded {recorded}; replayed {words}")


def _words(role: str, baseline: str | None, params: dict[str, Any]) -> str:
    return str(baseline or params) if role == "search" else role


def training_table(folder: Path) -> Table | str:
    """The annotations of a run's training split, or why they cannot be had."""
    try:
        settings = resumed_settings(str(folder.parent), folder.name)
        if not all(is_remembered(one) for one in _choices(_of_space(settings, settings.space))):
            return "its space or its data was not named on this machine before"
        data = open_data(settings.data)
        known = (read_run_file(folder).get("data") or {}).get("fingerprint")
    except UserError as error:
        return str(error)
    return data.train.table if data.fingerprint == known else f"the data at {settings.data.folder} has changed"


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.replay",
        description="Propose the settings of a run again, decide again which trials stop, and compare both with its "
        "record: they are the same, however often the run was interrupted.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)

    def show() -> int:
        folder = find_run(args.run).resolve()
        read_record_of(folder)  # what is wrong with the record is said before the data is looked for
        table = training_table(folder)
        found = replay(folder, None if isinstance(table, str) else table)
        for line in found.differing:
            say(line)
        if isinstance(table, str):
            say(f"settings not proposed again: {table}")
        say(
            f"{found.proposals} settings and {found.reports} reports in {found.drivers} "
            f"start{'s' * (found.drivers != 1)} of the search: {found.stops} trials stopped, {len(found.differing)} "
            "of these differ"
        )
        if found.lost:
            say(f"{found.lost} events were lost to damage, and the record was repaired: scores among them are not told")
        return 1 if found.differing else 0

    return run_command("search.replay", show)


if __name__ == "__main__":
    raise SystemExit(main())
