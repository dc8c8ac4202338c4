"""The content of a report page, as plain values for its template."""

import json
import os
import shlex
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from digits_core.errors import RunError, printable
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
from results.figures.training import (
    curve_range,
    num_cut,
    plot_curves,
    plot_overfitting,
    plot_pareto,
    plot_time,
    time_parts,
    timeline,
)
from results.page.board import board_of, decimals, details_of, number, value_words
from results.page.gallery import gallery_of
from results.record.schema import ENDED, FAILED
from results.verdicts.comparison import whole_board
from results.verdicts.equal_models import find_twins, left_out_words
from results.verdicts.verdict import Verdict
from results.verdicts.words import check_words, confirmation_words, length_words, twin_words
from results.views.leaderboard import SHOWN
from results.views.opened_run import OpenedRun
from results.views.winner import recommend, verdict_words

TOP_MARGIN = 36
"""Top margin of a figure, pixels; its title is outside the figure."""


def content_of(run: OpenedRun, number: int) -> dict[str, Any]:
    """The content for one run.

    Args:
        run: the opened run.
        number: index of the run on the page, part of element ids.

    Raises:
        RunError: a table of the run is damaged.
    """
    record = run.record
    settings = run.about.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    data = run.about.get("data")
    data = data if isinstance(data, dict) else {}
    judged = _judged(run)
    twins = find_twins(record)
    return {
        "key": f"r{number}",
        "compared": False,
        "name": run.name,
        "state": _state(run),
        "live": run.live,
        "note": run.note,
        "tags": ", ".join(run.tags),
        "space": printable(str(settings.get("space") or next((t.space for t in record.trials.values()), "?"))),
        "data": _data_words(data),
        "started": str(run.about.get("started_at") or "")[:16].replace("T", " "),
        "metric": SHOWN.get(run.metric, run.metric),
        "winner": _winner(run),
        "recommendation": None if run.live or judged is None else recommend(record, judged),
        "verdicts": [] if judged is None else _verdicts(run, judged),
        "cost": _cost(run),
        "notes": [
            *length_words(record),
            *confirmation_words(record, run.folder),
            *twin_words(record),
            *left_out_words(record),
            *check_words(record),
        ],
        "commands": _commands(run),
        "board": board_of(run),
        "pictures": _pictures(run),
        "gallery": gallery_of(run),
        "details": {name: details_of(run, trial, twins.get(name)) for name, trial in record.trials.items()},
    }


def _state(run: OpenedRun) -> str:
    trials = [one for one in run.record.trials.values() if one.status != "screened" and one.role != "retrain"]
    ended = sum(one.status in ENDED for one in trials)
    space = run.about.get("space")
    asked = space.get("trials") if isinstance(space, dict) else None
    asked = max(asked if isinstance(asked, int) else 0, len(trials))
    if run.live:
        return f"running: {ended} of {asked} trials finished"
    return "finished" if ended == len(trials) else f"interrupted: {ended} of {asked} trials finished"


def _data_words(data: dict[str, Any]) -> str:
    folder = printable(str(data.get("folder", "?")))
    folder = folder if "://" in folder else os.path.normpath(folder)
    sizes = [data.get("num_train"), data.get("num_valid")]
    counts = f", {sizes[0]:,} training and {sizes[1]:,} validation images" if all(
        isinstance(one, int) for one in sizes
    ) else ""  # fmt: skip
    return ("built-in drawn house numbers" if folder == "drawn" else folder) + counts


def _winner(run: OpenedRun) -> dict[str, Any] | None:
    """The best trial: its score, parameters and thresholds."""
    winner = run.record.winner()
    best = None if winner is None else winner.best(run.metric)
    if winner is None or best is None:
        return None
    [row] = run.leaderboard[run.leaderboard["trial_id"] == winner.trial_id].to_dict("records")
    metric = run.metric
    low, high = number(row[f"{metric}_low"]), number(row[f"{metric}_high"])
    mean, seeds = number(row["seeds_mean"]), number(row["num_seeds"])
    board = run.leaderboard
    places = decimals(board[board["role"] != "retrain"], metric)
    base = run.base.to_flat()
    tasks = []
    for task, column, words in (("task1", "task1_map", "mAP"), ("task2", "task2_number_accuracy", "numbers")):
        if column in winner.optima:
            optima = winner.optima
            tasks.append(
                {
                    "task": f"Task {task[-1]}",
                    "nms": f"{optima[f'{task}_nms']:g}",
                    "kind": "across classes" if optima[f"{task}_class_agnostic"] else "within classes",
                    "score": f"{optima[f'{task}_score']:g}",
                    "reached": f"{optima[column]:.3f}",
                    "own": f"{best['val_map' if task == 'task1' else 'val_number_accuracy']:.3f}",
                    "words": words,
                }
            )
    return {
        "trial": winner.trial_id,
        "baseline": winner.baseline,
        "score": f"{float(best[metric]):.{places}f}",
        "interval": None if low is None or high is None else f"{low:.{places}f} – {high:.{places}f}",
        "mean": None
        if mean is None or seeds is None
        else f"{mean:.{places}f} over {seeds:.0f} replicate{'s' * (seeds != 1)}",
        "epoch": best["epoch"],
        "epochs": winner.num_epochs,
        "numbers": None if best["val_number_accuracy"] is None else f"{best['val_number_accuracy']:.0%}",
        "settings": [
            (parameter, value_words(value), value_words(base.get(parameter)))
            for parameter, value in winner.config.items()
            if parameter in base and value != base[parameter] and not parameter.startswith("runtime.")
        ],
        "tasks": tasks,
    }  # fmt: skip


