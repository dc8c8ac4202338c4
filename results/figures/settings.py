"""Figures about parameters, drawn with Optuna: parallel coordinates, parameter importance, slice and contour plot."""

import html
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from results.figures.nothing import NothingToDrawError
from results.figures.style import FAINT, MARKERS, PLAIN, SCALE, SCORE_TICKS, finish, log_ticks, plain
from results.record.schema import FAILED
from results.record.trial import TrialRecord
from results.views.curves import configuration_colors
from results.views.leaderboard import SHOWN, varying_parameters
from results.views.opened_run import OpenedRun, open_run

FEW = 10
"""Fewest configurations for parameter importance and contour plot."""

SOME = 40
"""With fewer configurations the importance is shown with a warning."""

MOST_PARAMETERS = 8
"""Most parameters in one figure."""

SLICE_COLUMNS = 2
"""Most panels of the slice plot side by side, so that they fit into a narrow window."""

SLICE_LETTERS = 15
"""Longest label of a choice in the slice plot."""

SLICE_TICKS = 5
"""Most choices with a label in a panel of the slice plot."""

LOG_SPAN = 20.0
"""A range is drawn on a logarithmic axis if its ends differ by at least this factor."""


LABEL_LETTERS = 20
"""Longest label of a value in the parallel coordinates."""

