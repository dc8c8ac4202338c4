"""The content of a report page, as plain values for its template."""

import os
import shlex
from typing import Any

from digits_core.errors import RunError, printable
from results.page.board import board_of, decimals, details_of, number
from results.page.gallery import gallery_of
from results.page.now import duration, now_of, trials_asked
from results.page.origin import origin_of
from results.page.panels import panels_of
from results.page.pictures import pictures_of
from results.record.schema import ENDED, FAILED
from results.verdicts.comparison import whole_board
from results.verdicts.equal_models import find_twins, left_out_words
from results.verdicts.verdict import Verdict
from results.verdicts.words import check_words, confirmation_words, length_words, twin_words
from results.views.front import front_words
from results.views.leaderboard import SHOWN
from results.views.opened_run import OpenedRun
from results.views.outlook import outlook_words
from results.views.parameters import changed_by, value_words
from results.views.slots import time_parts, timeline
from results.views.winner import Advice, advise, verdict_words


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
    advice = None if run.live or judged is None else advise(record, judged)
    return {
        "key": f"r{number}",
        "compared": False,
        "name": run.name,
        "state": _state(run),
        "live": run.live,
        "so_far": not run.ended,
        "now": now_of(run),
        "note": run.note,
        "tags": ", ".join(run.tags),
        "space": printable(str(settings.get("space") or next((t.space for t in record.trials.values()), "?"))),
        "data": _data_words(data),
        "started": str(run.about.get("started_at") or "")[:16].replace("T", " "),
        "metric": SHOWN.get(run.metric, run.metric),
        "winner": _winner(run),
        "recommendation": None if advice is None else advice.words,
        "verdicts": [] if judged is None else _verdicts(run, judged),
        "cost": _cost(run),
        "notes": [
            *front_words(record),
            *length_words(record),
            *confirmation_words(record, run.folder),
            *twin_words(record),
            *left_out_words(record),
            *check_words(record),
            *([] if (ahead := outlook_words(record)) is None else [f"Outlook: {ahead}."]),
        ],
        "commands": _commands(run, advice),
        "origin": origin_of(run),
        "board": board_of(run),
        "pictures": pictures_of(run),
        "evaluation": panels_of(run),
        "gallery": gallery_of(run),
        "details": {name: details_of(run, trial, twins.get(name)) for name, trial in record.trials.items()},
    }


def _state(run: OpenedRun) -> str:
    trials = [one for one in run.record.trials.values() if one.status != "screened" and one.role != "retrain"]
    ended = sum(one.status in ENDED for one in trials)
    asked = max(trials_asked(run), len(trials))
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
        "unfinished": winner.status == "running",
        "epoch": best["epoch"],
        "epochs": winner.num_epochs,
        "numbers": None if best["val_number_accuracy"] is None else f"{best['val_number_accuracy']:.0%}",
        "settings": [
            (one.name, value_words(one.value), value_words(one.default))
            for one in changed_by(winner, run.base.to_flat())
            if one.idle is None and not one.name.startswith("runtime.")
        ],
        "tasks": tasks,
    }  # fmt: skip


def _judged(run: OpenedRun) -> list[Verdict] | None:
    """The winner against every other configuration; None if a match table is damaged, which results.compare names."""
    try:
        return whole_board(run.record, run.folder, run.metric, make=run.makes_intervals)
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
        ("time", f"{duration(total / max(lanes, 1))} on {lanes} slot{'s' * (lanes != 1)}"),
    ]
    if total:
        rows.append(
            ("utilisation", f"{(parts['training'] + parts['evaluating']) / total:.0%} (training and evaluation)")
        )
    return rows


def _screened(run: OpenedRun) -> str:
    screened = sum(one.status == "screened" for one in run.record.trials.values())
    return f", {screened} screened out" if screened else ""


def _commands(run: OpenedRun, advice: Advice | None) -> list[tuple[str, str]]:
    """The next commands with their names, the recommended one first."""
    folder = shlex.quote(str(run.folder))
    found = []
    out = "" if str(run.folder.parent) == "runs" else f" --out {shlex.quote(str(run.folder.parent))}"
    resume = f"digit-search resume {shlex.quote(run.name)}{out}"
    if not run.ended and not run.live:
        found.append(("resume", resume))
    elif advice is not None and advice.flags is not None:
        found.append(("add replicates (recommended)", f"{resume} {advice.flags}"))
    winner = run.record.winner()
    if winner is not None:
        again = [("train the best again", f"digit-search retrain {folder} --replicates 3")]
        last = again if advice is not None and advice.keeps_default and winner.checkpoint else []
        found += [
            *([] if last else again),
            (
                "predict" if winner.checkpoint else "then predict",
                f"digit-search predict {folder}/{winner.checkpoint or 'models/' + winner.trial_id + '-r1'} "
                "IMAGES -o predictions",
            ),
            *([] if advice is not None and advice.alone else [("compare", f"digit-search compare {folder}")]),
            ("export", f"digit-search export {folder} --format csv -o leaderboard.csv"),
            *last,
        ]
    return found
