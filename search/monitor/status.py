"""What a search is at, read from its record by another process."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from results.record.folder import find_run
from results.record.lock import writer_of
from results.record.run import RunRecord
from results.record.schema import FAILED
from results.record.trial import TrialRecord
from results.views.opened_run import open_run
from search.cli.run_folder import planned, resumed_settings
from search.monitor.progress import Progress
from search.monitor.summary import resume_command
from search.policy.replicates import most_further


def print_status(name: str | None, out: Path) -> int:
    """Print what runs, what was reached, and how to go on; returns 0. The run's spaces are not looked at.

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
    progress = Progress(
        sys.stdout,
        run.base.to_flat(),
        trials=trials,
        further=most_further(settings, trials),
        epochs=epochs,
        slots=max(len(running), 1),
        started=time.monotonic() - _age(record),
        folder=folder,
    )
    writer = writer_of(folder)
    state = f"running, written by {writer}" if writer else "not running"
    progress.console.print(f"{folder}: {state}", soft_wrap=True)
    if running and writer:
        progress.console.print(progress.table(record))
    progress.console.print(progress.leaders(record))
    summary = progress.summary(record)
    for line in summary if writer else summary[:1]:  # nothing is left of what nobody drives
        progress.console.print(line, soft_wrap=True)
    for trial in _troubled(record):
        progress.console.print(f"{trial.trial_id} {trial.status}: {trial.stop_reason}", style="yellow", soft_wrap=True)
    to_come = [trial for trial in record.trials.values() if trial.status in ("running", "interrupted")]
    if not writer and (to_come or len(record.trials) < trials):
        progress.console.print(f"go on with  {resume_command(settings)}", soft_wrap=True)
    return 0


def _age(record: RunRecord) -> float:
    """Seconds from the first start of a trial to the last sign of one, or to now where something runs."""
    starts = [trial.started_at for trial in record.trials.values() if trial.started_at is not None]
    if not starts:
        return 0.0
    reports = [one["reported_at"] for trial in record.trials.values() for one in trial.epochs.values()]
    running = any(trial.status == "running" and trial.since is not None for trial in record.trials.values())
    last = datetime.now(UTC) if running else max([*starts, *reports])
    return (last - min(starts)).total_seconds()


def _troubled(record: RunRecord) -> list[TrialRecord]:
    return [trial for trial in record.trials.values() if trial.status in FAILED]
