"""The length of trainings: which trials are trained equally long and can be compared."""

from collections.abc import Iterable
from typing import Any

from results.record.trial import TrialRecord

LENGTH_PARAMETERS = ("optim.epochs", "data.images_per_epoch")
"""The parameters that determine the length of a training; trials that differ in them are not compared."""

Varied = dict[str, set[tuple[str, str]]]
"""For each of LENGTH_PARAMETERS, the spaces that vary it, as (run, space)."""


def varied_lengths(trials: Iterable[TrialRecord]) -> Varied:
    """The length parameters that a space varies itself, so that their values are to be compared.

    All trials of one plan have the same length unless their space varies it; `--resume` can change the plan. So a space
    varies a parameter if trials of the same plan have different values.

    Args:
        trials: of one run, or of several with names RUN:TRIAL. Trials without a planned length are ignored.
    """
    values: dict[tuple[str, str, str, int], set[Any]] = {}
    for trial in trials:
        if trial.role == "search" and trial.planned_epochs is not None:
            for parameter in LENGTH_PARAMETERS:
                place = (parameter, run_of(trial), trial.space, trial.planned_epochs)
                values.setdefault(place, set()).add(trial.config.get(parameter))
    varied: Varied = {parameter: set() for parameter in LENGTH_PARAMETERS}
    for (parameter, run, space, _), found in values.items():
        if len(found) > 1:
            varied[parameter].add((run, space))
    return varied


def length_of(trial: TrialRecord, varied: Varied) -> tuple[Any, ...]:
    """The planned length of a training; trials with equal values can be compared."""
    place = (run_of(trial), trial.space)
    return tuple(
        place if place in varied[parameter] else trial.config.get(parameter) for parameter in LENGTH_PARAMETERS
    )


def unequal_words(first: TrialRecord, second: TrialRecord, varied: Varied) -> str | None:
    """Why two trainings have different lengths, as words; None if the lengths are equal."""
    for parameter, ours, theirs in zip(
        LENGTH_PARAMETERS, length_of(first, varied), length_of(second, varied), strict=True
    ):
        if ours != theirs:
            return f"not compared: {parameter} {first.config.get(parameter)} against {second.config.get(parameter)}"
    return None


def run_of(trial: TrialRecord) -> str:
    """The run of a trial with a name RUN:TRIAL; empty for other names."""
    return trial.trial_id.rpartition(":")[0]
