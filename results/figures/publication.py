"""Figures for publications, drawn with Matplotlib: learning curves, overfitting, predictions."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, printable
from results.record.folder import RUN_FILE
from results.record.trial import TrialRecord
from results.tables.matches import matches_path, read_matches
from results.tables.samples import SAMPLES_FILE, Prediction, predictions_on, read_samples
from results.views.curves import COLORS, LABELS, LEAST_SPAN, Line, Values, gaps_of, is_measured, lines_of, trainings
from results.views.opened_run import OpenedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""Lines also differ by dashes and markers, for prints without colour."""

MARKERS = "osD^vPX*"

BAND_WORDS = "line: mean of a configuration's trainings (number in brackets); band: minimum to maximum"

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "digit-search",
    "figure.facecolor": "white",
}


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG and as SVG, whose text stays text; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=150, bbox_inches="tight")
        figure.savefig(path.with_name(f"{path.name}.svg"), bbox_inches="tight", metadata={"Date": None})


def draw_figures(run: OpenedRun, leads: Sequence[TrialRecord]) -> dict[str, "Figure"]:
    """All figures of a run by file name.

    Args:
        run: the opened run.
        leads: first trainings of the configurations to draw; published tables have their own configurations.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        lines = lines_of(run.record, leads, replicates=True)
        figures = {
            "curves": curves_figure(lines, f"{run.name}: learning curves"),
            "overfitting": overfitting_figure(lines, f"{run.name}: overfitting"),
        }
        for name, title, rows in table_lines(run):
            figures[name] = curves_figure(rows, title)
        predictions = predictions_figure(run, leads[0])
        if predictions is not None:
            figures["predictions"] = predictions
    return figures


def table_lines(run: OpenedRun) -> list[tuple[str, str, list[Line]]]:
    """File name, title and lines of each published table of the run; tables with the same trainings once."""
    found: dict[tuple[str, ...], tuple[str, str, list[Line]]] = {}
    for table in run.about.get("tables") or []:
        rows: dict[str, Line] = {}
        try:
            named = [(str(row["label"]), str(row["config_hash"])) for row in table["rows"]]
            title = str(table["title"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{run.folder / RUN_FILE} is damaged or of another version: {error}") from None
        for label, config_hash in named:
            some = trainings(run.record, config_hash)
            if some:
                rows.setdefault(config_hash, Line(label, some))
        if len(rows) > 1:
            name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            found.setdefault(tuple(rows), (name, f"{title}, trained again", list(rows.values())))
    return list(found.values())


def curves_figure(lines: Sequence[Line], title: str) -> "Figure":
    """Losses and scores over epochs: one line per configuration, with a band over its trainings."""
    from matplotlib.figure import Figure

    columns = [column for column in LABELS if is_measured(lines, column)] or ["train_loss"]
    figure = Figure(figsize=(3.1 * len(columns), 3.0))
    axes = figure.subplots(1, len(columns), squeeze=False)
    for column, place in zip(columns, axes[0], strict=True):
        for number, line in enumerate(lines):
            _draw(place, line, number, *line.curve(column))
        _finish(place, LABELS[column])
        low, high = place.get_ylim()
        if high - low < LEAST_SPAN:
            place.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
        for epoch in stage_ends(lines):
            place.axvline(epoch + 0.5, color="#888888", linestyle=(0, (2, 3)), linewidth=0.9)
    _legend(figure, axes[0][0], title)
    return figure


def stage_ends(lines: Sequence[Line]) -> list[int]:
    """The epochs after which a configuration begins another stage."""
    configs = [TrainConfig.from_flat(line.trials[0].config) for line in lines if line.trials]
    return sorted({stage.span.last for config in configs for stage in config.stages[:-1]})


def overfitting_figure(lines: Sequence[Line], title: str) -> "Figure":
    """Training and validation values, and the gap between them."""
    from matplotlib.figure import Figure

    gaps = gaps_of(lines)
    figure = Figure(figsize=(8.4, 3.0 * len(gaps)))
    axes = figure.subplots(len(gaps), 2, squeeze=False)
    for gap, (both, difference) in zip(gaps, axes, strict=True):
        for number, line in enumerate(lines):
            _draw(both, line, number, *line.curve(gap.validation))
            _draw(both, line, number, *line.curve(gap.training), faint=True)
            _draw(difference, line, number, *line.gap(gap))
        difference.axhline(0, color="black", linewidth=0.8)
        _finish(both, f"{gap.measure}: validation strong, training faint")
        _finish(difference, gap.label)
    _legend(figure, axes[0][0], title)
    return figure


def predictions_figure(run: OpenedRun, lead: TrialRecord) -> "Figure | None":
    """Annotations and predictions on the sample images; None without sample images or without a match table."""
    from matplotlib.figure import Figure

    path = matches_path(run.folder, lead.trial_id, "val")
    if not path.is_file() or not (run.folder / SAMPLES_FILE).is_file():
        return None
    stored = read_matches(path, lead.best_epoch(run.metric))
    shown = predictions_on(read_samples(run.folder), stored, lead.config)
    columns = 3
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.0 * 2 * columns, 1.6 * rows))
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for place in axes.ravel():
        place.axis("off")
    least = TrainConfig.from_flat(lead.config).detect.task2.score
    for one, left, right in zip(shown, axes[:, ::2].ravel(), axes[:, 1::2].ravel(), strict=False):
        sample = one.sample
        _image(left, one, sample.boxes, [run.category_name(label) for label in sample.labels], COLORS[0])
        _image(right, one, one.boxes, [run.category_name(label) for label in one.labels], COLORS[1])
        _write_scores(right, one)
        left.set_title(f"image {sample.image_id}: annotated", fontsize=7, loc="left")
        right.set_title("predicted", fontsize=7, loc="left")
    title = f"{run.name}: annotations (blue) and predictions of {lead.trial_id} with a score above {least:g} (orange)"
    figure.suptitle(printable(title), x=0.01, ha="left", fontsize=10)
    figure.tight_layout()
    return figure


def _image(place: "Axes", one: Prediction, boxes: NDArray[np.float32], names: Sequence[str], color: str) -> None:
    """An image with boxes and the name of the category above each box."""
    from matplotlib.patches import Rectangle

    width, height = one.sample.size
    place.imshow(one.sample.pixels, extent=(0, width, height, 0), interpolation="nearest")
    for (x_min, y_min, x_max, y_max), name in zip(boxes.tolist(), names, strict=True):
        for line, edge in ((3.0, "white"), (1.4, color)):  # visible on any background
            place.add_patch(
                Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor=edge, linewidth=line)
            )
        box = {"facecolor": color, "edgecolor": "none", "pad": 0.8}
        place.text(x_min, y_min, name, fontsize=6, color="white", va="bottom", bbox=box)


def _write_scores(place: "Axes", one: Prediction) -> None:
    """The score under each predicted box."""
    for (x_min, _, _, y_max), score in zip(one.boxes.tolist(), one.scores.tolist(), strict=True):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8}
        place.text(x_min, y_max, f"{score:.2f}".lstrip("0"), fontsize=5, va="top", bbox=box)


def _draw(place: "Axes", line: Line, number: int, epochs: list[int], values: Values, *, faint: bool = False) -> None:
    """The mean over trainings, with a band from minimum to maximum."""
    there = ~np.isnan(values).all(axis=0)
    if not there.any():
        return
    at, some = np.array(epochs)[there], values[:, there]
    color = COLORS[number % len(COLORS)]
    place.plot(
        at,
        np.nanmean(some, axis=0),
        color=color,
        linestyle=DASHES[(number + number // len(COLORS)) % len(DASHES)],
        marker=None if faint else MARKERS[number % len(MARKERS)],
        markersize=3.5,
        linewidth=1.0 if faint else 1.6,
        alpha=0.45 if faint else 1.0,
        label=None if faint else printable(f"{line.label} ({len(line.trials)})"),
    )
    if len(line.trials) > 1 and not faint:
        place.fill_between(at, np.nanmin(some, axis=0), np.nanmax(some, axis=0), color=color, alpha=0.15, linewidth=0)


def _finish(place: "Axes", label: str) -> None:
    from matplotlib.ticker import MaxNLocator

    place.set_xlabel("epoch")
    place.set_title(label, fontsize=9, loc="left")
    place.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: "Figure", place: "Axes", title: str) -> None:
    handles, labels = place.get_legend_handles_labels()
    figure.suptitle(printable(title), x=0.01, ha="left", fontsize=10)
    figure.tight_layout()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.01, -0.04), ncols=2, frameon=False, fontsize=8)
    figure.text(0.015, -0.01, BAND_WORDS, fontsize=7, color="#444444", va="top")
