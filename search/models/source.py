"""Finds the trained model of a flag's value RUN[:TRIAL]|CHECKPOINT."""

import dataclasses
from pathlib import Path

from digits_core.config.parameter import Flat
from digits_core.data.source import DataSource
from digits_core.errors import DataError, RunError, UsageError, printable
from digits_core.files import CONFIG_FILE, MODEL_FILE
from results.record.folder import (
    CHECKPOINTS,
    RUN_FILE,
    THRESHOLDS,
    find_runs,
    read_record_of,
    read_run_file,
)


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


def find_source(source: str, out: Path, flag: str) -> Source:
    """Find the model of a flag.

    Args:
        source: RUN, RUN:TRIAL or a checkpoint folder.
        out: the folder of run folders.
        flag: the flag, for messages.

    Raises:
        RunError: there is no such model.
    """
    path = Path(source)
    if (path / MODEL_FILE).is_file() and (path / CONFIG_FILE).is_file():
        inside = path.resolve().parent
        of_run = inside.name == CHECKPOINTS and (inside.parent / RUN_FILE).is_file()
        return Source(path, f"checkpoint {path}", _data_of(inside.parent) if of_run else None)
    name, colon, trial_id = source.rpartition(":")
    name = name if colon else source
    if not Path(name).exists() and not (out / name).exists():
        raise RunError(
            f"{flag} {printable(source)}: there is no run {printable(name)} (here or in {out}) and no such checkpoint "
            f"(a folder with {MODEL_FILE} and {CONFIG_FILE})"
        )
    [folder, *more] = find_runs([Path(name) if Path(name).exists() else out / name])
    if more:
        raise RunError(f"{flag} {printable(source)}: contains several runs; give one of them")
    record = read_record_of(folder)
    trial = record.trials.get(trial_id) if colon else record.winner()
    if trial is None:
        what = f"no trial '{printable(trial_id)}'" if colon else "no trial with a score"
        raise RunError(f"{flag} {printable(source)}: run '{record.run}' has {what}")
    if trial.checkpoint is None:
        raise RunError(
            f"{flag} {printable(source)}: the checkpoint of {trial.trial_id} was not kept (see --keep); train it again "
            f"with python -m search.retrain {folder} --trial {trial.trial_id}, or look at its sweep in "
            f"{folder / THRESHOLDS / (trial.trial_id + '.parquet')}"
        )
    if not (folder / trial.checkpoint / MODEL_FILE).is_file():
        raise RunError(
            f"{flag} {printable(source)}: {folder / trial.checkpoint} was deleted; train it again with python -m "
            f"search.retrain {folder} --trial {trial.trial_id}"
        )
    best = trial.best(record.metric)
    words = f"{trial.trial_id} of {folder}"
    return Source(folder / trial.checkpoint, words, _data_of(folder), 1 if best is None else int(best["epoch"]))


def _data_of(folder: Path) -> DataSource:
    """The data of a run.

    Raises:
        RunError: its run.json is damaged.
    """
    try:
        return DataSource(**read_run_file(folder)["settings"]["data"])
    except (KeyError, TypeError, DataError) as error:
        raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None


def initial_weights(source: str, out: str, fixed: Flat) -> str:
    """The checkpoint folder of `--init-from`.

    Raises:
        UserError: there is no such model, or `--set` also sets the weights.
    """
    if "model.weights" in fixed:
        raise UsageError(
            f"--init-from {printable(source)}: --set model.weights also sets the weights; give one of them"
        )
    return str(find_source(source, Path(out), "--init-from").folder.resolve())
