"""The part of a report page that compares several runs: which leads, one leaderboard, figures of all of them."""

from collections.abc import Mapping
from typing import Any

from results.figures.several_runs import plot_curves_of_runs, plot_history_of_runs
from results.page.board import board_of
from results.page.pictures import arranged, as_json, min_width
from results.verdicts.several_runs import joint_name
from results.views.leaderboard import SHOWN
from results.views.several_runs import ComparedRuns

_PICTURES = (
    (
        "curves",
        "Learning curves",
        "The best configuration of each run as a strong line, its other trials as thin lines of the same colour.",
        plot_curves_of_runs,
    ),
    (
        "history",
        "Best score so far",
        "The best score of each run so far. Top: by trial number. Bottom: by time since the start of the run.",
        plot_history_of_runs,
    ),
)


def content_of_compared(
    compared: ComparedRuns, number: int, contents: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The content for runs that are ranked together, for the same template as that of one run.

    Args:
        compared: the runs.
        number: index of the group on the page, part of element ids.
        contents: the content for each run by its name, for the details of its trials.
    """
    scored = compared.record.winner() is not None
    pictures = []
    for key, title, words, draw in _PICTURES:
        figure = draw(compared) if scored else None
        pictures.append(
            {
                "key": key,
                "title": title,
                "words": words,
                "why_not": "" if scored else "no trial has a score yet",
                "figure": as_json(figure),
                "min_width": min_width(figure),
            }
        )
    return {
        "key": f"all{number}",
        "compared": True,
        "name": ", ".join(compared.runs),
        "leader": compared.leader,
        "metric": SHOWN.get(compared.metric, compared.metric),
        "board": board_of(compared),
        "pictures": arranged(pictures),
        "details": {
            joint_name(name, trial): details
            for name in compared.runs
            for trial, details in contents[name]["details"].items()
        },
    }
