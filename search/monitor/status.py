"""Prints the state of a search, read from its record by another process."""

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from digits_core.command import say_json
from digits_core.terminal import open_console
from results.record.folder import find_run
from results.record.lock import writer_of
from results.record.run import RunRecord
from results.record.schema import ENDED, FAILED
from results.views.opened_run import OpenedRun, open_run
from search.cli.run_folder import planned, resumed_settings
from search.monitor.epoch_progress import Reached, progress_of, read_progress
from search.monitor.summary import resume_command
from search.monitor.view import SearchView
from search.policy.replicates import most_further


def print_status(name: str | None, out: Path, *, as_json: bool = False) -> int:
    """Print the running trials, the best ones and the command to resume; does not load the run's spaces. Returns 0.

    Args:
        name: of the run in `out`, or the path of its folder; None means the latest.
        out: the folder of run folders.
        as_json: print one JSON document instead.

    Raises:
        RunError: there is no such run, or its files are damaged.
    """
    folder = find_run(name, out)
    run = open_run(folder)
    record = run.record
    settings = resumed_settings(str(folder.parent), folder.name)
    trials, epochs = planned(folder)
    expected = trials + most_further(settings, trials)
    writer = writer_of(folder)
    to_come = [trial for trial in record.trials.values() if trial.status in ("running", "interrupted")]
    open_ones = to_come or len(record.trials) < trials
    resume = resume_command(settings) if not writer and open_ones else None
    reached = read_progress(folder) if writer else {}
    if as_json:
        say_json(status_document(run, (expected, epochs), reached, writer, resume))
        return 0
    running = [trial for trial in record.trials.values() if trial.status == "running" and trial.since is not None]
    view = SearchView(
        run.base.to_flat(),
        trials=expected,
        epochs=epochs,
        slots=max(len(running), 1),
        started=time.monotonic() - _age(record),
        folder=folder,
        reached=reached,
    )
    console = open_console(sys.stdout)
    state = f"running, written by {writer}" if writer else "not running"
    console.print(f"{folder}: {state}", soft_wrap=True)
    if running and writer:
        console.print(view.table(record, console.width))
    console.print(view.leaders(record, console.width))
    summary = view.summary(record)
    for line in summary if writer else summary[:1]:  # without a driver there is no time left to estimate
        console.print(line, soft_wrap=True)
    for trial in (one for one in record.trials.values() if one.status in FAILED):
        console.print(f"{trial.trial_id} {trial.status}: {trial.stop_reason}", style="yellow", soft_wrap=True)
    if resume is not None:
        console.print(f"resume with {resume}", soft_wrap=True)
    return 0


OUTLOOK_KEYS = ("trials", "more", "gain", "chance", "expected")
"""The values of the outlook in the JSON document."""


def status_document(
    run: OpenedRun,
    planned: tuple[int, int],
    found: Mapping[str, Reached],
    writer: str | None,
    resume: str | None,
) -> dict[str, Any]:
    """The state of a search as values for JSON.

    Args:
        run: the opened run.
        planned: number of trainings that the search plans, and of epochs of a full training.
        found: the progress of running trials inside their epochs.
        writer: the process that writes the run; None if there is none.
        resume: the command that continues the search; None if there is nothing to continue or it is running.
    """
    record = run.record
    expected, epochs = planned
    winner = record.winner()
    reached = {trial.trial_id: progress_of(trial, found) for trial in record.trials.values()}
    trials = [trial for trial in record.trials.values() if trial.role != "retrain"]
    return {
        "run": run.name,
        "folder": str(run.folder),
        "running": writer is not None,
        "writer": writer,
        "metric": record.metric,
        "trials_expected": expected,
        "trials_ended": sum(trial.status in ENDED for trial in trials),
        "seconds": _age(record),
        "best": None if winner is None else winner.trial_id,
        "best_score": None if winner is None else record.standing(winner),
        "resume": resume,
        "outlook": None if record.outlook is None else {key: record.outlook[key] for key in OUTLOOK_KEYS},
        "trials": [
            {
                "trial_id": trial.trial_id,
                "role": trial.role,
                "baseline": trial.baseline,
                "status": trial.status,
                "epochs": trial.num_epochs,
                "epochs_expected": epochs,
                "epoch_share": None if (share := reached[trial.trial_id]) is None else share.share,
                "score": record.value(trial),
                "stop_reason": trial.stop_reason,
            }
            for trial in trials
        ],
    }


def _age(record: RunRecord) -> float:
    """Seconds from the first start of a trial to the last report, or to now if a trial runs."""
    starts = [trial.started_at for trial in record.trials.values() if trial.started_at is not None]
    if not starts:
        return 0.0
    reports = [one["reported_at"] for trial in record.trials.values() for one in trial.epochs.values()]
    running = any(trial.status == "running" and trial.since is not None for trial in record.trials.values())
    last = datetime.now(UTC) if running else max([*starts, *reports])
    return (last - min(starts)).total_seconds()
