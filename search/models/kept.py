"""The models that a run has kept and an ensemble can consist of."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from digits_core.errors import RunError, UsageError, printable
from digits_core.files import MODEL_FILE, file_digest
from results.record.run import RunRecord
from results.record.trial import TrialRecord


class Kept(NamedTuple):
    """A model of a run.

    Attributes:
        name: of its trial.
        folder: its checkpoint or model folder.
    """

    name: str
    folder: Path


def kept_models(folder: Path, record: RunRecord, names: Sequence[str] | None = None) -> tuple[list[Kept], list[str]]:
    """The kept models of a run, the best configuration first, and sentences about those that are not used.

    Args:
        folder: the run folder.
        record: its record.
        names: only these trials; None takes all that were kept.

    Raises:
        UserError: a named trial has no model, a kept model was deleted, or there are fewer than two.
    """
    trials = [one for one in record.ranked() if one.checkpoint is not None]
    if names is not None:
        trials = [_named(folder, record, name) for name in names]
        twice = next((name for name in names if list(names).count(name) > 1), None)
        if twice is not None:
            raise UsageError(
                f"--trials: names {printable(twice)} twice; the selection itself can count it several times"
            )
    found: list[Kept] = []
    notes: list[str] = []
    digests: dict[str, str] = {}
    for trial in trials:
        one = Kept(trial.trial_id, folder / str(trial.checkpoint))
        if trial.trained_on != "train":
            notes.append(f"{one.name} is not used: it trained on the validation images, too")
            continue
        if not (one.folder / MODEL_FILE).is_file():
            raise RunError(
                f"{one.folder} was deleted; train it again with digit-search retrain {folder} --trial "
                f"{trial.parent or one.name}, or name the other models with --trials"
            )
        same = digests.setdefault(file_digest(one.folder / MODEL_FILE), one.name)
        if same != one.name:
            notes.append(f"{one.name} is not used: it has the same weights as {same}")
            continue
        found.append(one)
    if len(found) < 2:
        have = f"only one model ({found[0].name})" if found else "no model"
        raise RunError(
            f"{folder}: has {have} for an ensemble, which needs two different ones"
            + "".join(f"; {note}" for note in notes)
            + "; digit-search run --keep 5 keeps five, digit-search retrain trains more"
        )
    return found, notes


def _named(folder: Path, record: RunRecord, name: str) -> TrialRecord:
    """The trial of a name, which must have a kept model."""
    trial = record.named(name, "--trials")
    if trial.checkpoint is None:
        raise RunError(
            f"--trials {name}: the checkpoint of {name} was not kept (see --keep); train it again with digit-search "
            f"retrain {folder} --trial {name}"
        )
    return trial
