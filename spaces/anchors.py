"""Anchor sizes: a base and a growth factor from one pyramid level to the next."""

import optuna

from digits_core.config.parameter import format_numbers
from digits_core.config.train_config import NUM_LEVELS
from spaces.registry import Baseline, Overrides, space


@space(
    "anchors",
    summary="five anchor sizes, from a base and a growth factor",
    fixed={"model.fresh_rpn": True},
    baselines=(
        Baseline(
            name="report B small",
            overrides={"model.anchor_sizes": "4,8,12,24,48"},
            source="course report B, Table 5, 'small'",
        ),
        Baseline(
            name="report B normal",
            overrides={"model.anchor_sizes": "4,8,16,32,64"},
            source="course report B, Table 5, 'normal'",
        ),
    ),
)
def anchors(trial: optuna.Trial) -> Overrides:
    """Sizes in pixels after the resize, rounded: level i has base * growth ** i."""
    base = trial.suggest_float("anchor_base", 4.0, 32.0, log=True)
    growth = trial.suggest_float("anchor_growth", 1.2, 2.0)
    return {"model.anchor_sizes": format_numbers(round(base * growth**level) for level in range(NUM_LEVELS))}
