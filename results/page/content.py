"""All that a report page says of a run, as plain values for its template."""

import json
import os
import shlex
from collections.abc import Callable
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

from digits_core.errors import RunError, printable
from results.figures.detection import plot_anchors, plot_thresholds
from results.figures.settings import (
    FEW,
    SOME,
    plot_contours,
    plot_importances,
    plot_parallel,
    plot_slices,
    scored_settings,
)
from results.figures.style import LIGHT
from results.figures.training import plot_curves, plot_overfitting, plot_pareto, plot_time, time_parts, timeline
from results.page.board import board_of, decimals, details_of, number, value_words
from results.page.gallery import gallery_of
from results.record.schema import ENDED, FAILED
from results.verdicts.comparison import whole_board
from results.verdicts.equal_models import find_twins, left_out_words
from results.verdicts.words import confirmation_words, length_words, twin_words
from results.views.leaderboard import SHOWN
from results.views.opened_run import OpenedRun
from results.views.winner import verdict_words

TOP_MARGIN = 36
"""Pixels over a picture whose heading stands above it."""


def content_of(run: OpenedRun, number: int) -> dict[str, Any]:
    """What the page says of one run.

    Args:
        run: opened.
        number: of the run on the page, for names of its parts.

    Raises:
        RunError: a table of the run is damaged.
    """
    record = run.record
    settings = run.about.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    data = run.about.get("data")
    data = data if isinstance(data, dict) else {}
    twins = find_twins(record)
    return {
        "key": f"r{number}",
        "name": run.name,
        "state": _state(run),
        "live": run.live,
        "space": printable(str(settings.get("space") or next((t.space for t in record.trials.values()), "?"))),
        "data": _data_words(data),
        "started": str(run.about.get("started_at") or "")[:16].replace("T", " "),
        "metric": SHOWN.get(run.metric, run.metric),
        "winner": _winner(run),
        "verdicts": _verdicts(run),
        "cost": _cost(run),
        "notes": [
            *length_words(record),
            *confirmation_words(record, run.folder),
            *twin_words(record),
            *left_out_words(record),
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
        return f"running: {ended} of {asked} trials ended"
    return "ended" if ended == len(trials) else f"interrupted: {ended} of {asked} trials ended"


def _data_words(data: dict[str, Any]) -> str:
    folder = printable(str(data.get("folder", "?")))
    folder = folder if "://" in folder else os.path.normpath(folder)
    sizes = [data.get("num_train"), data.get("num_valid")]
    counts = f", {sizes[0]:,} training and {sizes[1]:,} validation images" if all(
        isinstance(one, int) for one in sizes
    ) else ""  # fmt: skip
    return ("built-in drawn house numbers" if folder == "drawn" else folder) + counts


def _winner(run: OpenedRun) -> dict[str, Any] | None:
    """Who leads, by what, with which settings and thresholds."""
    winner = run.record.winner()
    best = None if winner is None else winner.best(run.metric)
    if winner is None or best is None:
        return None
    [row] = run.leaderboard[run.leaderboard["trial_id"] == winner.trial_id].to_dict("records")
    metric = run.metric
    low, high = number(row[f"{metric}_low"]), number(row[f"{metric}_high"])
    mean, seeds = number(row["seeds_mean"]), number(row["num_seeds"])
    places = decimals(run.leaderboard, metric)
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
                    "reached": f"{optima[column]:.2f}",
                    "own": f"{best['val_map' if task == 'task1' else 'val_number_accuracy']:.2f}",
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
        else f"{mean:.{places}f} over {seeds:.0f} fresh seed{'s' * (seeds != 1)}",
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


def _verdicts(run: OpenedRun) -> list[str]:
    """What can be said of the winner against the next and the default, and of how many it cannot be told from."""
    try:
        judged = whole_board(run.record, run.folder, run.metric, make=not run.live)
    except RunError:  # of one damaged table; results.compare names it
        return []
    lines = [line.strip() for line in verdict_words(run.record, judged)]
    for one in judged[:1]:
        if not any(f"({one.second})" in line for line in lines):
            known = one.p is not None or not run.live
            words = one.words if known else "not known before both have ended"
            lines.insert(0, f"against the next ({one.second}): {words}")
    return lines


def _cost(run: OpenedRun) -> list[tuple[str, str]]:
    """What the search took, as names and values."""
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
        ("epochs", f"{epochs} of the {most} that whole trainings take" if most > epochs else f"{epochs}"),
        ("time", f"{_duration(total / max(lanes, 1))} on {lanes} slot{'s' * (lanes != 1)}"),
    ]
    if total:
        rows.append(("slots trained or evaluated", f"{(parts['training'] + parts['evaluating']) / total:.0%} of it"))
    return rows


def _screened(run: OpenedRun) -> str:
    screened = sum(one.status == "screened" for one in run.record.trials.values())
    return f", {screened} screened out before" if screened else ""


def _commands(run: OpenedRun) -> list[tuple[str, str]]:
    folder = shlex.quote(str(run.folder))
    found = []
    if not run.ended and not run.live:
        out = "" if str(run.folder.parent) == "runs" else f" --out {shlex.quote(str(run.folder.parent))}"
        found.append(("go on with it", f"python -m search.run --resume {shlex.quote(run.name)}{out}"))
    winner = run.record.winner()
    if winner is not None:
        found += [
            ("train the winner again", f"python -m search.retrain {folder} --replicates 3"),
            (
                "predict" if winner.checkpoint else "then predict",
                f"python -m digits_core.predict {folder}/{winner.checkpoint or 'models/' + winner.trial_id + '-r1'} "
                "IMAGES -o predictions",
            ),
            ("what is real", f"python -m results.compare {folder}"),
            ("export", f"python -m results.export {folder} --format csv -o leaderboard.csv"),
        ]
    return found


Picture = tuple[str, str, str, Callable[[OpenedRun], go.Figure | None], str]
"""Key, heading, a sentence on what it shows, what draws it, and what is said where there is nothing to draw."""

_OF_TRAINING: list[Picture] = [
    (
        "curves",
        "Learning curves",
        "The best settings by name; the others, stopped ones fainter still, lie behind them. Dotted lines mark the "
        "epochs at which the scheduler decides.",
        plot_curves,
        "no epoch yet",
    ),
    (
        "overfitting",
        "Overfitting",
        "How far validation falls behind training; a line that climbs is a model that learns its training images "
        "by heart.",
        plot_overfitting,
        "no loss was measured",
    ),
    (
        "pareto",
        "Boxes, numbers, speed",
        "Each trained model by box quality and numbers read; colour is training speed. Stars are beaten by no "
        "other model in all three.",
        plot_pareto,
        "no trial has all three: the categories are no digits, or nothing was trained",
    ),
]

_OF_DETECTION: list[Picture] = [
    (
        "thresholds1",
        "Thresholds for Task 1",
        "mAP of the winner's model at every NMS and score threshold, read off one evaluation; the star is the "
        "best, chosen on these images.",
        lambda one: plot_thresholds(one, task=1),
        "no sweep of the winner yet",
    ),
    (
        "thresholds2",
        "Thresholds for Task 2",
        "Share of whole numbers read right by the same model. The two tasks want different thresholds.",
        lambda one: plot_thresholds(one, task=2),
        "no sweep of the winner yet, or the categories are no digits",
    ),
    (
        "anchors",
        "Anchors over the boxes",
        "Training boxes after the model's own resize, and the anchors they are matched with. Both axes are "
        "logarithmic.",
        plot_anchors,
        "the run kept no sizes of boxes: it is of an older version",
    ),
    (
        "time",
        "Where the time went",
        "Above, what all slots did; below, slot by slot: green trials finished, grey ones were stopped, blue ones "
        "run, orange ones failed. A slot waits while others train and it does not.",
        plot_time,
        "no trial has started yet",
    ),
]


def _of_settings(run: OpenedRun) -> list[Picture]:
    scored = scored_settings(run)
    count = len(scored.study.get_trials(deepcopy=False))
    score = scored.label
    early = "" if scored.epoch is None else (
        f" Settings are compared after epoch {scored.epoch}, the last that all of them reached."
    )  # fmt: skip
    few = f"fewer than {FEW} settings with parameters in common would be noise" if count < FEW else (
        "the settings share too few parameters, or all score alike"
    )  # fmt: skip
    some = f" {count} settings are few: take it as a hint." if count < SOME else ""
    return [
        (
            "importances",
            "What matters",
            f"Share of each parameter in what sets the best settings apart (PED-ANOVA).{early}{some}",
            plot_importances,
            few,
        ),
        (
            "contours",
            "Two parameters together",
            f"{score} over the two parameters that matter most, between settings by interpolation.{early}",
            plot_contours,
            few,
        ),
        (
            "parallel",
            "Settings side by side",
            f"Each line is a setting; the higher its {score}, the more orange.{early}",
            plot_parallel,
            "the settings share fewer than two parameters",
        ),
        (
            "slices",
            "One parameter at a time",
            f"{score} against each parameter; later trials are more orange.{early}",
            plot_slices,
            "the settings have no parameters",
        ),
    ]


def _pictures(run: OpenedRun) -> list[dict[str, Any]]:
    """Each picture with its heading and a sentence on what it shows; one that a run has no data for says why."""
    found = []
    for key, title, words, draw, why_not in [*_OF_TRAINING, *_of_settings(run), *_OF_DETECTION]:
        figure = None
        if run.record.winner() is None:
            why_not = "no trained model yet"
        else:
            try:
                figure = draw(run)
            except RunError as error:
                why_not = str(error)
        found.append(
            {
                "key": key,
                "title": title,
                "words": words,
                "why_not": why_not,
                "figure": _json(figure),
                "min_width": _min_width(figure),
            }
        )
    return found


def _min_width(figure: go.Figure | None) -> int:
    """Pixels below which a picture is no picture any more: a narrow window scrolls it."""
    if figure is None:
        return 0
    axes = max(len(list(figure.select_xaxes())), len(figure.layout.xaxis.tickvals or ()))
    return 320 if axes < 2 else max(130 * axes, 540)


def _json(figure: go.Figure | None) -> dict[str, Any] | None:
    """A figure for the page: without its title, which stands above it, and with the page's own template."""
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


def now() -> str:
    """The time of writing, local."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
