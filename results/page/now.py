"""What a search does now: its running trials, its slots, and the time that is left."""

from typing import Any

from results.record.trial import TrialRecord
from results.views.leaderboard import SHOWN
from results.views.opened_run import OpenedRun
from results.views.time_left import seconds_left


def now_of(run: OpenedRun) -> list[tuple[str, str]]:
    """Names and values about a search that a process writes; empty for a run that has ended."""
    if not run.live:
        return []
    running = [one for one in run.record.trials.values() if one.status == "running" and one.since is not None]
    rows = [(one.trial_id, _trial_words(run, one)) for one in running]
    return [*rows, ("slots in use", str(len(running))), ("time left", _left_words(run, len(running)))]


def duration(seconds: float) -> str:
    """A time in words: `40 s`, `12 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def trials_asked(run: OpenedRun) -> int:
    """The number of configurations that the run was asked for; 0 if run.json does not say it."""
    space = run.about.get("space")
    asked = space.get("trials") if isinstance(space, dict) else None
    return asked if isinstance(asked, int) else 0


def _trial_words(run: OpenedRun, trial: TrialRecord) -> str:
    """Its epoch and its last score."""
    whole, done = int(trial.config["optim.epochs"]), trial.num_epochs
    words = f"epoch {done + 1} of {whole}" if done < whole else "ends"
    last = trial.epochs.get(done, {}).get(run.metric)
    return words if last is None else f"{words}, {SHOWN.get(run.metric, run.metric)} {last:.2f} so far"


def _left_words(run: OpenedRun, slots: int) -> str:
    """The range of the time that is left, without replicates that have not started."""
    left = seconds_left(run.record, trials=trials_asked(run), slots=max(slots, 1))
    if left is None:
        return "known after the first epoch"
    low, high = (duration(one) for one in left)
    words = f"about {high}" if low == high else f"{low} to {high}"
    settings: Any = run.about.get("settings")
    further = isinstance(settings, dict) and ((settings.get("replicates") or 1) > 1 or settings.get("confirm"))
    return f"{words}, later replicates not included" if further else words
