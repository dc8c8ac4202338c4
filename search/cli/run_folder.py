"""Creates, describes, reopens and extends the run folder of a search."""

import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from digits_core.command import PACKAGES, version_of
from digits_core.config.train_config import TrainConfig
from digits_core.credentials import REMOVED, scrub
from digits_core.data.cache import DigitData
from digits_core.errors import RunError, UsageError, UserError, did_you_mean
from digits_core.evaluation.sweep import NUM_SWEPT
from digits_core.model.anchors import setting_digest
from results.record.folder import RUN_FILE, read_run_file, refuse_links
from results.record.log import EventWriter
from results.record.run import RunRecord
from results.record.schema import ENDED
from results.tables.parquet import write_text
from results.tables.samples import write_boxes, write_samples
from search.cli.settings import SearchSettings
from search.defaults import GRACE_EPOCHS, REDUCTION_FACTOR, rungs
from search.policy.plan import Plan
from search.storage.storage import Storage

MIN_FREE_BYTES = 2**30
"""Free disk space that a search needs to start."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that a run folder can be created, or resumed.

    Raises:
        UserError: a new folder exists, a folder to resume does not exist, or the disk is full or not writable.
    """
    if resume and not (folder / RUN_FILE).is_file():
        raise RunError(f"--resume {folder.name}: there is no run {folder}")
    if resume:
        refuse_links(folder)
    if not resume and folder.exists():
        raise UsageError(
            f"--name {folder.name}: {folder} exists; resume it with digit-search resume {folder.name}, or give "
            "another name"
        )
    parent = folder.parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise UsageError(f"--out {folder.parent}: no permission to write there")
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"--out {folder.parent}: the disk has {free / 2**20:.0f} MiB free, a search needs at least "
            f"{MIN_FREE_BYTES / 2**20:.0f}; free some space or give a folder on another disk"
        )


def open_folder(
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    folder: Path,
    *,
    lock: BinaryIO | None,
    command: list[str] | None,
    forecast: Callable[[RunRecord | None], dict[str, Any]],
) -> EventWriter:
    """Create the run folder, or reopen the one to resume.

    Args:
        settings: the settings of the search.
        plan: the same, resolved.
        data: the opened data, for its fingerprint and sample images.
        folder: the run folder.
        lock: the lock of the folder to resume; None creates a new folder.
        command: the command as typed.
        forecast: returns the entry of the forecast; its argument is the record of a run to resume.

    Raises:
        UsageError: another search has just created the folder.
        RunError: the run to resume used other data, or another version of digit-search.
    """
    if lock is not None:
        return _reopen_folder(settings, plan, data, folder, lock, forecast)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(
            f"--name {settings.name}: another search has just created {folder}; give another name"
        ) from None
    write_description(folder, settings, plan, data, command, {"forecast": forecast(None)})
    return EventWriter(folder, settings.name)


def _reopen_folder(
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    folder: Path,
    lock: BinaryIO,
    forecast: Callable[[RunRecord | None], dict[str, Any]],
) -> EventWriter:
    """Open the record of a run to resume and bring its run.json up to date; errors as in `open_folder`."""
    known = read_run_file(folder)
    if known.get("base_config", {}).keys() != plan.base.to_flat().keys():
        raise RunError(
            f"--resume {settings.name}: another version of digit-search, with other parameters, started this run; "
            "resume it with that version, or start a new run"
        )
    if known.get("data", {}).get("fingerprint") != data.fingerprint:
        raise RunError(f"--resume {settings.name}: the data at {settings.data.folder} has changed since the run began")
    events = EventWriter(folder, settings.name, lock)
    now = known | {
        "command": _without_secrets(known.get("command")),  # an earlier version did not remove them
        "settings": settings.to_json(),
        "base_config": plan.base.to_flat(),
        "space": describe_space(plan),
        "tables": describe_tables(plan),
        "comparison": is_comparison(settings, plan),
        "asha": list(events.record.asha),
        "rungs": rungs(settings.scheduler, plan.base.optim.epochs, *events.record.asha),
        "forecast": forecast(events.record),
    }
    if now != known:
        write_text(folder / RUN_FILE, json.dumps(now, indent=2) + "\n")
    return events


