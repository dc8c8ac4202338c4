"""Figures of one evaluation: precision and recall, confusion matrix, errors, recall by height."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from results.figures.style import DASHES, FAINT, SCALE, finish, plain
from results.views.curves import COLORS
from results.views.evaluation import size_words

NUM_WEAK = 4
"""Classes with a colour of their own among the precision-recall curves: those with the lowest mAP@.5."""


def plot_precision_recall(found: dict[str, Any]) -> go.Figure:
    """Precision against recall of each class at IoU .50, the weakest ones in colour.

    Args:
        found: what `evaluation_of` returns.
    """
    curves = found["precision_recall"]
    figure = go.Figure()
    areas = {name: sum(precision) / len(precision) for name, precision in curves["precision"].items()}
    weak = sorted(areas, key=lambda name: areas[name])[:NUM_WEAK]
    strong = [name for name in areas if name not in weak]
    for name in [*strong, *weak]:  # the coloured lines are above the grey ones
        place = weak.index(name) if name in weak else None
        grey = place is None
        figure.add_scatter(
            x=curves["recall"],
            y=curves["precision"][name],
            mode="lines",
            name="other classes" if grey else f"{plain(name)} ({areas[name]:.3f})",
            legendgroup="other classes" if grey else plain(name),
            legendrank=NUM_WEAK if grey else place,
            showlegend=not grey or name == strong[0],
            line={"color": FAINT, "width": 1} if place is None else {"color": COLORS[place], "dash": DASHES[place]},
            hovertemplate=f"{plain(name)}: precision %{{y:.3f}} at recall %{{x:.2f}}<extra></extra>",
        )
    figure.update_xaxes(title="recall", range=[0, 1])
    figure.update_yaxes(title="precision", range=[0, 1.02])
    return finish(figure, "Precision-recall curves")


def plot_confusion(found: dict[str, Any]) -> go.Figure:
    """The confusion matrix: shares of each annotated class, with counts."""
    names = [plain(name) for name in found["confusion"]["labels"]]
    counts = found["confusion"]["annotated_by_detected"]
    shares = [[cell / max(sum(row), 1) for cell in row] for row in counts]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=names,
            y=names,
            text=counts,
            texttemplate="%{text}",
            colorscale=SCALE,
            zmin=0,
            zmax=1,
            colorbar={"title": "share of row", "tickformat": ".0%"},
            hovertemplate="annotated %{y}, detected %{x}: %{text} (%{z:.1%})<extra></extra>",
        )
    )
    figure.update_xaxes(title="detected", type="category", showgrid=False)
    figure.update_yaxes(title="annotated", type="category", autorange="reversed", showgrid=False)
    return finish(figure, "Confusion matrix", height=460)


def plot_errors(found: dict[str, Any]) -> go.Figure:
    """How much mAP@.5 each kind of errors costs."""
    errors = found["errors"]
    figure = go.Figure(
        go.Bar(
            x=[one["kind"] for one in errors],
            y=[one["map_50_lost"] for one in errors],
            text=[f"{one['count']:,}" for one in errors],
            marker_color=COLORS[1],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x}: %{text}, mAP@.5 lost %{y:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(title="mAP@.5 lost", rangemode="tozero")
    return finish(figure, "Errors")


def plot_sizes(found: dict[str, Any]) -> go.Figure:
    """The share of digits that is found, by the height of their boxes."""
    sizes = [one for one in found["sizes"] if one["digits"]]
    figure = go.Figure(
        go.Bar(
            x=[size_words(one) for one in sizes],
            y=[one["found"] / one["digits"] for one in sizes],
            text=[f"{one['digits']:,} digits" for one in sizes],
            marker_color=COLORS[0],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{x}: %{y:.1%} of %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(title="share found", range=[0, 1.1], tickformat=".0%")
    return finish(figure, "Digits found by height")


FIGURES: tuple[tuple[str, str, Callable[[dict[str, Any]], go.Figure]], ...] = (
    (
        "precision_recall",
        "Each class at IoU .50, over all detections above the score threshold of Task 1. The area below a line is the "
        "class's mAP@.5. The classes with the lowest mAP@.5 (in brackets) are coloured, the others grey.",
        plot_precision_recall,
    ),
    (
        "confusion",
        "Rows: annotated digits. Columns: the detection on each of them. The last column counts digits without a "
        "detection, the last row detections on no digit. Colour: share of the row.",
        plot_confusion,
    ),
    (
        "errors",
        "The mAP@.5 that would be gained if only these errors were corrected (TIDE). Numbers: how many there are above "
        "the score with the best F1.",
        plot_errors,
    ),
    (
        "sizes",
        "Share of digits that are detected with the right class at IoU .50, by the height of their boxes in the "
        "original image, above the score with the best F1.",
        plot_sizes,
    ),
)
"""The figures of an evaluation: key, caption, and the function that draws it."""
