"""The optimization history: the score of each trial and the best score so far."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from results.figures.nothing import NothingToDrawError
from results.figures.style import BEST, FAINT, SCORE_TICKS, finish, plain
from results.record.schema import FAILED
from results.record.trial import TrialRecord
from results.views.curves import LABELS, configuration_colors
from results.views.opened_run import OpenedRun, open_run

MOST_TICKS = 12
"""Up to this trial number, every trial has a tick."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A trial with a score in the history.

    Attributes:
        number: its number: 0 for the first trial of the run.
        trial: the trial.
        score: the metric of the run at its best epoch.
        at: when that epoch was reported, seconds since the start of the run.
    """

    number: int
    trial: TrialRecord
    score: float
    at: float


def plot_history(run: str | Path | OpenedRun) -> go.Figure:
    """Optimization history: the score of each trial and the best score so far, by trial number and by time.

    Only first trainings of configurations are shown, no replicates.

    Raises:
        RunError: it is not a run, or no trial has a score yet.
    """
    opened = open_run(run)
    scored = scored_trials(opened)
    if not scored:
        raise NothingToDrawError(opened, "no trial has a score yet")
    unit, seconds = ("hours", 3600) if max(one.at for one in scored) >= 7200 else ("minutes", 60)
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    numbers: list[float] = [one.number for one in scored]
    times = [one.at / seconds for one in scored]
    steps = [(at / seconds, best) for at, best in best_by_time(opened)]
    for row, x, line in ((1, numbers, best_by_number(scored)), (2, times, steps)):
        figure.add_scatter(
            x=[at for at, _ in line], y=[best for _, best in line], mode="lines", name="best score so far", row=row,
            col=1, line={"color": BEST, "width": 2, "shape": "hv"}, showlegend=row == 1,
            hovertemplate="best so far %{y:.3f}<extra></extra>",
        )  # fmt: skip
        _add_trials(figure, opened, scored, x, row)
    figure.update_xaxes(title="trial number", dtick=1 if scored[-1].number <= MOST_TICKS else None, row=1, col=1)
    figure.update_xaxes(title=f"{unit} since the start of the run", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title=LABELS.get(opened.metric, opened.metric), tickformatstops=SCORE_TICKS)
    return finish(figure, f"{opened.name}: optimization history", height=560)


def scored_trials(opened: OpenedRun) -> list[Scored]:
    """The first trainings of the configurations that have a score, in the order of their numbers."""
    begin = start_of(opened)
    numbered = enumerate(one for one in opened.record.trials.values() if one.role != "retrain")
    found = []
    for number, trial in numbered:
        score, best = opened.record.value(trial), trial.best(opened.metric)
        if trial.role == "search" and score is not None and best is not None:
            found.append(Scored(number, trial, score, (best["reported_at"] - begin).total_seconds()))
    return found


def start_of(opened: OpenedRun) -> datetime:
    """When the run began: `started_at` of run.json; without it, or if it is later, the start of the first trial."""
    first = min((one.started_at for one in opened.record.trials.values() if one.started_at), default=datetime.now(UTC))
    try:
        named = datetime.fromisoformat(str(opened.about.get("started_at")))
    except ValueError:
        return first
    return min(first, named if named.tzinfo else named.replace(tzinfo=UTC))


def best_by_number(scored: list[Scored]) -> list[tuple[float, float]]:
    """Number of each trial and the best score up to it."""
    best = scored[0].score
    return [(one.number, best := max(best, one.score)) for one in scored]


def best_by_time(opened: OpenedRun) -> list[tuple[float, float]]:
    """Seconds since the start of each new best score, and that score; ends with the last report of the run."""
    begin, metric = start_of(opened), opened.metric
    reports: list[tuple[datetime, float]] = []
    for trial in opened.record.trials.values():
        limit = None if trial.status in FAILED or trial.role != "search" else opened.record.value(trial)
        if limit is not None:  # an earlier stage of a training can have a higher score, which does not count
            values = [(one["reported_at"], one.get(metric)) for one in trial.epochs.values()]
            reports += [(at, float(value)) for at, value in values if value is not None and value <= limit]
    found: list[tuple[float, float]] = []
    for at, value in sorted(reports):
        if not found or value > found[-1][1]:
            found.append(((at - begin).total_seconds(), value))
    if found:
        found.append(((max(at for at, _ in reports) - begin).total_seconds(), found[-1][1]))
    return found


def _add_trials(figure: go.Figure, opened: OpenedRun, scored: list[Scored], x: list[float], row: int) -> None:
    """One point per trial: the best configurations in the colours of the learning curves, the others grey."""
    colors = configuration_colors(opened.record)
    for name, symbol, stopped in (("trial", "circle", False), ("stopped trial", "circle-open", True)):
        places = [place for place, one in enumerate(scored) if (one.trial.status == "stopped") == stopped]
        if places:
            some = [scored[place] for place in places]
            figure.add_scatter(
                x=[x[place] for place in places], y=[one.score for one in some], mode="markers", row=row, col=1,
                name=name, showlegend=False, legendgroup=name, cliponaxis=False,
                text=[plain(f"{one.trial.trial_id}, {one.trial.status}") for one in some],
                marker={
                    "symbol": symbol, "size": 8,
                    "color": [colors.get(one.trial.config_hash, FAINT) for one in some],
                },
                hovertemplate="%{text}<br>%{y:.3f}<extra></extra>",
            )  # fmt: skip
            if row == 1:  # the entry in the legend is grey, because the points have many colours
                figure.add_scatter(
                    x=[None], y=[None], mode="markers", name=name, legendgroup=name, row=row, col=1,
                    marker={"symbol": symbol, "size": 8, "color": FAINT}, hoverinfo="skip",
                )  # fmt: skip