def write_description(
    folder: Path,
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    command: list[str] | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `run.json`, with `more` entries, and the sample images and boxes of the data for the report."""
    about = {**describe_run(settings, plan, data, command), **(more or {})}
    write_text(folder / RUN_FILE, json.dumps(about, indent=2) + "\n")
    write_samples(folder, data.valid.table, data.valid.image)
    write_boxes(folder, data.train.table)


def resumed_settings(out: str, name: str) -> SearchSettings:
    """The settings of a run folder, without permission to run its space files.

    Raises:
        RunError: there is no such run, or its run.json is damaged.
    """
    folder = Path(out) / name
    if not (folder / RUN_FILE).is_file():
        hint = did_you_mean(name, [path.parent.name for path in Path(out).glob(f"*/{RUN_FILE}")])
        raise RunError(f"--resume {name}: there is no run {folder}{hint}")
    tree = read_run_file(folder)
    try:
        return replace(SearchSettings.from_json(tree["settings"]), out=out, name=name)
    except (KeyError, TypeError, UserError) as error:
        raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None


class Extent(NamedTuple):
    """The planned size of a run, from its run.json.

    Attributes:
        trials: configurations to train.
        epochs: epochs of a full training.
    """

    trials: int
    epochs: int


def planned(folder: Path) -> Extent:
    """The planned size of a run; does not load its spaces, because that would run a space file as code.

    Raises:
        RunError: its run.json is damaged.
    """
    tree = read_run_file(folder)
    try:
        extent = Extent(tree["space"]["trials"], tree["base_config"]["optim.epochs"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None
    if not all(type(one) is int and 1 <= one < 2**53 for one in extent):
        raise RunError(f"{folder / RUN_FILE} is damaged: it plans {extent.trials!r} trials of {extent.epochs!r} epochs")
    return extent


def describe_run(settings: SearchSettings, plan: Plan, data: DigitData, command: list[str] | None) -> dict[str, Any]:
    """The content of run.json."""
    return {
        "name": settings.name,
        "command": _without_secrets(command),
        "settings": settings.to_json(),
        "base_config": plan.base.to_flat(),
        "tables": describe_tables(plan),
        "tables_measured_with": dict(plan.space.measured_with),
        "space": describe_space(plan),
        "seed": settings.seed,
        "comparison": is_comparison(settings, plan),
        "asha": [GRACE_EPOCHS, REDUCTION_FACTOR],
        "rungs": rungs(settings.scheduler, plan.base.optim.epochs),
        "data": {
            "fingerprint": data.fingerprint,
            "num_train": len(data.train),
            "num_valid": len(data.valid),
            "categories": dict(zip(map(str, data.categories.ids), data.categories.names, strict=True)),
            "num_confirm": 0 if data.confirm is None else len(data.confirm),
            **asdict(settings.data),
            "notes": data.notes,
        },
        "versions": {
            "digit-search": version_of("digit-search"),
            "python": platform.python_version(),
            **{name: version_of(name) for name in PACKAGES},
        },
        "git_commit": _git_commit(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _without_secrets(command: Any) -> list[str] | None:
    """The command as typed, without passwords, and without the value of `--notify`, whose path can be a secret."""
    if not isinstance(command, list):
        return None
    words = [scrub(str(word)) for word in command]
    for place, word in enumerate(words):
        if word.startswith("--notify="):
            words[place] = f"--notify={REMOVED}"
        elif word == "--notify" and place + 1 < len(words):
            words[place + 1] = REMOVED
    return words


def is_comparison(settings: SearchSettings, plan: Plan) -> bool:
    """Whether every configuration is trained to its end and the same number of times."""
    return settings.scheduler == "none" and settings.replicates > 1 and settings.replicate_top >= plan.trials


def describe_space(plan: Plan) -> dict[str, Any]:
    """The entry of the space in run.json."""
    return {"name": plan.space.name, "trials": plan.trials, "swept_settings": NUM_SWEPT + len(plan.sweep)}


def make_longer(storage: Storage, events: EventWriter, epochs: int) -> list[str]:
    """Extend trials that finished with fewer epochs, if their last checkpoint still exists.

    Returns:
        The ids of the trials that are not extended because the checkpoint is missing.
    """
    lacking = []
    short = events.record.short()
    for trial in list(events.record.trials.values()):
        shorter = trial.trial_id in short and trial.role in ("search", "replicate")
        if not shorter or trial.status == "screened" or trial.early_stopped:
            continue
        if trial.status in ENDED and not (trial.status == "finished" and trial.trained_out):
            continue
        if trial.status in ENDED and (trial.saved is None or not storage.exists(trial.saved, ask=True)):
            lacking.append(trial.trial_id)
            continue
        config = TrainConfig.from_flat({**trial.config, "optim.epochs": epochs})
        events.write("longer", trial_id=trial.trial_id, config=config.to_flat(), config_hash=setting_digest(config))
    return lacking


def describe_tables(plan: Plan) -> list[dict[str, Any]]:
    """The published tables of the space, each row with the configuration of this run that it belongs to."""
    digests = {name: setting_digest(config) for name, config in plan.baselines()}
    base = plan.base.to_flat()
    return [
        {
            "title": table.title,
            "reading": table.reading,
            "note": table.note,
            "other_question": {
                name: [base[name], value] for name, value in table.holds_at.items() if base[name] != value
            },
            "rows": [
                {
                    "label": row.label,
                    "config_hash": digests[row.setting],
                    "published": dict(row.published),
                    "detect": dict(row.detect),
                }
                for row in table.rows
            ],
        }
        for table in plan.space.tables
    ]


def _git_commit() -> str | None:
    """The commit of this code, if it is in a git checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=here.parent, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() or None if done.returncode == 0 else None

    # An environment inside another repository: that repository's commit is not the commit of this code.
    return git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", here.name) else None
