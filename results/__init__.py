"""Reads and shows the results of a search; needs only its run folder.

In a notebook: `from results import open_run, read_leaderboard, plot_curves`. Modules are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.figures.detection import plot_anchors, plot_thresholds
    from results.figures.history import plot_history
    from results.figures.settings import plot_contours, plot_importances, plot_parallel, plot_slices
    from results.figures.training import plot_curves, plot_overfitting, plot_pareto, plot_time
    from results.report import write_report
    from results.views.leaderboard import read_leaderboard, read_leaderboards
    from results.views.opened_run import OpenedRun, open_run

_HOMES = {
    "OpenedRun": "results.views.opened_run",
    "open_run": "results.views.opened_run",
    "plot_anchors": "results.figures.detection",
    "plot_contours": "results.figures.settings",
    "plot_curves": "results.figures.training",
    "plot_history": "results.figures.history",
    "plot_importances": "results.figures.settings",
    "plot_overfitting": "results.figures.training",
    "plot_parallel": "results.figures.settings",
    "plot_pareto": "results.figures.training",
    "plot_slices": "results.figures.settings",
    "plot_thresholds": "results.figures.detection",
    "plot_time": "results.figures.training",
    "read_leaderboard": "results.views.leaderboard",
    "read_leaderboards": "results.views.leaderboard",
    "write_report": "results.report",
}

__all__ = [
    "OpenedRun",
    "open_run",
    "plot_anchors",
    "plot_contours",
    "plot_curves",
    "plot_history",
    "plot_importances",
    "plot_overfitting",
    "plot_parallel",
    "plot_pareto",
    "plot_slices",
    "plot_thresholds",
    "plot_time",
    "read_leaderboard",
    "read_leaderboards",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
