"""The number of pyramid levels that RoIAlign uses."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "roi_levels",
    summary="number of pyramid levels that the box head uses",
    baselines=(
        Baseline(name="report B four", overrides={"model.roi_levels": 4}, source="course report B, Table 7"),
        Baseline(name="report B two", overrides={"model.roi_levels": 2}, source="course report B, Table 7"),
    ),
    comparison=True,
)
def roi_levels(trial: optuna.Trial) -> Overrides:
    """1 uses only the finest level, 4 uses all levels."""
    return {"model.roi_levels": trial.suggest_int("roi_levels", 1, 4)}
