"""Figures about several runs with the same metric and data, one colour per run: learning curves and best scores."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from results.figures.history import MOST_TICKS, best_by_number, best_by_time, scored_trials
from results.figures.style import DASHES, MARKERS, SCORE_TICKS, epoch_axis, finish, legend_name, plain
from results.figures.training import joined_curves
from results.views.curves import COLORS, LABELS, LEAST_SPAN
from results.views.several_runs import ComparedRuns


def plot_curves_of_runs(compared: ComparedRuns) -> go.Figure:
    """Learning curves: the best configuration of each run as a strong line, its other trials as thin lines."""
    column = compared.metric
    figure = go.Figure()
    for number, (name, run) in enumerate(compared.runs.items()):
        leads = [lead for lead in run.record.settings() if lead.epochs]
        if not leads:
            continue
        best = leads[:1]
        others = [one for one in run.record.trials.values() if one.epochs and one.role != "retrain" and one not in best]
        style = {"color": _color(number), "dash": DASHES[number % len(DASHES)]}
        for trials, width, opacity, size in ((others, 1, 0.35, 4), (best, 3, 1.0, 9)):
            x, y, text = joined_curves(trials, column)
            figure.add_scatter(
                x=x, y=y, text=text, mode="lines+markers", name=legend_name(name), legendgroup=name, connectgaps=False,
                showlegend=trials is best, opacity=opacity, line={**style, "width": width},
                marker={"symbol": MARKERS[number % len(MARKERS)], "size": size},
                hovertemplate=f"{plain(name)}, %{{text}}<br>epoch %{{x}}: %{{y:.3f}}<extra></extra>",
            )  # fmt: skip
    longest = max((one.num_epochs for one in compared.record.trials.values()), default=1)
    figure.update_xaxes(title="epoch", **epoch_axis(longest))
    figure.update_yaxes(title=LABELS.get(column, column), tickformatstops=SCORE_TICKS)
    return finish(figure, f"{compared.record.run}: learning curves", height=420)


def plot_history_of_runs(compared: ComparedRuns) -> go.Figure:
    """The best score so far of each run, by trial number and by time since the start of the run."""
    histories = [(number, name, run, scored_trials(run)) for number, (name, run) in enumerate(compared.runs.items())]
    histories = [one for one in histories if one[3]]
    most = max((scored[-1].number for *_, scored in histories), default=0)
    ends: dict[int, list[float]] = {1: [], 2: []}
    longest = max((one.at for *_, scored in histories for one in scored), default=0.0)
    unit, seconds = ("hours", 3600) if longest >= 7200 else ("minutes", 60)
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    for number, name, run, scored in histories:
        steps = [(at / seconds, best) for at, best in best_by_time(run)]
        for row, line in ((1, best_by_number(scored)), (2, steps)):
            ends[row] += [best for _, best in line]
            figure.add_scatter(
                x=[at for at, _ in line], y=[best for _, best in line], mode="lines+markers", name=legend_name(name),
                legendgroup=name, showlegend=row == 1, row=row, col=1, cliponaxis=False,
                line={"color": _color(number), "dash": DASHES[number % len(DASHES)], "width": 2, "shape": "hv"},
                marker={"symbol": MARKERS[number % len(MARKERS)], "size": 6},
                hovertemplate=f"{plain(name)}: best so far %{{y:.3f}}<extra></extra>",
            )  # fmt: skip
    figure.update_xaxes(title="trial number", dtick=1 if most <= MOST_TICKS else None, row=1, col=1)
    figure.update_xaxes(title=f"{unit} since the start of the run", rangemode="tozero", row=2, col=1)
    for row, values in ends.items():
        low, high = min(values), max(values)
        pad = max(0.06 * (high - low), (LEAST_SPAN - (high - low)) / 2)
        figure.update_yaxes(range=[low - pad, high + pad], row=row, col=1)
    figure.update_yaxes(title=LABELS.get(compared.metric, compared.metric), tickformatstops=SCORE_TICKS)
    return finish(figure, f"{compared.record.run}: best score so far", height=560)


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
