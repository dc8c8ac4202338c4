"""Figures of one evaluation: precision and recall, confusion matrix, errors, recall by height."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from results.figures.style import DASHES, SCALE, finish, plain
from results.views.curves import COLORS
from results.views.evaluation import size_words


def plot_precision_recall(found: dict[str, Any]) -> go.Figure:
    """Precision against recall of each class at IoU .50; `found` is what `evaluation_of` returns."""
    curves = found["precision_recall"]
    figure = go.Figure()
    for number, (name, precision) in enumerate(curves["precision"].items()):
        figure.add_scatter(
            x=curves["recall"],
            y=precision,
            mode="lines",
            name=plain(name),
            line={"color": COLORS[number % len(COLORS)], "dash": DASHES[number // len(COLORS) % len(DASHES)]},
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
        "class's mAP@.5.",
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
