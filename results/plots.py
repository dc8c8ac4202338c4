"""python -m results.plots: curves with bands over replicates, overfitting, predictions beside the truth."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from digits_core.command import CommandParser, at_least, run_command, say
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, UsageError, did_you_mean, printable
from digits_core.labels import DIGITS
from results.record.folder import RUN_FILE, RUN_HELP, find_run, read_record_of, read_run_file, refuse_links
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.matches import matches_path, read_matches
from results.tables.samples import SAMPLES_FILE, SampleImage, read_samples
from results.views.leaderboard import SHOWN, varying_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTS_FOLDER = "plots"

MOST_SETTINGS = 6
"""Settings in one figure, unless more are named: beyond that no eye tells lines apart."""

MOST_LETTERS = 10
"""Of a category's name in a picture."""

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
"""After Okabe and Ito 2008, Color universal design: told apart by the colour-blind."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
"""And by their dashes where print leaves no colour."""

MARKERS = "osD^vPX*"

BAND_WORDS = "line: mean of a setting's trainings (their number in brackets); band: from the lowest to the highest"

LEAST_SPAN = 0.02
"""A score's axis shows at least so much: a change of the fourth decimal is no leap."""

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

_EPILOG = """
examples:
  python -m results.plots runs/my-search
  python -m results.plots runs/my-search --trials t0003,t0000 -o figures

Bands show the lowest and highest of a setting's trainings, the line their mean.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One setting of a figure.

    Attributes:
        label: as the legend names it.
        trials: its trainings.
    """

    label: str
    trials: tuple[TrialRecord, ...]

    def curve(self, column: str) -> tuple[list[int], NDArray[np.float64]]:
        """Epochs that any of them reached, and float64 [trials, epochs] of a column; NaN where one has none."""
        epochs = sorted({epoch for trial in self.trials for epoch in trial.epochs})
        values = [[trial.epochs.get(epoch, {}).get(column) for epoch in epochs] for trial in self.trials]
        return epochs, np.array(values, dtype=np.float64)


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.plots",
        description="Draw a run: curves of its settings, overfitting, predictions; as PNG and SVG.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help=f"folder to write (default RUN/{PLOTS_FOLDER})")
    parser.add_argument("--trials", metavar="A,B", help="draw the settings of these trials (default: the best)")
    parser.add_argument(
        "--top", type=at_least(1), default=MOST_SETTINGS, metavar="N", help=f"best settings (default {MOST_SETTINGS})"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.plots", lambda: _plot(args))


def _plot(args: argparse.Namespace) -> int:
    folder = find_run(args.run)
    if args.out is None:
        refuse_links(folder)
    record = read_record_of(folder)
    leads = chosen_settings(record, args.trials, args.top)
    out = args.out or folder / PLOTS_FOLDER
    figures = draw_figures(record, folder, leads)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save_figure(figure, out / name)
    except OSError as error:
        raise UsageError(f"-o {printable(str(out))}: cannot be written: {error.strerror}") from None
    if "predictions" not in figures:
        say(f"no predictions: {leads[0].trial_id} has no match table yet, or the run no {SAMPLES_FILE}")
    for name in figures:
        say(str(out / f"{name}.png"))
    say(f"wrote {len(figures)} figures, each as PNG and SVG")
    return 0


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG and as SVG, whose text stays text; the same figure gives the same bytes."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=150, bbox_inches="tight")
        figure.savefig(path.with_name(f"{path.name}.svg"), bbox_inches="tight", metadata={"Date": None})


def chosen_settings(record: RunRecord, names: str | None, top: int) -> list[TrialRecord]:
    """The first trainings of the settings to draw, best first.

    Raises:
        UsageError: a trial is not there.
        RunError: no trial has reported an epoch yet.
    """
    if names is None:
        leads = [lead for lead in record.settings() if lead.epochs][:top]
        if not leads:
            raise RunError(f"run '{record.run}' has no epoch to draw yet")
        return leads
    found = []
    for name in (item.strip() for item in names.split(",")):
        trial = record.trials.get(name)
        if trial is None or not trial.epochs:
            raise UsageError(
                f"--trials {printable(name)}: run '{record.run}' has no such trial with an epoch"
                f"{did_you_mean(name, record.trials)}"
            )
        found.append(trial)
    if len({trial.config_hash for trial in found}) < len(found):
        raise UsageError(f"--trials {printable(names)}: two of them are trainings of one setting")
    return found


def draw_figures(record: RunRecord, folder: Path, leads: Sequence[TrialRecord]) -> dict[str, "Figure"]:
    """Every figure of a run by its file name.

    Args:
        record: the run's.
        folder: the run folder.
        leads: first trainings of the settings to draw; published tables draw their own rows.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        labels = setting_labels(record, leads)
        lines = [Line(label, trainings(record, lead.config_hash)) for lead, label in zip(leads, labels, strict=True)]
        figures = {"curves": curves_figure(lines, f"{record.run}: settings over epochs")}
        figures["overfitting"] = overfitting_figure(lines, f"{record.run}: training against validation")
        for name, title, rows in table_lines(record, folder):
            figures[name] = curves_figure(rows, title)
        predictions = predictions_figure(record, folder, leads[0])
        if predictions is not None:
            figures["predictions"] = predictions
    return figures


def trainings(record: RunRecord, config_hash: str) -> tuple[TrialRecord, ...]:
    """All trainings of a setting that are as long as its longest one."""
    same = [trial for trial in record.trials.values() if trial.config_hash == config_hash and trial.epochs]
    longest = max((trial.num_epochs for trial in same), default=0)
    return tuple(trial for trial in same if trial.num_epochs == longest or trial.status == "finished")


def setting_labels(record: RunRecord, leads: Sequence[TrialRecord]) -> list[str]:
    """A short name for each setting: its trial, and its baseline's name or what it varies."""
    varying = varying_parameters(list(leads)) if len(leads) > 1 else []
    found = []
    for lead in leads:
        words = lead.baseline
        if words is None:
            parts = [f"{name.rpartition('.')[2]} {_short(lead.config.get(name))}" for name in varying]
            words = ", ".join(parts[:3])
        found.append(f"{lead.trial_id} {words}".strip())
    return found


def table_lines(record: RunRecord, folder: Path) -> list[tuple[str, str, list[Line]]]:
    """File name, title and rows of each published table that the run answers; readings of one training once."""
    found: dict[tuple[str, ...], tuple[str, str, list[Line]]] = {}
    for table in read_run_file(folder).get("tables") or []:
        rows: dict[str, Line] = {}
        try:
            named = [(str(row["label"]), str(row["config_hash"])) for row in table["rows"]]
            title = str(table["title"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None
        for label, config_hash in named:
            some = trainings(record, config_hash)
            if some:
                rows.setdefault(config_hash, Line(label, some))
        if len(rows) > 1:
            name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
            found.setdefault(tuple(rows), (name, f"{title}, trained again", list(rows.values())))
    return list(found.values())


def curves_figure(lines: Sequence[Line], title: str) -> "Figure":
    """Losses and scores over epochs, a line a setting, with a band over its trainings."""
    from matplotlib.figure import Figure

    panels: list[tuple[str, str]] = [("train_loss", "training loss"), ("val_loss", "validation loss")]
    panels += [(name, f"validation {SHOWN[name]}") for name in ("val_map", "val_digit_accuracy", "val_number_accuracy")]
    panels = [panel for panel in panels if _measured(lines, panel[0])] or panels[:1]
    figure = Figure(figsize=(3.1 * len(panels), 3.0))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for (column, label), place in zip(panels, axes[0], strict=True):
        for number, line in enumerate(lines):
            _draw(place, line, number, *line.curve(column))
        _finish(place, label)
        low, high = place.get_ylim()
        if high - low < LEAST_SPAN:
            place.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
        for epoch in stage_ends(lines):
            place.axvline(epoch + 0.5, color="#888888", linestyle=(0, (2, 3)), linewidth=0.9)
    _legend(figure, axes[0][0], title)
    return figure


def stage_ends(lines: Sequence[Line]) -> list[int]:
    """The epochs after which some setting begins another stage."""
    configs = [TrainConfig.from_flat(line.trials[0].config) for line in lines if line.trials]
    return sorted({stage.span.last for config in configs for stage in config.stages[:-1]})


def overfitting_figure(lines: Sequence[Line], title: str) -> "Figure":
    """Training and validation beside each other, and the gap between them."""
    from matplotlib.figure import Figure

    rows = [("train_loss", "val_loss", "loss", "validation loss minus training loss")]
    if _measured(lines, "train_map"):
        rows.append(("train_map", "val_map", "mAP", "training mAP minus validation mAP"))
    figure = Figure(figsize=(8.4, 3.0 * len(rows)))
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for (train, valid, label, gap), (both, apart) in zip(rows, axes, strict=True):
        sign = 1.0 if valid == "val_loss" else -1.0
        for number, line in enumerate(lines):
            epochs, on_valid = line.curve(valid)
            _, on_train = line.curve(train)
            _draw(both, line, number, epochs, on_valid)
            _draw(both, line, number, epochs, on_train, faint=True)
            _draw(apart, line, number, epochs, sign * (on_valid - on_train))
        apart.axhline(0, color="black", linewidth=0.8)
        _finish(both, f"{label}: validation strong, training faint")
        _finish(apart, gap)
    _legend(figure, axes[0][0], title)
    return figure


def predictions_figure(record: RunRecord, folder: Path, lead: TrialRecord) -> "Figure | None":
    """A setting's predictions on the sample images, truth beside them; None where it holds none, or no match table."""
    from matplotlib.figure import Figure

    path = matches_path(folder, lead.trial_id, "val")
    if not path.is_file() or not (folder / SAMPLES_FILE).is_file():
        return None
    samples, stored = read_samples(folder), read_matches(path, lead.best_epoch(record.metric))
    data = read_run_file(folder).get("data")
    named = data.get("categories") if isinstance(data, dict) else None
    names = [str(name) for name in named.values()] if isinstance(named, dict) and named else list(DIGITS.names)
    task2 = TrainConfig.from_flat(lead.config).detect.task2
    kept = stored.task2.above(task2.score, task2.max_detections)
    places = {int(image_id): number for number, image_id in enumerate(stored.image_ids)}
    shown = [sample for sample in samples if sample.image_id in places]
    columns = 3
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.0 * 2 * columns, 1.6 * rows))
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for place in axes.ravel():
        place.axis("off")
    for number, sample in enumerate(shown):
        left, right = axes[number // columns][2 * (number % columns) : 2 * (number % columns) + 2]
        mine = kept.select(kept.image == places[sample.image_id])
        _picture(left, sample, sample.boxes, [_name(names, label) for label in sample.labels], COLORS[0])
        _picture(right, sample, mine.boxes, [_name(names, label) for label in mine.labels], COLORS[1], mine.scores)
        left.set_title(f"image {sample.image_id}: truth", fontsize=7, loc="left")
        right.set_title(f"{lead.trial_id}, score > {task2.score:g}", fontsize=7, loc="left")
    figure.suptitle(f"{record.run}: annotations (left of each pair) and predictions (right)", x=0.01, ha="left")
    figure.tight_layout()
    return figure


def _picture(
    place: "Axes",
    sample: SampleImage,
    boxes: NDArray[np.float32],
    words: Sequence[str],
    color: str,
    scores: NDArray[np.float32] | None = None,
) -> None:
    """An image with its boxes: a word above each, a score under it."""
    from matplotlib.patches import Rectangle

    width, height = sample.size
    place.imshow(sample.pixels, extent=(0, width, height, 0), interpolation="nearest")
    for (x_min, y_min, x_max, y_max), text in zip(boxes.tolist(), words, strict=True):
        for line, edge in ((3.0, "white"), (1.4, color)):  # seen on any ground
            place.add_patch(
                Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False, edgecolor=edge, linewidth=line)
            )
        place.text(
            x_min,
            y_min,
            text,
            fontsize=6,
            color="white",
            va="bottom",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8},
        )
    for (x_min, _, _, y_max), score in zip(boxes.tolist(), [] if scores is None else scores.tolist(), strict=False):
        place.text(
            x_min,
            y_max,
            f"{score:.2f}".lstrip("0"),
            fontsize=5,
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
        )


def _draw(
    place: "Axes", line: Line, number: int, epochs: list[int], values: NDArray[np.float64], *, faint: bool = False
) -> None:
    """The mean over trainings, with a band from the lowest to the highest."""
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


def _measured(lines: Sequence[Line], column: str) -> bool:
    return any(epoch.get(column) is not None for line in lines for one in line.trials for epoch in one.epochs.values())


def _name(names: Sequence[str], label: Any) -> str:
    name = printable(names[int(label) - 1]) if 0 < int(label) <= len(names) else str(int(label))
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
