"""The evaluation of the best trial on a report page: the panels of `digit-search evaluate`, from its match table."""

import shlex
from typing import Any

from digits_core.config.train_config import TaskConfig, TrainConfig
from digits_core.errors import RunError
from results.figures.evaluation import FIGURES
from results.page.pictures import arranged, as_json, min_width
from results.tables.matches import StoredMatches, matches_path, read_matches, resampled_scores
from results.views.evaluation import evaluation_of, tables_of
from results.views.opened_run import OpenedRun

NO_SCORE = "No trial has a score yet."


def panels_of(run: OpenedRun) -> dict[str, Any]:
    """The evaluation of the best trial at its own thresholds.

    Returns:
        `why_not`: why there is none, in a sentence; empty if there is one. `about`: what was evaluated. `command`:
        prints the same. `tables` and `pictures`: the panels.
    """
    winner = run.record.winner()
    nothing: dict[str, Any] = {"about": "", "command": "", "tables": [], "pictures": []}
    if winner is None:
        return {"why_not": NO_SCORE, **nothing}
    path = matches_path(run.folder, winner.trial_id, "val")
    if not path.is_file():
        return {"why_not": no_table_words(winner.trial_id), **nothing}
    epoch = winner.best_epoch(run.metric)
    try:
        stored = read_matches(path, epoch)
        if stored.truth.boxes is None:
            old = f"An older version wrote the match table of {winner.trial_id} without the annotated boxes"
            return {"why_not": f"{old}; train it again, or run the search again, to see this part.", **nothing}
        resampled = resampled_scores(run.folder, winner.trial_id, winner.config, epoch=epoch, make=run.makes_intervals)
    except RunError as error:
        return {"why_not": f"{error}.", **nothing}
    detect = TrainConfig.from_flat(winner.config).detect
    whose = "the thresholds of the search" if detect == run.base.detect else "its own thresholds"
    others = ", not the best ones above" if winner.optima else ""
    found = evaluation_of(stored, detect, run.category_in_full, resampled)
    return {
        "why_not": "",
        "about": (
            f"{winner.trial_id} after epoch {epoch}, on {_counted(stored)}, at {whose}{others} "
            f"(Task 1: {_task_words(detect.task1)}; Task 2: {_task_words(detect.task2)})."
        ),
        "command": f"digit-search evaluate {shlex.quote(str(run.folder))}",
        "tables": tables_of(found),
        "pictures": arranged([_picture(key, caption, draw(found)) for key, caption, draw in FIGURES]),
    }


def no_table_words(trial_id: str) -> str:
    """Why a trial without a match table has no evaluation and no predictions."""
    return f"There is no match table of {trial_id}; a training writes it at its end."


def _counted(stored: StoredMatches) -> str:
    return f"{stored.truth.num_images:,} validation images with {len(stored.truth.labels):,} digits"


def _task_words(task: TaskConfig) -> str:
    return f"NMS {task.nms:g} {'across' if task.class_agnostic else 'within'} classes, score above {task.score:g}"


def _picture(key: str, caption: str, figure: Any) -> dict[str, Any]:
    title, width = figure.layout.title.text, min_width(figure)
    return {
        "key": key,
        "title": title,
        "words": caption,
        "why_not": "",
        "figure": as_json(figure),
        "min_width": width,
    }
