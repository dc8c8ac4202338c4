"""The Pareto front of a search with several aims, in words."""

from results.record.run import RunRecord
from results.record.schema import AIMS
from results.record.trial import TrialRecord
from results.views.costs import COST_WORDS
from results.views.leaderboard import SHOWN


def front_words(record: RunRecord) -> list[str]:
    """A line with the trials on the front, best score first; none for a search with one aim."""
    front = [record.trials[name] for name, is_on in record.on_front().items() if is_on]
    points = sorted(((record.point(trial), trial.trial_id) for trial in front), reverse=True)
    metric = SHOWN.get(record.metric, record.metric)
    words = [
        f"{name} {metric} {point[0]:.3f}, "
        + ", ".join(
            f"{cost:.3g} {COST_WORDS[AIMS[aim]].unit}{_spread(record.trials[name], aim)}"
            for cost, aim in zip(point[1:], record.aims, strict=True)
        )
        for point, name in points
        if point is not None
    ]
    return [f"Pareto front: {'; '.join(words)}"] if words else []


def _spread(trial: TrialRecord, aim: str) -> str:
    """The quartiles of a measured time."""
    low, high = trial.cost.get("latency_ms_low"), trial.cost.get("latency_ms_high")
    return f" ({low:.3g} to {high:.3g})" if aim == "latency" and low is not None and high is not None else ""
