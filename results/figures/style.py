"""The style of Plotly figures: dashes, markers, light and dark templates, safe labels."""

import html
from typing import Any

import plotly.graph_objects as go

from digits_core.errors import printable
from results.views.curves import COLORS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
"""Lines also differ by dashes and markers, not only by colour."""

FAINT = "#8b929c"
"""Colour of less important items, on light and dark backgrounds."""

SCALE = "Cividis"
"""Nuñez et al. 2018, Optimizing colormaps with consideration for color vision deficiency."""

RISE = [[0.0, FAINT], [1.0, "#d55e00"]]
"""Colour scale of lines and points, visible on light and dark backgrounds."""

MOST_LETTERS = 60

HEIGHT = 380


def _template(text: str, grid: str) -> dict[str, Any]:
    axis = {"gridcolor": grid, "zerolinecolor": grid, "linecolor": grid, "automargin": True, "title": {"standoff": 8}}
    return {
        "layout": {
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": text},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(COLORS),
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"align": "left"},
            "legend": {"orientation": "h", "yanchor": "top", "y": -0.2, "x": 0},
            "margin": {"l": 60, "r": 16, "t": 36, "b": 50},
        }
    }


LIGHT, DARK = _template("#1b1f24", "#dfe3e8"), _template("#e6e9ee", "#3a414b")
"""Plotly templates for light and dark backgrounds."""


def plain(value: object) -> str:
    """Text escaped for Plotly, which interprets some HTML tags and links."""
    text = printable(str(value))
    return html.escape(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…", quote=False)


def finish(figure: go.Figure, title: str, *, height: int = HEIGHT) -> go.Figure:
    """Set title, height and template of a figure."""
    figure.update_layout(paper_bgcolor=None, plot_bgcolor=None)  # Optuna sets light backgrounds
    figure.update_annotations(font={"color": None})
    figure.update_layout(template=LIGHT, title={"text": plain(title), "font": {"size": 15}}, height=height)
    return figure
