"""Finds parameters without effect: trials with different parameters that trained to the same model."""

import json
from typing import Any

from results.record.run import RunRecord
from results.record.trial import TrialRecord


def find_twins(record: RunRecord) -> dict[str, str]:
    """Maps each trial to an earlier trial that has other parameters and trained to the same model.

    The same model means equal weights after the last epoch, or, if the record has no weights, equal losses and scores
    in all epochs. Only finished trainings count, because two schedules can begin equally. Trials that differ only in
    the seed or in parameters that act after training are not included.
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
    """The digest of a trial's weights after its best epoch by a metric; None if the record has none."""
    best = trial.best(metric)
    return None if best is None else trial.weights.get(int(best["epoch"]))


def left_out_words(record: RunRecord) -> list[str]:
    """Notes on configurations for which fewer of the initial weights fit than for the first trial."""
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
        f"note: some initial weights do not fit {', '.join(trials)}: {', '.join(parts)} started from random values"
        for parts, trials in groups.items()
    ]


def differing_parameters(first: TrialRecord, second: TrialRecord) -> list[str]:
    """The training parameters in which two trials differ."""
    return [
        name
        for name in first.config
        if not name.startswith(("detect.", "runtime."))
        and json.dumps(first.config[name]) != json.dumps(second.config.get(name))
    ]
