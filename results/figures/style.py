"""How every picture of a run looks: colours, templates for light and dark, labels that stay text."""

import html
from typing import Any

import plotly.graph_objects as go

from digits_core.errors import printable
from results.views.curves import COLORS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
"""Lines differ by these too: colour is never all there is to tell them apart."""

FAINT = "#8b929c"
"""Of what stands back, on either ground."""

SCALE = "Cividis"
"""Nuñez et al. 2018, Optimizing colormaps with consideration for color vision deficiency."""

RISE = [[0.0, FAINT], [1.0, "#d55e00"]]
"""From low to high for lines and points, which must be seen on either ground."""

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
"""Plotly templates for the two grounds."""


def plain(value: object) -> str:
    """Text as Plotly shows it letter by letter: it takes some tags, and links, for more than text."""
    text = printable(str(value))
    return html.escape(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…", quote=False)


def finish(figure: go.Figure, title: str, *, height: int = HEIGHT) -> go.Figure:
    """Give a figure its title and the house's look."""
    figure.update_layout(paper_bgcolor=None, plot_bgcolor=None)  # Optuna's own stay light in the dark
    figure.update_annotations(font={"color": None})
    figure.update_layout(template=LIGHT, title={"text": plain(title), "font": {"size": 15}}, height=height)
    return figure
