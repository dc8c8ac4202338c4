"""Figures about training: learning curves, overfitting, Pareto front, time per slot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from digits_core.errors import UsageError, did_you_mean, printable
from results.figures.nothing import NothingToDrawError
from results.figures.style import (
    DASHES,
    FAILED_COLOR,
    FAINT,
    HEIGHT,
    MARKERS,
    PART_COLORS,
    SCORE_TICKS,
    STATUS_COLORS,
    epoch_axis,
    finish,
    legend_name,
    plain,
)
from results.record.front import front_numbers
from results.record.schema import EPOCHS, FAILED
from results.record.trial import TrialRecord
from results.views.curves import (
    COLORS,
    LABELS,
    LEAST_SPAN,
    MOST_LINES,
    SCORES,
    Line,
    Values,
    configuration_colors,
    configuration_names,
    gaps_of,
    lines_of,
)
from results.views.opened_run import OpenedRun, open_run
from results.views.slots import time_parts, timeline


def plot_curves(run: str | Path | OpenedRun, *, metric: str | None = None, top: int = MOST_LINES) -> go.Figure:
    """Learning curves: a score over epochs for the best configurations, the other trials in grey, rungs marked.

    The axis of a score is chosen for the best configurations, so that a weak trial does not compress their lines.

    Args:
        run: a run folder.
        metric: a column of the epochs; None means the metric of the run.
        top: number of configurations with a line of their own.

    Raises:
        RunError: it is not a run, or no trial has finished an epoch.
        UsageError: there is no such column.
    """
    opened = open_run(run)
    record, column = opened.record, metric or opened.metric
    if column not in _DRAWABLE:
        raise UsageError(f"metric {printable(column)}: the epochs have no such number{did_you_mean(column, _DRAWABLE)}")
    leads = [lead for lead in record.settings() if lead.epochs]
    if not leads:
        raise NothingToDrawError(opened, "no trial has finished an epoch yet")
    figure = go.Figure()
    others = [trial for trial in record.trials.values() if trial.epochs and trial.role != "retrain"]
    behind = [trial for trial in others if trial not in leads[:top]]
    for name, some, alpha in (
        ("stopped or failed", [one for one in behind if one.status in ("stopped", *FAILED)], 0.35),
        ("others", [one for one in behind if one.status not in ("stopped", *FAILED)], 0.7),
    ):
        if some:
            x, y, text = joined_curves(some, column)
            figure.add_scatter(
                x=x, y=y, text=text, mode="lines+markers", name=f"{name} ({len(some)})", opacity=alpha,
                line={"color": FAINT, "width": 1}, marker={"size": 4}, connectgaps=False,
                hovertemplate="%{text}<br>epoch %{x}: %{y:.3f}<extra></extra>",
            )  # fmt: skip
    for number, line in enumerate(lines_of(record, leads[:top])):
        _draw(figure, number, line, line.curve(column))
    for rung in _rungs(opened):
        figure.add_vline(x=rung, line={"dash": "dot", "width": 1, "color": FAINT}, annotation_text="rung",
                         annotation_font_size=11)  # fmt: skip
    figure.update_xaxes(title="epoch", **epoch_axis(_longest(leads)))
    label = LABELS.get(column, column)
    figure.update_yaxes(title=label, tickformatstops=SCORE_TICKS, range=curve_range(opened, column, top))
    cut = num_cut(opened, column, top)
    return finish(
        figure,
        f"{opened.name}: learning curves, {label}" + (f" ({cut} line{'s' * (cut != 1)} cut)" if cut else ""),
        height=420,
    )


def curve_range(opened: OpenedRun, column: str, top: int = MOST_LINES) -> list[float] | None:
    """The range of a score's axis: all values of the best configurations, except those far below the others.

    Returns:
        Lower and upper end; None if Plotly chooses, for a column that is not a score or has no value.

    Source:
        Tukey 1977, Exploratory data analysis: values more than 1.5 interquartile ranges below the first quartile.
    """
    shown = [values for _, values in _shown_curves(opened, column, top)]
    best = np.concatenate(shown[:top]) if shown[:top] else np.empty(0)
    if column not in SCORES or not len(best):
        return None
    first, third = np.quantile(best, [0.25, 0.75])
    low = float(best[best >= first - 1.5 * (third - first)].min())
    high = max(float(values.max()) for values in shown)
    pad = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    return [low - pad, high + pad]


def num_cut(opened: OpenedRun, column: str, top: int = MOST_LINES) -> int:
    """Number of trials with values below the range of `plot_curves`."""
    limits = curve_range(opened, column, top)
    return sum(bool((values < limits[0]).any()) for _, values in _shown_curves(opened, column, top)) if limits else 0


def _shown_curves(opened: OpenedRun, column: str, top: int) -> list[tuple[TrialRecord, Values]]:
    """The trials with values in a column, those with a line of their own first, and their values."""
    leads = [lead for lead in opened.record.settings() if lead.epochs][:top]
    named = {lead.trial_id for lead in leads}
    others = [one for one in opened.record.trials.values() if one.role != "retrain" and one.trial_id not in named]
    found = []
    for trial in [*leads, *others]:
        values = [epoch[column] for epoch in trial.epochs.values() if epoch.get(column) is not None]
        if values:
            found.append((trial, np.array(values, dtype=np.float64)))
    return found


_DRAWABLE = [name for name in EPOCHS.names if name not in ("run", "trial_id", "epoch", "reported_at")]
"""Columns of the epochs that are numbers."""


def plot_overfitting(run: str | Path | OpenedRun, *, top: int = MOST_LINES) -> go.Figure:
    """Overfitting: the gaps between training and validation over epochs.

    Raises:
        RunError: it is not a run, or no loss was measured.
    """
    opened = open_run(run)
    leads = [lead for lead in opened.record.settings() if lead.epochs][:top]
    lines = lines_of(opened.record, leads)
    gaps = gaps_of(lines)
    figure = make_subplots(rows=len(gaps), cols=1, subplot_titles=[gap.label for gap in gaps], vertical_spacing=0.2)
    for number, line in enumerate(lines):
        for place, gap in enumerate(gaps, start=1):
            _draw(figure, number, line, line.gap(gap), place=place)
    if not any(len(trace.x) for trace in figure.data):
        raise NothingToDrawError(opened, "no loss was measured")
    figure.update_xaxes(**epoch_axis(_longest(leads)))
    figure.update_xaxes(title="epoch", row=len(gaps), col=1)
    return finish(figure, f"{opened.name}: overfitting", height=HEIGHT if len(gaps) == 1 else 560)


def plot_pareto(run: str | Path | OpenedRun) -> go.Figure:
    """Pareto front of mAP and number accuracy: stars, joined by a line. Colours are those of the learning curves.

    Raises:
        RunError: it is not a run, or no trial has both values, for example if the categories are not digits.
    """
    opened = open_run(run)
    found = []
    for trial in opened.record.trials.values():
        best = None if trial.status in FAILED else trial.best(opened.metric)
        values = [None if best is None else best.get(name) for name in _GOALS]
        if None not in values:
            found.append((trial, [float(value) for value in values if value is not None]))
    if not found:
        raise NothingToDrawError(
            opened, "no trial has both values: the categories are not digits, or no trial has finished an epoch"
        )
    figure = go.Figure()
    goals = np.array([values for _, values in found])
    front = np.array(front_numbers([(first, -second) for first, second in goals])) == 1
    names = [plain(name) for name in configuration_names([trial for trial, _ in found])]
    colors = configuration_colors(opened.record)
    edge = goals[front][np.argsort(goals[front][:, 0])]
    figure.add_scatter(
        x=edge[:, 0], y=edge[:, 1], mode="lines", showlegend=False, hoverinfo="skip", line={"color": FAINT, "width": 1}
    )
    text = [
        f"{name}<br>{trial.num_epochs} epoch{'s' * (trial.num_epochs != 1)}"
        for name, (trial, _) in zip(names, found, strict=True)
    ]
    for label, symbol, size, some in (("other trials", "circle", 8, ~front), ("Pareto front", "star", 15, front)):
        if some.any():
            places = np.flatnonzero(some)
            figure.add_scatter(
                x=goals[some, 0], y=goals[some, 1], text=[text[place] for place in places], mode="markers", name=label,
                showlegend=False,
                marker={
                    "symbol": symbol, "size": size, "line": {"color": FAINT, "width": 1},
                    "color": [colors.get(found[place][0].config_hash, FAINT) for place in places],
                },
                hovertemplate="%{text}<br>mAP %{x:.3f}, numbers %{y:.3f}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="mAP", tickformatstops=SCORE_TICKS, nticks=6)
    figure.update_yaxes(title="number accuracy", tickformatstops=SCORE_TICKS)
    return finish(figure, f"{opened.name}: Pareto front")


_GOALS = ("val_map", "val_number_accuracy")


def plot_time(run: str | Path | OpenedRun) -> go.Figure:
    """Time per slot: all slots together by activity, and each slot by trial.

    Raises:
        RunError: it is not a run, or no trial has started.
    """
    opened = open_run(run)
    parts = time_parts(opened.record)
    lanes, bars = timeline(opened.record)
    if not bars:
        raise NothingToDrawError(opened, "no trial has started yet")
    figure = make_subplots(rows=2, cols=1, row_heights=[0.3, 0.7], vertical_spacing=0.25)
    total = sum(parts.values()) or 1.0
    for number, (name, seconds) in enumerate(parts.items()):
        figure.add_bar(
            x=[100 * seconds / total], y=["all slots"], orientation="h", name=name, row=1, col=1,
            marker={"color": PART_COLORS[number], "pattern": {"shape": ("", "/", "x", ".")[number]}},
            hovertemplate=f"{name}: {seconds / 60:.1f} min (%{{x:.1f}} %)<extra></extra>",
        )  # fmt: skip
    for status in dict.fromkeys(trial.status for *_, trial in bars):
        some = [bar for bar in bars if bar[3].status == status]
        figure.add_bar(
            x=[(end - start) / 60 for _, start, end, _ in some], base=[start / 60 for _, start, _, _ in some],
            y=[f"slot {lane + 1}" for lane, *_ in some], orientation="h", row=2, col=1, showlegend=False,
            marker={
                "color": STATUS_COLORS.get(status, FAILED_COLOR), "line": {"color": "rgba(128,128,128,0.9)", "width": 1}
            },
            text=[trial.trial_id for *_, trial in some], textposition="inside", insidetextanchor="middle",
            hovertemplate=f"%{{text}} ({status}): %{{x:.1f}} min<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="% of slot time", range=[0, 100], row=1, col=1)
    figure.update_xaxes(title="minutes since the first trial", row=2, col=1)
    figure.update_yaxes(autorange="reversed", row=2, col=1)
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    return finish(figure, f"{opened.name}: time per slot", height=260 + 34 * min(max(lanes, 1), 16))


def _rungs(opened: OpenedRun) -> list[int]:
    """The rungs of ASHA from run.json; without them, the epochs after which it stopped a trial."""
    named = opened.about.get("rungs")
    if isinstance(named, list) and all(isinstance(one, int) for one in named):
        return named
    return sorted({one.epoch for one in opened.record.arrivals if one.cut is not None})


def joined_curves(trials: Iterable[TrialRecord], column: str) -> tuple[list[Any], list[Any], list[str]]:
    """Many curves as one trace with gaps, because a thousand traces are slow."""
    x: list[Any] = []
    y: list[Any] = []
    text: list[str] = []
    for trial in trials:
        for epoch, one in sorted(trial.epochs.items()):
            x.append(epoch)
            y.append(one.get(column))
            text.append(f"{trial.trial_id}, {trial.status}")
        x.append(None)
        y.append(None)
        text.append("")
    return x, y, text


def _draw(figure: go.Figure, number: int, line: Line, curve: tuple[list[int], Values], *, place: int = 0) -> None:
    """Add the first training of a line; `place` is the row of subplots, 0 in a figure without subplots."""
    epochs, values = curve
    there = ~np.isnan(values[0])
    name = legend_name(line.label)
    figure.add_scatter(
        x=np.array(epochs)[there].tolist(),
        y=values[0][there].tolist(),
        mode="lines+markers",
        name=name,
        legendgroup=line.trials[0].trial_id,
        showlegend=place < 2,
        line={"color": COLORS[number % len(COLORS)], "dash": DASHES[number % len(DASHES)], "width": 2},
        marker={"symbol": MARKERS[number % len(MARKERS)], "size": 8},
        hovertemplate=f"{name}<br>epoch %{{x}}: %{{y:.3f}}<extra></extra>",
        **({"row": place, "col": 1} if place else {}),
    )


def _longest(leads: list[TrialRecord]) -> int:
    return max((lead.num_epochs for lead in leads), default=1)
