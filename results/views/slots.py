"""The slots of a search: which trial was where and when, and what the time went into."""

from results.record.run import RunRecord
from results.record.trial import TrialRecord, last_sign

HANDOVER_SECONDS = 0.05
"""The start of the next trial in a slot may be recorded this long before the end of the last one."""

PARTS = ("training", "evaluating", "starting, saving, reporting", "slots waiting")


def time_parts(record: RunRecord) -> dict[str, float]:
    """Slot seconds per activity, in the order of `PARTS`.

    A slot waits if it has no trial while other slots have one. Time without any trial (between two starts of a search)
    is not counted.
    """
    trials = [trial for trial in record.trials.values() if trial.started_at is not None and trial.role != "retrain"]
    epochs = [one for trial in trials for one in trial.epochs.values()]
    training = sum(float(one.get("train_seconds") or 0) for one in epochs)
    evaluating = sum(float(one.get("eval_seconds") or 0) for one in epochs)
    lanes, bars = timeline(record)
    spans = sorted((start, end) for _, start, end, _ in bars)
    busy, reached = 0.0, 0.0
    for start, end in spans:
        busy += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    inside = sum(end - start for start, end in spans)
    other = max(inside - training - evaluating, 0.0)
    return dict(zip(PARTS, (training, evaluating, other, max(lanes * busy - inside, 0.0)), strict=True))


def timeline(record: RunRecord) -> tuple[int, list[tuple[int, float, float, TrialRecord]]]:
    """Number of slots, and slot, start, end (seconds since the first start) and trial of each part of a trial."""
    parts = [
        (start, end, trial)
        for trial in record.trials.values()
        if trial.started_at is not None and trial.role != "retrain"
        for start, end in [*trial.parts, *([(trial.since, last_sign(trial))] if trial.since else [])]
    ]
    begin = min((start for start, _, _ in parts), default=None)
    free: list[float] = []
    bars = []
    for start, end, trial in sorted(parts, key=lambda part: (part[0], part[1])):
        first, last = ((one - (begin or one)).total_seconds() for one in (start, end))
        lane = next((number for number, until in enumerate(free) if until <= first + HANDOVER_SECONDS), len(free))
        free[lane : lane + 1] = [last]
        bars.append((lane, first, last, trial))
    return len(free), bars
