"""How long trainings are: which are equally long, and which are shorter than the run trains now."""

from collections.abc import Iterable
from typing import Any

from results.record.trial import TrialRecord

LENGTH_PARAMETERS = ("optim.epochs", "data.images_per_epoch")
"""What makes a training long: trials that differ in one of them are not compared."""

Varied = dict[str, set[tuple[str, str]]]
"""For each of LENGTH_PARAMETERS the spaces that vary it, as (run, space)."""


def varied_lengths(trials: Iterable[TrialRecord]) -> Varied:
    """The parameters of length that a space itself varies: comparing their values is what it was searched for.

    A plan gives all trials of a space one length; only `--resume` with another plan changes it. So a space varies
    a parameter where trials that were made under one plan have different values of it.

    Args:
        trials: of one run, or of several with names RUN:TRIAL. Those of a record that names no plan vary nothing.
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
    """How long a training was to be; two of equal value may be compared."""
    place = (run_of(trial), trial.space)
    return tuple(
        place if place in varied[parameter] else trial.config.get(parameter) for parameter in LENGTH_PARAMETERS
    )


def unequal_words(first: TrialRecord, second: TrialRecord, varied: Varied) -> str | None:
    """Why two trainings are of unequal length, in words; None where they are of equal length."""
    for parameter, ours, theirs in zip(
        LENGTH_PARAMETERS, length_of(first, varied), length_of(second, varied), strict=True
    ):
        if ours != theirs:
            return f"not compared: {parameter} {first.config.get(parameter)} against {second.config.get(parameter)}"
    return None


def run_of(trial: TrialRecord) -> str:
    """The run that a trial named RUN:TRIAL belongs to; empty where one run is looked at."""
    return trial.trial_id.rpartition(":")[0]
