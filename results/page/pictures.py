"""The figures of a report page: titles, captions, and the figures as JSON for the page's script."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from digits_core.errors import RunError
from results.figures.costs import plot_costs
from results.figures.detection import plot_anchors, plot_thresholds
from results.figures.history import plot_history
from results.figures.nothing import NothingToDrawError
from results.figures.settings import (
    SOME,
    plot_contours,
    plot_importances,
    plot_parallel,
    plot_slices,
    scored_settings,
)
from results.figures.style import LIGHT
from results.figures.training import curve_range, num_cut, plot_curves, plot_overfitting, plot_pareto, plot_time
from results.views.opened_run import OpenedRun

TOP_MARGIN = 36
"""Top margin of a figure, pixels; its title is outside the figure."""

WIDE = ("costs", "curves", "parallel", "slices")
"""Figures that take the whole width of the page."""

Picture = tuple[str, str, str, Callable[[OpenedRun], go.Figure]]
"""Key, title, caption, and the function that draws it."""


def _of_training(run: OpenedRun) -> list[Picture]:
    limits, cut = curve_range(run, run.metric), num_cut(run, run.metric)
    lines = "1 line is" if cut == 1 else f"{cut} lines are"
    below = (
        f" The axis is chosen for the best configurations: {lines} cut at {limits[0]:.2f}." if limits and cut else ""
    )
    costs: list[Picture] = [
        (
            "costs",
            "Pareto front of score and cost",
            "Each trial with the interval of its score. Stars are on the Pareto front: no other trial is better in all "
            "aims of the search. Colours are those of the learning curves.",
            plot_costs,
        )
    ]
    return [
        *(costs if run.record.aims else []),
        (
            "curves",
            "Learning curves",
            "The best configurations by name, the others in grey (stopped and failed ones fainter). Dotted lines mark "
            f"the epochs at which the scheduler decides.{below}",
            plot_curves,
        ),
        (
            "history",
            "Optimization history",
            "The score of each trial at its best epoch, and the best score so far (blue line). Top: by trial number. "
            "Bottom: by time, pauses of the search included. Colours are those of the learning curves; grey trials are "
            "not among the best configurations. Replicates are not shown.",
            plot_history,
        ),
        (
            "overfitting",
            "Overfitting",
            "The gap between training and validation. A line that rises means overfitting if validation mAP falls "
            "at the same time (learning curves). While both rise, the model still learns.",
            plot_overfitting,
        ),
        (
            "pareto",
            "Pareto front",
            "Each trained model by mAP and number accuracy. Stars are on the Pareto front: no other model is better in "
            "one of the two and at least as good in the other. Colours are those of the learning curves.",
            plot_pareto,
        ),
    ]


_OF_DETECTION: list[Picture] = [
    (
        "thresholds1",
        "Thresholds for Task 1",
        "mAP of the best model at each NMS and score threshold. The star marks the best pair, selected on these "
        "images.",
        lambda one: plot_thresholds(one, task=1),
    ),
    (
        "thresholds2",
        "Thresholds for Task 2",
        "Share of complete numbers that the same model reads correctly.",
        lambda one: plot_thresholds(one, task=2),
    ),
    (
        "anchors",
        "Anchors and box sizes",
        "Sizes of training boxes after the resize of the model, and of its anchors. Both axes are logarithmic.",
        plot_anchors,
    ),
    (
        "time",
        "Time per slot",
        "Top: all slots together. Bottom: each slot; trials are finished (dark grey), stopped (light grey), running "
        "(brown) or failed (red).",
        plot_time,
    ),
]


def _of_settings(run: OpenedRun) -> list[Picture]:
    scored = scored_settings(run)
    count = len(scored.study.get_trials(deepcopy=False))
    score = scored.label
    early = "" if scored.epoch is None else (
        f" Scores are those after epoch {scored.epoch}, the last epoch that all configurations reached."
    )  # fmt: skip
    pair = "both parameters" if len(scored.everywhere) == 2 else "the two most important parameters"
    some = f" Uncertain, with only {count} configurations." if count < SOME else ""
    return [
        (
            "importances",
            "Parameter importance",
            f"Share of each parameter in the differences of the score (PED-ANOVA).{early}{some}",
            plot_importances,
        ),
        (
            "contours",
            "Contour plot",
            f"{score} over {pair}, interpolated between configurations.{early}",
            plot_contours,
        ),
        (
            "parallel",
            "Parallel coordinates",
            f"Each line is a configuration; yellow means a high {score}, dark blue a low one.{early}",
            plot_parallel,
        ),
        (
            "slices",
            "Slice plot",
            f"{score} against each parameter. Colours are those of the learning curves.{early}",
            plot_slices,
        ),
    ]


def pictures_of(run: OpenedRun) -> list[dict[str, Any]]:
    """Each figure with its title and caption, or with the reason why there is nothing to draw."""
    found = []
    for key, title, words, draw in [*_of_training(run), *_of_settings(run), *_OF_DETECTION]:
        figure, why_not = None, ""
        if run.record.winner() is None:
            why_not = "no trial has a score yet"
        else:
            try:
                figure = draw(run)
            except NothingToDrawError as nothing:
                why_not = nothing.reason
            except RunError as error:
                why_not = str(error)
        found.append(
            {
                "key": key,
                "title": title,
                "words": words,
                "why_not": why_not,
                "figure": as_json(figure),
                "min_width": min_width(figure),
            }
        )
    return arranged(found)


def arranged(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pictures, each with `wide`: whether it takes the whole width; others are two in a row, none is alone."""
    found = [{**one, "wide": one["key"] in WIDE} for one in pictures]
    drawn = [one for one in found if one["figure"]]
    for wide, group in itertools.groupby(drawn, key=lambda one: bool(one["wide"])):
        some = list(group)
        if not wide and len(some) % 2:
            some[-1]["wide"] = True
    return found


def min_width(figure: go.Figure | None) -> int:
    """The smallest width of a figure, pixels; a narrower window scrolls it."""
    return 0 if figure is None else (figure.layout.meta or {}).get("min_width", 320)


def as_json(figure: go.Figure | None) -> dict[str, Any] | None:
    """A figure as JSON, without title and template: the page has both."""
    if figure is None:
        return None
    figure.update_layout(title=None, template=None, width=None)
    tree: dict[str, Any] = json.loads(figure.to_json())
    tree["layout"].pop("template", None)
    tree["layout"]["margin"] = {**LIGHT["layout"]["margin"], **tree["layout"].get("margin", {}), "t": TOP_MARGIN}
    return {"data": tree["data"], "layout": tree["layout"]}
