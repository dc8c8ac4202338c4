"""Finds parameters that do nothing: trials of other settings that trained to the very same model."""

import json
from typing import Any

from results.record.run import RunRecord
from results.record.trial import TrialRecord


def find_twins(record: RunRecord) -> dict[str, str]:
    """Trials whose parameters differ while all that came of them is the same, each with the earlier one.

    The same means: equal weights after the last epoch, or, where weights were not noted, equal losses and scores
    in all epochs. Only whole trainings count: two schedules may well begin alike. Parameters that act after training
    and the seed do not count: trials that differ by nothing else are no twins.
    """
    found: dict[str, str] = {}
    seen: dict[tuple[Any, ...], TrialRecord] = {}
    for trial_id, trial in sorted(record.trials.items()):
        if trial.status != "finished" or not trial.epochs:
            continue
        last = trial.num_epochs
        if last in trial.weights:
            key: tuple[Any, ...] = ("weights", last, trial.weights[last])
        else:
            history = [
                (one["train_loss"], one.get("val_loss"), one["val_map"]) for _, one in sorted(trial.epochs.items())
            ]
            key = ("epochs", trial.seed, *history)
        other = seen.setdefault(key, trial)
        if differing_parameters(other, trial):
            found[trial_id] = other.trial_id
    return found


def best_weights(trial: TrialRecord, metric: str) -> str | None:
    """The digest of a trial's weights after its best epoch by a metric; None where the record has none."""
    best = trial.best(metric)
    return None if best is None else trial.weights.get(int(best["epoch"]))


def left_out_words(record: RunRecord) -> list[str]:
    """What initial weights left out in some settings and not in the first: those began with a handicap."""
    first = next((trial for trial in record.trials.values() if trial.model is not None), None)
    if first is None or first.model is None:
        return []
    usual = set(first.model.get("left_out", ()))
    groups: dict[tuple[str, ...], list[str]] = {}
    for trial in record.trials.values():
        more = sorted(set((trial.model or {}).get("left_out", ())) - usual)
        if more and trial.role == "search":
            parts = dict.fromkeys(name.rpartition(".")[0] for name in more)
            groups.setdefault(tuple(parts), []).append(trial.trial_id)
    return [
        f"note: the initial weights do not fit all of {', '.join(trials)}: {', '.join(parts)} began anew there"
        for parts, trials in groups.items()
    ]


def differing_parameters(first: TrialRecord, second: TrialRecord) -> list[str]:
    """The parameters of training that two trials differ in."""
    return [
        name
        for name in first.config
        if not name.startswith(("detect.", "runtime."))
        and json.dumps(first.config[name]) != json.dumps(second.config.get(name))
    ]
