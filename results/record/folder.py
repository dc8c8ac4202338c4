"""A run folder: names of its files, run.json, and how run folders are found."""

import json
from pathlib import Path
from typing import Any

from digits_core.errors import RunError, printable
from digits_core.files import link_out_of, read_text
from results.record.log import EVENTS_FILE, read_record
from results.record.run import RunRecord

RUN_FILE = "run.json"

LEADERBOARD_FILE = "leaderboard.parquet"

EPOCHS_FILE = "epochs.parquet"

BEST_FILE = "best.toml"

CHECKPOINTS, THRESHOLDS = "checkpoints", "thresholds"

RETRAIN, MODELS = "retrain", "models"

TENSORBOARD = "tensorboard"
"""Contains one folder of TensorBoard files for each trial."""

LOGS_FOLDER = "logs"
"""Contains full error messages as TRIAL.txt."""


def find_runs(paths: list[Path]) -> list[Path]:
    """The given run folders, and the run folders directly in a given folder.

    Raises:
        RunError: a path contains no run.
    """
    found = []
    for path in paths:
        if (path / EVENTS_FILE).is_file():
            found.append(path)
            continue
        inside = sorted(child.parent for child in path.glob(f"*/{EVENTS_FILE}")) if path.is_dir() else []
        if not inside:
            what = "contains no run" if path.is_dir() else "no such run folder"
            raise RunError(f"{printable(str(path))}: {what}; a run is a folder with {EVENTS_FILE}, like runs/NAME")
        found += inside
    return found


def find_run(path: Path) -> Path:
    """The given run folder.

    Raises:
        RunError: the path contains no run, or several runs.
    """
    [folder, *more] = find_runs([path])
    if more:
        raise RunError(f"{printable(str(path))}: contains several runs; name one of them")
    return folder


def refuse_links(folder: Path) -> None:
    """Check that a run folder has no link to a place outside; it can come from an untrusted source.

    Raises:
        RunError: it has such a link.
    """
    link = link_out_of(folder)
    if link is not None:
        raise RunError(
            f"{link} is a link to a place outside of the run folder, so nothing is written; replace it by a copy or "
            "delete it"
        )


def read_run_file(folder: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / RUN_FILE
    try:
        tree = json.loads(read_text(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path} is damaged: it must contain one JSON object")
    return tree


def read_record_of(folder: Path) -> RunRecord:
    """The record of a run folder."""
    return read_record(folder, folder.resolve().name)
