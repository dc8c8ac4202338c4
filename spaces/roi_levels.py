"""Pyramid levels that RoIAlign reads: all four, or the finer ones alone."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "roi_levels",
    summary="how many pyramid levels the box head reads",
    baselines=(
        Baseline(name="report B four", overrides={"model.roi_levels": 4}, source="course report B, Table 7"),
        Baseline(name="report B two", overrides={"model.roi_levels": 2}, source="course report B, Table 7"),
    ),
    comparison=True,
)
def roi_levels(trial: optuna.Trial) -> Overrides:
    """1 reads the finest level alone, 4 all of them."""
    return {"model.roi_levels": trial.suggest_int("roi_levels", 1, 4)}
