"""Finds the trained model of a flag's value RUN[:TRIAL]|CHECKPOINT."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from digits_core.config.parameter import Flat
from digits_core.data.source import DataSource
from digits_core.errors import DataError, RunError, UsageError, did_you_mean, printable
from digits_core.files import CONFIG_FILE, ENSEMBLE_FILE, MODEL_FILE
from results.record.folder import (
    CHECKPOINTS,
    RUN_FILE,
    RUNS_FOLDER,
    THRESHOLDS,
    find_run,
    read_record_of,
    read_run_file,
)
from results.record.run import RunRecord
from results.record.trial import TrialRecord

if TYPE_CHECKING:
    from digits_core.data.cache import DigitData


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A trained model.

    Attributes:
        folder: the checkpoint folder.
        words: its origin, in words.
        data: the data of its run; None for a checkpoint outside a run.
        epoch: its best epoch; 1 if unknown.
    """

    folder: Path
    words: str
    data: DataSource | None = None
    epoch: int = 1


def find_source(source: str, flag: str, out: Path = RUNS_FOLDER, *, ensembles: bool = False) -> Source:
    """Find the model of a flag.

    Args:
        source: RUN, RUN:TRIAL or a checkpoint folder.
        flag: the flag, for messages.
        out: the folder of run folders.
        ensembles: whether the folder of an ensemble is a model too.

    Raises:
        RunError: there is no such model.
    """
    path = Path(source)
    if (path / ENSEMBLE_FILE).is_file():
        if not ensembles:
            raise RunError(f"{flag} {printable(source)}: is an ensemble; give the folder of one of the models in it")
        return Source(path, f"ensemble {path}")
    if is_model_folder(path):
        inside = path.resolve().parent
        of_run = inside.name == CHECKPOINTS and (inside.parent / RUN_FILE).is_file()
        return Source(path, f"checkpoint {path}", data_of(inside.parent) if of_run else None)
    folder, record, trial = find_trial(source, flag, out)
    if trial.checkpoint is None:
        raise RunError(
            f"{flag} {printable(source)}: the checkpoint of {trial.trial_id} was not kept (see --keep); train it again "
            f"with digit-search retrain {folder} --trial {trial.trial_id}, or look at its sweep in "
            f"{folder / THRESHOLDS / (trial.trial_id + '.parquet')}"
        )
    if not (folder / trial.checkpoint / MODEL_FILE).is_file():
        raise RunError(
            f"{flag} {printable(source)}: {folder / trial.checkpoint} was deleted; train it again with "
            f"digit-search retrain {folder} --trial {trial.trial_id}"
        )
    best = trial.best(record.metric)
    words = f"{trial.trial_id} of {folder}"
    return Source(folder / trial.checkpoint, words, data_of(folder), 1 if best is None else int(best["epoch"]))


def is_model_folder(path: Path) -> bool:
    """Whether a folder has a model: a checkpoint, what a retraining wrote, or an ensemble."""
    return (path / ENSEMBLE_FILE).is_file() or ((path / MODEL_FILE).is_file() and (path / CONFIG_FILE).is_file())


def find_trial(source: str | None, flag: str, out: Path = RUNS_FOLDER) -> tuple[Path, RunRecord, TrialRecord]:
    """The run folder, its record and the trial that RUN[:TRIAL] names.

    Without a trial it is the best one; None or `""` is the latest run.

    Raises:
        RunError: there is none.
    """
    name, colon, trial_id = (source or "").rpartition(":")
    name = name if colon else source or ""
    try:
        folder = find_run(name or None, out)
    except RunError as error:
        raise RunError(f"{flag} {error}; a model folder has {MODEL_FILE} and {CONFIG_FILE}") from None
    record = read_record_of(folder)
    trial = record.trials.get(trial_id) if colon else record.winner()
    if trial is None:
        what = f"no trial '{printable(trial_id)}'{did_you_mean(trial_id, record.trials)}" if colon else (
            "no trial with a score"
        )  # fmt: skip
        raise RunError(f"{flag} {printable(source or folder.name)}: run '{record.run}' has {what}")
    return folder, record, trial


def data_of(folder: Path) -> DataSource:
    """The data of a run.

    Raises:
        RunError: its run.json is damaged.
    """
    try:
        return DataSource(**read_run_file(folder)["settings"]["data"])
    except (KeyError, TypeError, DataError) as error:
        raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None


def check_unchanged(folder: Path, data: "DigitData", source: DataSource) -> None:
    """Check that data is that of a run.

    Raises:
        RunError: it has changed since the run began.
    """
    if data.fingerprint != (read_run_file(folder).get("data") or {}).get("fingerprint"):
        raise RunError(f"{folder}: the data at {printable(source.folder)} has changed since the run began")


def initial_weights(source: str, out: str, fixed: Flat) -> str:
    """The checkpoint folder of `--init-from`.

    Raises:
        UserError: there is no such model, or `--set` also sets the weights.
    """
    if "model.weights" in fixed:
        raise UsageError(
            f"--init-from {printable(source)}: --set model.weights also sets the weights; give one of them"
        )
    return str(find_source(source, "--init-from", Path(out)).folder.resolve())
