"""A run folder: what lies where, run.json, and how a folder is found."""

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
"""One folder of TensorBoard's files for each trial."""

LOGS_FOLDER = "logs"
"""What went wrong in a trial, at length, as TRIAL.txt."""


def find_runs(paths: list[Path]) -> list[Path]:
    """The run folders that are named, or that lie directly in a named folder.

    Raises:
        RunError: a path holds no run.
    """
    found = []
    for path in paths:
        if (path / EVENTS_FILE).is_file():
            found.append(path)
            continue
        inside = sorted(child.parent for child in path.glob(f"*/{EVENTS_FILE}")) if path.is_dir() else []
        if not inside:
            what = "holds no run" if path.is_dir() else "no such run folder"
            raise RunError(f"{printable(str(path))}: {what}; a run is a folder with {EVENTS_FILE}, like runs/NAME")
        found += inside
    return found


def find_run(path: Path) -> Path:
    """The one run folder that is named.

    Raises:
        RunError: a path holds no run, or several.
    """
    [folder, *more] = find_runs([path])
    if more:
        raise RunError(f"{printable(str(path))}: holds several runs; name one of them")
    return folder


def refuse_links(folder: Path) -> None:
    """See that what is written into a run folder stays there: it may come from somebody else.

    Raises:
        RunError: it holds a link that leads out of it.
    """
    link = link_out_of(folder)
    if link is not None:
        raise RunError(
            f"{link} is a link that leads out of the run folder, so nothing is written into that; put a copy in its "
            "place, or delete it"
        )


def read_run_file(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

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
        raise RunError(f"{path} is damaged: it must hold one JSON object")
    return tree


def read_record_of(folder: Path) -> RunRecord:
    """The record of a run folder, named after it."""
    return read_record(folder, folder.resolve().name)
