"""Prints the state of a search, read from its record by another process."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from digits_core.terminal import open_console
from results.record.folder import find_run
from results.record.lock import writer_of
from results.record.run import RunRecord
from results.record.schema import FAILED
from results.views.opened_run import open_run
from search.cli.run_folder import planned, resumed_settings
from search.monitor.summary import resume_command
from search.monitor.view import SearchView
from search.policy.replicates import most_further


def print_status(name: str | None, out: Path) -> int:
    """Print the running trials, the best ones and the command to resume; does not load the run's spaces. Returns 0.

    Args:
        name: of the run in `out`, or the path of its folder; None means the latest.
        out: the folder of run folders.

    Raises:
        RunError: there is no such run, or its files are damaged.
    """
    folder = find_run(name, out)
    run = open_run(folder)
    record = run.record
    settings = resumed_settings(str(folder.parent), folder.name)
    trials, epochs = planned(folder)
    running = [trial for trial in record.trials.values() if trial.status == "running" and trial.since is not None]
    view = SearchView(
        run.base.to_flat(),
        trials=trials + most_further(settings, trials),
        epochs=epochs,
        slots=max(len(running), 1),
        started=time.monotonic() - _age(record),
        folder=folder,
    )
    console = open_console(sys.stdout)
    writer = writer_of(folder)
    state = f"running, written by {writer}" if writer else "not running"
    console.print(f"{folder}: {state}", soft_wrap=True)
    if running and writer:
        console.print(view.table(record))
    console.print(view.leaders(record))
    summary = view.summary(record)
    for line in summary if writer else summary[:1]:  # without a driver there is no time left to estimate
        console.print(line, soft_wrap=True)
    for trial in (one for one in record.trials.values() if one.status in FAILED):
        console.print(f"{trial.trial_id} {trial.status}: {trial.stop_reason}", style="yellow", soft_wrap=True)
    to_come = [trial for trial in record.trials.values() if trial.status in ("running", "interrupted")]
    if not writer and (to_come or len(record.trials) < trials):
        console.print(f"resume with {resume_command(settings)}", soft_wrap=True)
    return 0


def _age(record: RunRecord) -> float:
    """Seconds from the first start of a trial to the last report, or to now if a trial runs."""
    starts = [trial.started_at for trial in record.trials.values() if trial.started_at is not None]
    if not starts:
        return 0.0
    reports = [one["reported_at"] for trial in record.trials.values() for one in trial.epochs.values()]
    running = any(trial.status == "running" and trial.since is not None for trial in record.trials.values())
    last = datetime.now(UTC) if running else max([*starts, *reports])
    return (last - min(starts)).total_seconds()
