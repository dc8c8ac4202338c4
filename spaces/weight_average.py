"""A moving average of the weights."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "weight_average",
    summary="decay of an exponential moving average of the weights, and the learning rate",
    baselines=(
        Baseline(
            name="slow average",
            overrides={"optim.ema": 0.999},
            source="Tarvainen and Valpola 2017, Mean teachers: 0.999 after the first steps",
        ),
    ),
)
def weight_average(trial: optuna.Trial) -> Overrides:
    """An average over about 50 to 2,000 steps; it allows a higher learning rate, so that is searched too."""
    rest = trial.suggest_float("one_minus_decay", 5e-4, 2e-2, log=True)
    return {
        "optim.ema": 1 - rest,
        "optim.lr": trial.suggest_float("lr", 5e-4, 6e-3, log=True),
    }
