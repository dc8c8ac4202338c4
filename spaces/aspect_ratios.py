"""Aspect ratios of the anchors. In torchvision a ratio is height / width: above 1 is tall."""

import optuna

from digits_core.config.parameter import format_numbers
from spaces.registry import Baseline, Overrides, space


@space(
    "aspect_ratios",
    summary="three aspect ratios (height / width), from a middle ratio and a factor",
    fixed={"model.fresh_rpn": True},
    baselines=(
        Baseline(
            name="report B wide",
            overrides={"model.aspect_ratios": "0.25,0.5,1"},
            source="course report B, Table 5, ratios (0.25, 0.5, 1.0): wide boxes",
        ),
        Baseline(
            name="report B tall",
            overrides={"model.aspect_ratios": "1,1.5,2"},
            source="course report B, Table 5, ratios (1.0, 1.5, 2.0): tall boxes",
        ),
        Baseline(name="torchvision ratios", overrides={"model.aspect_ratios": "0.5,1,2"}, source="torchvision"),
    ),
)
def aspect_ratios(trial: optuna.Trial) -> Overrides:
    """The middle ratio, and the factor between it and its two neighbours."""
    middle = trial.suggest_float("ratio_middle", 0.4, 4.0, log=True)
    spread = trial.suggest_float("ratio_spread", 1.1, 2.2)
    ratios = (middle / spread, middle, middle * spread)
    return {"model.aspect_ratios": format_numbers(round(ratio, 3) for ratio in ratios)}
