"""A run folder: names of its files, run.json, and how run folders are found."""

import json
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from digits_core.command import say
from digits_core.errors import RunError, did_you_mean, printable
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


RUNS_FOLDER = Path("runs")
"""Where run folders are, unless `--out` says otherwise."""

RUN_HELP = f"name of a run in {RUNS_FOLDER}/, or the path of a run folder (default: the latest run)"
RUNS_HELP = f"name of a run in {RUNS_FOLDER}/, path of a run folder, or of a folder of runs (default: the latest run)"


def find_runs(names: Sequence[str | PathLike[str]], out: Path = RUNS_FOLDER) -> list[Path]:
    """The run folders that are named.

    Args:
        names: paths of run folders or of folders of runs, or names of runs in `out`; none means the latest run.
        out: the folder of run folders.

    Raises:
        RunError: there is no such run.
    """
    found = []
    for name in names:
        path = Path(name)
        folders = _runs_at(path) or _runs_at(out / path)
        if not folders:
            what = "this folder has no run" if path.is_dir() else "there is no such run"
            hint = did_you_mean(path.name, [one.name for one in _runs_at(out)]) if path.parent == Path() else ""
            if path.parent == Path() and not hint and _runs_at(out):
                hint = "; digit-search runs lists them"
            raise RunError(
                f"{printable(str(path))}: {what}; name a run in {out}/ or give the path of a run folder (it contains "
                f"{EVENTS_FILE}){hint}"
            )
        found += folders
    return found if names else [latest_run(out)]


def _runs_at(path: Path) -> list[Path]:
    if (path / EVENTS_FILE).is_file():
        return [path]
    return sorted(child.parent for child in path.glob(f"*/{EVENTS_FILE}")) if path.is_dir() else []


def find_run(name: str | PathLike[str] | None, out: Path = RUNS_FOLDER) -> Path:
    """The one run folder that is named; None means the latest run.

    Raises:
        RunError: there is no such run, or there are several.
    """
    if name is None:
        return latest_run(out)
    [folder, *more] = find_runs([name], out)
    if more:
        raise RunError(f"{printable(fspath(name))}: this folder has several runs; name one of them")
    return folder


def latest_run(out: Path = RUNS_FOLDER) -> Path:
    """The run of a folder of runs that was started last; says on the standard error which one it is.

    Raises:
        RunError: there is none.
    """

    def started(folder: Path) -> tuple[str, str]:
        try:
            return str(read_run_file(folder).get("started_at", "")), folder.name
        except RunError:
            return "", folder.name

    folders = _runs_at(out)
    if not folders:
        raise RunError(f"no run is named, and {printable(str(out))}/ has none; name a run, or the path of a run folder")
    latest = max(folders, key=started)
    say(f"latest run: {latest}", error=True)
    return latest


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
