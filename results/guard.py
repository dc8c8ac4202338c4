"""Finds knobs that do nothing: trials of other settings that trained to the very same model."""

import json
from typing import Any

from results.record import RunRecord, TrialRecord


def find_twins(record: RunRecord) -> dict[str, str]:
    """Trials whose knobs differ while all that came of them is the same, each with the earlier one.

    The same means: equal weights after the last epoch that both have trained, or, where weights were not
    noted, equal losses and scores in every such epoch. Knobs that act after training and the seed do not
    count: trials that differ by nothing else are no twins.
    """
    found: dict[str, str] = {}
    seen: dict[tuple[Any, ...], TrialRecord] = {}
    for trial_id, trial in sorted(record.trials.items()):
        for key in _traces(trial):
            other = seen.setdefault(key, trial)
            if trial_id not in found and other is not trial and differing_knobs(other, trial):
                found[trial_id] = other.trial_id
    return found


def differing_knobs(first: TrialRecord, second: TrialRecord) -> list[str]:
    """The knobs of training that two trials differ in."""
    return [
        name
        for name in first.config
        if not name.startswith(("detect.", "runtime."))
        and json.dumps(first.config[name]) != json.dumps(second.config.get(name))
    ]


def _traces(trial: TrialRecord) -> list[tuple[Any, ...]]:
    """What a trial left behind after each of its epochs; two that share one of these are the same that far."""
    found: list[tuple[Any, ...]] = [("weights", epoch, digest) for epoch, digest in trial.weights.items()]
    history: tuple[Any, ...] = ()
    for number, epoch in sorted(trial.epochs.items()):
        history = (*history, epoch["train_loss"], epoch.get("val_loss"), epoch["val_map"])
        found.append(("epochs", number, trial.seed, history))
    return found