def _judged(run: OpenedRun) -> list[Verdict] | None:
    """The winner against every other configuration; None if a match table is damaged, which results.compare names."""
    try:
        return whole_board(run.record, run.folder, run.metric, make=not run.live)
    except RunError:
        return None


def _verdicts(run: OpenedRun, judged: list[Verdict]) -> list[str]:
    """The winner against the second and the default, and the number of ties with it."""
    lines = [line.strip() for line in verdict_words(run.record, judged)]
    for one in judged[:1]:
        if not any(f"({one.second})" in line for line in lines):
            known = one.p is not None or not run.live
            words = one.words if known else "known when both have finished"
            lines.insert(0, f"against the second ({one.second}): {words}")
    return lines


def _cost(run: OpenedRun) -> list[tuple[str, str]]:
    """The cost of the search, as names and values."""
    record = run.record
    trained = [one for one in record.trials.values() if one.epochs and one.role != "retrain"]
    epochs = sum(len(one.epochs) for one in trained)
    most = sum(int(one.config["optim.epochs"]) for one in trained)
    lanes, _ = timeline(record)
    parts = time_parts(record)
    total = sum(parts.values())
    failed = sum(one.status in FAILED for one in trained)
    rows = [
        ("trials", f"{len(trained)} trained" + (f", {failed} failed" if failed else "") + _screened(run)),
        ("epochs", f"{epochs} of {most} without early stopping" if most > epochs else f"{epochs}"),
        ("time", f"{_duration(total / max(lanes, 1))} on {lanes} slot{'s' * (lanes != 1)}"),
    ]
    if total:
        rows.append(
            ("utilisation", f"{(parts['training'] + parts['evaluating']) / total:.0%} (training and evaluation)")
        )
    return rows


def _screened(run: OpenedRun) -> str:
    screened = sum(one.status == "screened" for one in run.record.trials.values())
    return f", {screened} screened out" if screened else ""


def _commands(run: OpenedRun) -> list[tuple[str, str]]:
    folder = shlex.quote(str(run.folder))
    found = []
    if not run.ended and not run.live:
        out = "" if str(run.folder.parent) == "runs" else f" --out {shlex.quote(str(run.folder.parent))}"
        found.append(("resume", f"python -m search.run --resume {shlex.quote(run.name)}{out}"))
    winner = run.record.winner()
    if winner is not None:
        found += [
            ("train the best again", f"python -m search.retrain {folder} --replicates 3"),
            (
                "predict" if winner.checkpoint else "then predict",
                f"python -m digits_core.predict {folder}/{winner.checkpoint or 'models/' + winner.trial_id + '-r1'} "
                "IMAGES -o predictions",
            ),
            ("compare", f"python -m results.compare {folder}"),
            ("export", f"python -m results.export {folder} --format csv -o leaderboard.csv"),
        ]
    return found


Picture = tuple[str, str, str, Callable[[OpenedRun], go.Figure]]
"""Key, title, caption, and the function that draws it."""


def _of_training(run: OpenedRun) -> list[Picture]:
    limits, cut = curve_range(run, run.metric), num_cut(run, run.metric)
    lines = "1 line is" if cut == 1 else f"{cut} lines are"
    below = (
        f" The axis is chosen for the best configurations: {lines} cut at {limits[0]:.2f}." if limits and cut else ""
    )
    return [
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
            "The gap between training and validation. A line that rises means overfitting.",
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
            f"{score} over the two most important parameters, interpolated between configurations.{early}",
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


def _pictures(run: OpenedRun) -> list[dict[str, Any]]:
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
                "figure": figure_json(figure),
                "min_width": min_width(figure),
            }
        )
    return found


def min_width(figure: go.Figure | None) -> int:
    """The smallest width of a figure, pixels; a narrower window scrolls it."""
    return 0 if figure is None else (figure.layout.meta or {}).get("min_width", 320)


def figure_json(figure: go.Figure | None) -> dict[str, Any] | None:
    """A figure as JSON, without title and template: the page has both."""
    if figure is None:
        return None
    figure.update_layout(title=None, template=None, width=None)
    tree: dict[str, Any] = json.loads(figure.to_json())
    tree["layout"].pop("template", None)
    tree["layout"]["margin"] = {**LIGHT["layout"]["margin"], **tree["layout"].get("margin", {}), "t": TOP_MARGIN}
    return {"data": tree["data"], "layout": tree["layout"]}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