LEAST_GAP = 105
"""Smallest distance between the axes of the parallel coordinates, pixels."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The configurations of a run and their scores as an Optuna study.

    Attributes:
        study: contains complete trials only.
        epoch: the epoch after which all are compared; None if all were trained equally long and have their best epoch.
        label: name of the score.
        num_sampled: how many of the configurations were sampled; None in a comparison, whose configurations are named.
    """

    study: optuna.Study
    epoch: int | None
    label: str
    num_sampled: int | None

    @property
    def parameters(self) -> list[str]:
        """Parameters that vary, those with the most values first."""
        seen: dict[str, set[Any]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            for name, value in trial.params.items():
                seen.setdefault(name, set()).add(value)
        several = [name for name, values in seen.items() if len(values) > 1]
        return sorted(several, key=lambda name: -len(seen[name]))[:MOST_PARAMETERS]

    @property
    def everywhere(self) -> list[str]:
        """Varying parameters that every configuration has; conditional parameters can be missing."""
        trials = self.study.get_trials(deepcopy=False)
        return [name for name in self.parameters if all(name in trial.params for trial in trials)]


def scored_settings(run: str | Path | OpenedRun) -> Scored:
    """The configurations of a run as a study, scored at their best epoch or at the last common epoch.

    The last common epoch is used if the trials have different numbers of epochs: the best score of a trial that was
    stopped early is not comparable with that of a complete training.

    Raises:
        RunError: it is not a run.
    """
    opened = open_run(run)
    metric = opened.metric
    known = sorted(opened.record.settings(), key=lambda one: one.trial_id)  # in the order of sampling
    trials = [one for one in known if one.epochs and one.status not in FAILED]
    alike = len({one.num_epochs for one in trials}) <= 1
    common = min((one.num_epochs for one in trials), default=0)
    values: list[tuple[TrialRecord, float]] = []
    for trial in trials:
        best = trial.best(metric) if alike else trial.epochs.get(common)
        if best is not None and best.get(metric) is not None:
            values.append((trial, float(best[metric])))
    parameters = {trial.trial_id: dict(trial.params) for trial, _ in values}
    if (
        sum(map(bool, parameters.values())) < 3
    ):  # a comparison, or only baselines so far: configurations are named, not sampled
        varying = varying_parameters([trial for trial, _ in values])
        parameters = {
            trial.trial_id: {parameter: trial.config.get(parameter) for parameter in varying} for trial, _ in values
        }
    distributions = _distributions(list(parameters.values()))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # choices that are not plain values
        for trial, value in values:
            mine = {plain(name): one for name, one in parameters[trial.trial_id].items()}
            kinds = {plain(name): distributions[name] for name in parameters[trial.trial_id]}
            mine = {
                name: one if not isinstance(kinds[name], CategoricalDistribution) else plain(one)
                for name, one in mine.items()
            }
            if mine:
                study.add_trial(
                    optuna.trial.create_trial(
                        params=mine, distributions=kinds, value=value, user_attrs={"trial": trial.trial_id}
                    )
                )
    label = f"{SHOWN.get(metric, metric)}" + ("" if alike else f" after epoch {common}")
    sampled = None if opened.record.comparison else sum(trial.baseline is None for trial, _ in values)
    return Scored(study, None if alike else common, label, sampled)


def plot_parallel(run: str | Path | OpenedRun) -> go.Figure:
    """Parallel coordinates: one line per configuration.

    Raises:
        RunError: it is not a run, or it has fewer than two configurations or parameters.
    """
    opened = open_run(run)
    scored = scored_settings(opened)
    if not _several(scored) or len(scored.everywhere) < 2:
        raise NothingToDrawError(opened, "the configurations share fewer than two parameters")
    from optuna.visualization import plot_parallel_coordinate

    figure = plot_parallel_coordinate(scored.study, params=scored.everywhere, target_name=scored.label)
    figure.update_traces(selector={"mode": "markers"}, marker={"showscale": False})  # the first axis is the scale
    lines = list(
        figure.select_traces(selector={"mode": "lines"})
    )  # the first value of each is its score, scaled to 0..1
    scores = [trial.value or 0.0 for trial in scored.study.get_trials(deepcopy=False)]
    for line, name, score in zip(lines, _names(scored, scored.everywhere), scores, strict=True):
        line.hovertemplate = f"{name}<br>{line.hovertemplate}"
        line.customdata = [[line.customdata[0][0], f"{score:.3f}"], *line.customdata[1:]]
        line.update(line={"color": sample_colorscale(SCALE, [float(line.y[0])])[0], "width": 1.8}, opacity=0.8)
    low, high = min(scores), max(scores)
    for label in figure.layout.annotations:
        if label.x == 0:  # the axis of the score, on which Optuna writes three significant digits
            label.text = f"{low + (high - low) * label.y:.3f}"
        else:
            label.text = _cut(label.text, LABEL_LETTERS)  # hovering a line shows the whole value
    figure.update_xaxes(ticktext=[_two_lines(name) for name in figure.layout.xaxis.ticktext], tickangle=0)
    figure = finish(figure, f"{opened.name}: parallel coordinates, {scored.label}", height=400)
    return figure.update_layout(margin={"l": 60, "r": 60, "b": 50}, meta={"min_width": _parallel_width(figure)})


def _parallel_width(figure: go.Figure) -> int:
    """The width at which no label of a value reaches the axis before it, and no two names of axes meet, pixels."""
    names = [line for text in figure.layout.xaxis.ticktext for line in html.unescape(text).split("<br>")]
    values = [html.unescape(label.text) for label in figure.layout.annotations if label.x]
    apart = max([LEAST_GAP, *(len(one) * 6 + 24 for one in values), *(len(one) * 8 + 10 for one in names)])
    return 120 + apart * (len(figure.layout.xaxis.ticktext) - 1)


def plot_importances(run: str | Path | OpenedRun) -> go.Figure:
    """Parameter importance.

    Raises:
        RunError: it is not a run, or it has too few configurations.

    Source:
        Watanabe et al. 2023, PED-ANOVA, as implemented in Optuna.
    """
    opened = open_run(run)
    scored = scored_settings(opened)
    found = importances(scored)
    if not found:
        raise NothingToDrawError(opened, _few_words(scored))
    names, values = list(found), list(found.values())
    figure = go.Figure(
        go.Bar(
            x=values[::-1],
            y=names[::-1],
            orientation="h",
            marker_color=PLAIN,
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="importance (share)", range=[0, 1])
    return finish(figure, f"{opened.name}: parameter importance for {scored.label}", height=160 + 34 * len(names))


def importances(scored: Scored) -> dict[str, float]:
    """Share of each parameter, largest first; empty with too few configurations or fewer than two parameters."""
    trials = scored.study.get_trials(deepcopy=False)
    if len(trials) < FEW or len(scored.everywhere) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(
                scored.study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=scored.everywhere
            )
        except (ValueError, RuntimeError):  # all scores are equal
            return {}
    return found if any(value > 0 for value in found.values()) else {}


def plot_slices(run: str | Path | OpenedRun) -> go.Figure:
    """Slice plot: the score against each parameter.

    The best configurations have the colours of the learning curves, the others are grey.

    Raises:
        RunError: it is not a run, or it has fewer than two configurations.
    """
    opened = open_run(run)
    scored = scored_settings(opened)
    if not _several(scored):
        raise NothingToDrawError(opened, "the configurations have no parameters that vary")
    from optuna.visualization import plot_slice

    drawn = plot_slice(scored.study, params=scored.parameters, target_name=scored.label)
    columns = min(len(drawn.data), SLICE_COLUMNS)
    rows = -(-len(drawn.data) // columns)
    axes = [drawn.layout["xaxis" if place == 0 else f"xaxis{place + 1}"] for place in range(len(drawn.data))]
    choices = [_unquoted(value) for axis in axes if axis.type == "category" for value in axis.categoryarray]
    between = 100 + 6 * max((min(len(one), SLICE_LETTERS) for one in choices), default=0)
    height = 60 + 140 * rows + between * (rows - 1)  # without the space below the last row
    figure = make_subplots(
        rows=rows, cols=columns, shared_yaxes=True, horizontal_spacing=0.06, vertical_spacing=between / height
    )
    known, trials = configuration_colors(opened.record), opened.record.trials
    for place, trace in enumerate(drawn.data):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        axis = axes[place]
        parameter, x = str(axis.title.text), list(trace.x)  # Optuna orders the parameters by name
        kind: dict[str, Any] = {"type": axis.type, "nticks": 4}
        if axis.type == "category":
            x = [_unquoted(value) for value in x]
            choices = [_unquoted(value) for value in axis.categoryarray]
            shown = choices[:: -(-len(choices) // SLICE_TICKS)]
            kind |= {"categoryorder": "array", "categoryarray": choices, "autotickangles": [0, 90]}
            kind |= {"tickvals": shown, "ticktext": [_cut(one, SLICE_LETTERS) for one in shown]}
        elif axis.type == "log":
            kind |= log_ticks(min(x), max(x), most=4)
        mine = [one for one in scored.study.get_trials(deepcopy=False) if parameter in one.params]
        colors = [known.get(trials[one.user_attrs["trial"]].config_hash, FAINT) for one in mine]
        figure.add_scatter(
            x=x, y=list(trace.y), text=_names(scored, [parameter]), mode="markers", showlegend=False, **at,
            marker={"color": colors, "size": 8, "line": {"color": FAINT, "width": 0.5}},
            hovertemplate=f"%{{text}}<br>{parameter} %{{x}}<extra></extra>",
        )  # fmt: skip
        figure.update_xaxes(title=_two_lines(parameter), **kind, **at)
    figure.update_yaxes(tickformatstops=SCORE_TICKS)
    figure.update_yaxes(title=scored.label, col=1)
    return finish(figure, f"{opened.name}: slice plot, {scored.label}", height=height + between)


def plot_contours(run: str | Path | OpenedRun) -> go.Figure:
    """Contour plot over the two most important parameters.

    Raises:
        RunError: it is not a run, or it has too few configurations or fewer than two parameters.
    """
    opened = open_run(run)
    scored = scored_settings(opened)
    trials = scored.study.get_trials(deepcopy=False)
    pair = list(dict.fromkeys([*importances(scored), *scored.everywhere]))[:2]
    if len(pair) < 2 or len(trials) < FEW:
        raise NothingToDrawError(opened, _few_words(scored))
    from optuna.visualization import plot_contour

    figure = plot_contour(scored.study, params=pair, target_name=scored.label)
    figure.update_traces(
        selector={"type": "contour"},
        colorscale=SCALE,
        reversescale=False,
        colorbar={"title": {"text": scored.label, "side": "right"}, "thickness": 12},
    )
    figure.update_xaxes(selector={"type": "category"}, autotickangles=[0, 90])
    for axis in (figure.layout.xaxis, figure.layout.yaxis):
        if axis.type == "log":
            values = [trial.params[axis.title.text] for trial in trials]
            axis.update(log_ticks(min(values), max(values)))
    figure.update_traces(
        selector={"type": "scatter"}, marker={"symbol": MARKERS[0], "size": 7, "line": {"color": "white", "width": 1}}
    )
    return finish(figure, f"{opened.name}: contour plot, {scored.label}", height=420)


def _two_lines(name: str) -> str:
    """A name for a narrow place: broken after the group of a parameter, or before "after epoch"."""
    return name.replace(".", ".<br>", 1).replace(" after ", "<br>after ", 1)


def _cut(text: str, letters: int) -> str:
    """An escaped text with at most so many letters."""
    whole = html.unescape(text)
    return text if len(whole) <= letters else html.escape(whole[: letters - 1] + "…", quote=False)


def _unquoted(value: object) -> str:
    """A choice without the quotes that Optuna adds to text."""
    return str(value).strip("'")


def _names(scored: Scored, parameters: list[str]) -> list[str]:
    """Trial and score of each configuration that has all the given parameters."""
    return [
        f"{trial.user_attrs['trial']}: {scored.label} {trial.value or 0:.3f}"
        for trial in scored.study.get_trials(deepcopy=False)
        if all(name in trial.params for name in parameters)
    ]


def _few_words(scored: Scored) -> str:
    """Why parameters cannot be ranked."""
    count = len(scored.study.get_trials(deepcopy=False))
    if count < FEW and scored.num_sampled is None:
        return f"needs {FEW} configurations, this run has {count}"
    if count < FEW:
        return f"needs {FEW} sampled configurations, this run has {scored.num_sampled}"
    return "the configurations share too few parameters, or all scores are equal"


def _several(scored: Scored) -> bool:
    return len(scored.study.get_trials(deepcopy=False)) >= 2 and bool(scored.parameters)


def _distributions(parameters: list[dict[str, Any]]) -> dict[str, BaseDistribution]:
    """A distribution for each parameter that covers its values."""
    seen: dict[str, list[Any]] = {}
    for one in parameters:
        for name, value in one.items():
            seen.setdefault(name, []).append(value)
    found: dict[str, BaseDistribution] = {}
    for name, values in seen.items():
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) < len(values) or len(set(numbers)) < 2:
            found[name] = CategoricalDistribution([plain(value) for value in dict.fromkeys(values)])
            continue
        low, high = min(numbers), max(numbers)
        log = low > 0 and high / low >= LOG_SPAN
        if isinstance(low, int) and isinstance(high, int) and all(isinstance(value, int) for value in numbers):
            found[name] = IntDistribution(low, high, log=log)
        else:
            found[name] = FloatDistribution(low, high, log=log)
    return found
