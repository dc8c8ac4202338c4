"""The Pareto front of a search with several aims: the metric with its interval against each cost."""

import numpy as np
import plotly.graph_objects as go

from results.figures.nothing import NothingToDrawError
from results.figures.style import FAINT, SCORE_TICKS, finish, plain
from results.record.schema import AIMS
from results.views.costs import COST_WORDS
from results.views.curves import configuration_colors, configuration_names
from results.views.leaderboard import SHOWN
from results.views.opened_run import OpenedRun


def plot_costs(run: OpenedRun) -> go.Figure:
    """The metric of each trial against its cost: stars are on the Pareto front of all aims.

    Raises:
        NothingToDrawError: the search has one aim, or no trial has a score and its costs.
    """
    record, metric = run.record, run.metric
    if not record.aims:
        raise NothingToDrawError(run, "the search has only one aim; --metric val_map,latency has two")
    board = run.leaderboard
    known = board[(board["role"] == "search") & board["on_front"].notna()]
    if known.empty:
        raise NothingToDrawError(run, "no trial has a score and its costs yet")
    names = dict(zip(record.trials, configuration_names([*record.trials.values()]), strict=True))
    colors = configuration_colors(record)
    columns = [AIMS[name] for name in record.aims]
    figure = go.Figure().set_subplots(rows=1, cols=len(columns), shared_yaxes=True, horizontal_spacing=0.06)
    for place, column in enumerate(columns, start=1):
        for symbol, size, some in (
            ("circle", 8, known[~known["on_front"].astype(bool)]),
            ("star", 14, known[known["on_front"].astype(bool)].sort_values(column)),
        ):
            low, high = (np.asarray(some[f"{metric}{end}"], dtype=float) for end in ("_low", "_high"))
            values = np.asarray(some[metric], dtype=float)
            figure.add_scatter(
                x=some[column],
                y=values,
                error_y={
                    "array": high - values,
                    "arrayminus": values - low,
                    "color": FAINT,
                    "thickness": 1,
                    "width": 2,
                },
                mode="lines+markers" if symbol == "star" and len(columns) == 1 else "markers",
                line={"color": FAINT, "width": 1},
                text=[plain(names[name]) for name in some["trial_id"]],
                marker={
                    "symbol": symbol,
                    "size": size,
                    "line": {"color": FAINT, "width": 1},
                    "color": [colors.get(digest, FAINT) for digest in some["config_hash"]],
                },
                showlegend=False,
                hovertemplate="%{text}<br>%{x:.3g}, %{y:.3f}<extra></extra>",
                row=1,
                col=place,
            )
        figure.update_xaxes(title=COST_WORDS[column].meaning, rangemode="tozero", row=1, col=place)
    figure.update_yaxes(title=SHOWN.get(metric, metric), tickformatstops=SCORE_TICKS, col=1)
    return finish(figure, f"{run.name}: Pareto front of {SHOWN.get(metric, metric)} and cost")
