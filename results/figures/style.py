"""The style of Plotly figures: colours, ticks, dashes, markers, light and dark templates, safe labels."""

import html
import math
import textwrap
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from digits_core.errors import printable
from results.views.curves import COLORS

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "x", "triangle-down")
"""Lines also differ by dashes and markers, not only by colour."""

FAINT = "#8b929c"
"""Colour of less important items, on light and dark backgrounds."""

SCALE = [[part / 8, sample_colorscale("Cividis", [0.28 + 0.6 * part / 8])[0]] for part in range(9)]
"""Colour scale of scores: the middle of Cividis, visible on light and dark backgrounds.

Source: Nuñez et al. 2018, Optimizing colormaps with consideration for color vision deficiency.
"""

BEST = COLORS[0]
"""Colour of the best configuration, which is the first in `COLORS`, and of the best score so far."""

PLAIN = "#6f7a88"
"""Colour of bars without a meaning of their own."""

STATUS_COLORS = {"finished": PLAIN, "stopped": "#b4bac2", "running": COLORS[7]}
"""Colour of a trial by its status; failed ones have `FAILED_COLOR`."""

FAILED_COLOR = "#c0392b"

PART_COLORS = ("#2f6f7c", COLORS[6], "#8cc0ca", "#cfe2e6")
"""Colours of the activities of a slot."""

SCORE_TICKS = [
    {"dtickrange": [None, 0.000075], "value": ".5f"},
    {"dtickrange": [0.000075, 0.00075], "value": ".4f"},
    {"dtickrange": [0.00075, 0.0075], "value": ".3f"},
    {"dtickrange": [0.0075, None], "value": ".2f"},
]
"""Formats of a score axis by the distance of its ticks, so that neighbouring ticks never print the same number."""

MOST_LETTERS = 60

LINE_LETTERS = 38
"""Longest line of a legend, so that it fits into a narrow window."""

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
            "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
            "margin": {"l": 60, "r": 16, "t": 36, "b": 50},
        }
    }


LIGHT, DARK = _template("#1b1f24", "#dfe3e8"), _template("#e6e9ee", "#3a414b")
"""Plotly templates for light and dark backgrounds."""


def plain(value: object) -> str:
    """Text escaped for Plotly, which interprets some HTML tags and links."""
    text = printable(str(value))
    return html.escape(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…", quote=False)


def legend_name(value: object) -> str:
    """Text escaped for Plotly, in lines that fit into a narrow window."""
    return "<br>".join(plain(line) for line in textwrap.wrap(printable(str(value)), LINE_LETTERS))


def log_ticks(low: float, high: float, most: int = 8) -> dict[str, Any]:
    """Ticks of a logarithmic axis, labelled with complete numbers.

    Args:
        low: the smallest value, above 0.
        high: the largest value.
        most: largest number of ticks between the two.

    Returns:
        `tickvals` and `ticktext` for a Plotly axis. They continue for a decade on both sides.
    """
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    span = last - first
    grids = [((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), 1), ((1, 2, 3, 5, 7), 1), ((1, 2, 5), 1), ((1, 3), 1)]
    for steps, decades in [*grids, *(((1,), distance) for distance in range(1, span + 1))]:
        values = [float(f"{step}e{power}") for power in range(first, last + 1, decades) for step in steps]
        if sum(low <= value <= high for value in values) <= most:
            break
    return {"tickmode": "array", "tickvals": values, "ticktext": [_full(value) for value in values]}


def epoch_axis(longest: int) -> dict[str, Any]:
    """Ticks and range of an axis of epochs: up to 12 epochs each has a tick, and a single one has no neighbours."""
    return {"dtick": 1 if longest <= 12 else None, "range": [0.5, 1.5] if longest == 1 else None}


def _full(value: float) -> str:
    """A number without a unit prefix; with an exponent only below 0.0001 and from a million."""
    if 1e-4 <= value < 1e6:
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def finish(figure: go.Figure, title: str, *, height: int = HEIGHT) -> go.Figure:
    """Set title, height and template of a figure."""
    figure.update_layout(paper_bgcolor=None, plot_bgcolor=None)  # Optuna sets light backgrounds
    figure.update_annotations(font={"color": None})
    figure.update_layout(template=LIGHT, title={"text": plain(title), "font": {"size": 15}}, height=height)
    return figure
