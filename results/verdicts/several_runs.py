"""Several runs compared with each other: which can be, their record as one, and which run leads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from digits_core.errors import printable
from results.record.lengths import run_of
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.verdicts.equal_models import best_weights
from results.verdicts.verdict import Verdict


@dataclass(frozen=True)
class Kind:
    """What runs must have in common to be compared.

    Attributes:
        metric: the metric of the run.
        fingerprint: the fingerprint of its data, from run.json.
        data: the name of its data; the same data can be in two places.
    """

    metric: str
    fingerprint: str
    data: str = field(default="", compare=False)


def kind_of(record: RunRecord, about: Mapping[str, Any]) -> Kind:
    """The metric and the data of a run; `about` is the content of its run.json."""
    data = about.get("data")
    if not isinstance(data, dict):
        return Kind(record.metric, "unknown", "unknown data")
    fingerprint = str(data.get("fingerprint"))
    return Kind(record.metric, fingerprint, printable(str(data.get("folder") or f"data {fingerprint[:8]}")))


def why_apart(first: str, second: str, kinds: Mapping[str, Kind]) -> str | None:
    """Why two runs are not compared, as a sentence; None if they are."""
    one, other = kinds[first], kinds[second]
    if one.metric != other.metric:
        return (
            f"runs '{first}' and '{second}' have the metrics {one.metric} and {other.metric}; "
            "trials of runs with different --metric are not compared"
        )
    if one.fingerprint != other.fingerprint:
        return (
            f"runs '{first}' and '{second}' use different data ({_both(one, other)}); scores on different images "
            "cannot be compared"
        )
    return None


def _both(one: Kind, other: Kind) -> str:
    """The names of two data sets; with the beginning of their fingerprints if the names are the same."""
    if one.data != other.data:
        return f"{one.data} and {other.data}"
    return f"{one.data}, with the fingerprints {one.fingerprint[:8]} and {other.fingerprint[:8]}"


def joint_record(records: Mapping[str, RunRecord]) -> RunRecord:
    """Several runs with the same metric and data as one, with trials named RUN:TRIAL.

    First trainings count as replicates only if all the runs are comparisons.
    """
    metric = next(iter(records.values())).metric
    comparison = all(one.comparison for one in records.values())
    whole = RunRecord(",".join(records), metric=metric, comparison=comparison, several=True)
    for run, record in records.items():
        for trial in record.trials.values():
            name = joint_name(run, trial.trial_id)
            parent = None if trial.parent is None else joint_name(run, trial.parent)
            whole.trials[name] = replace(trial, trial_id=name, parent=parent, known={})
    return whole


def joint_name(run: str, trial_id: str) -> str:
    """The name of a trial in the record of several runs."""
    return f"{run}:{trial_id}"


def bests_of(whole: RunRecord) -> dict[str, TrialRecord]:
    """The best configuration of each run with a score, the best run first; `whole` as from `joint_record`."""
    found: dict[str, TrialRecord] = {}
    for lead in whole.settings():
        if whole.value(lead) is not None:
            found.setdefault(run_of(lead), lead)
    return found


def leader_words(whole: RunRecord, runs: Sequence[str], verdicts: Sequence[Verdict], label: str) -> str:
    """Which run leads, and whether its lead over each other run is significant, in sentences.

    Args:
        whole: the runs as one, from `joint_record`.
        runs: their names.
        verdicts: as from `whole_board` of `whole`, for the metric of the runs.
        label: name of the metric.
    """
    bests = bests_of(whole)
    lacking = [f"{run} has no score yet." for run in runs if run not in bests]
    if not bests:
        return "No run leads: no trial has a score yet."
    leader, *others = bests
    best = bests[leader]
    named = {run: f"{run} ({_scored(whole, trial, label)})" for run, trial in bests.items()}
    same = [run for run in others if bests[run].config_hash == best.config_hash]
    words = [f"{leader} leads with {_scored(whole, best, label)}."]
    if same:
        alike = ", with the same weights" if _same_weights(whole, [best, *(bests[run] for run in same)]) else ""
        several = ", ".join(named[run] for run in [leader, *same][:-1]) + f" and {named[same[-1]]}"
        words = [f"The best trials of {several} are the same configuration{alike}: none of these runs leads."]
    known = {verdict.second: verdict for verdict in verdicts}
    rest = [known.get(bests[run].trial_id) for run in others if run not in same]
    unequal = [one is not None and one.words.startswith("not compared: ") for one in rest]
    if any(unequal) and not same:
        words = [f"{leader} leads the runs with trainings as long as its own, with {_scored(whole, best, label)}."]
        if all(unequal):
            words = [
                f"No run leads: the best trainings of the runs differ in length. {named[leader]} has the best score."
            ]
    words += [_against(leader, named[run], known.get(bests[run].trial_id)) for run in others if run not in same]
    return " ".join([*words, *lacking])


def _against(leader: str, other: str, verdict: Verdict | None) -> str:
    """The verdict on the best configuration against the best of another run, as a sentence."""
    if verdict is None or verdict.told_apart is None:
        why = "" if verdict is None else f": {verdict.words.removeprefix('not compared: ')}"
        return f"{other} is not compared with {leader}{why}."
    one = verdict.difference
    if one is None:
        return f"The difference to {other} is zero: {verdict.words.removeprefix('equal: ')}."
    models = " as trained models" if verdict.level == "models" else ""
    if not verdict.told_apart:
        return f"Compared with {other}{models}: {verdict.words}."
    if one.estimate < 0:
        one, better = one.swapped(), f"{other} is significantly better than {leader}{models}"
    else:
        better = f"{leader} is significantly better than {other}{models}"
    return f"{better}: {one.estimate:+.3f} [{one.low:.3f}, {one.high:.3f}]."


def _same_weights(whole: RunRecord, trials: Sequence[TrialRecord]) -> bool:
    weights = {best_weights(trial, whole.metric) for trial in trials}
    return len(weights) == 1 and None not in weights


def _scored(whole: RunRecord, trial: TrialRecord, label: str) -> str:
    seeds = [one for one in whole.fresh_seeds().get(trial.config_hash, []) if one.role != "confirm"]
    mean = f", the mean of {len(seeds)} replicates" if len(seeds) > 1 else ""
    return f"{trial.trial_id.rpartition(':')[2]}, {label} {whole.standing(trial) or 0.0:.3f}{mean}"
