"""Learning rate, schedule and warm-up; a schedule covers the full number of epochs."""

import optuna

from spaces.registry import Baseline, Overrides, space

_REPORT_RATE: Overrides = {"optim.optimizer": "adamw", "optim.lr": 1e-4, "optim.weight_decay": 1e-4}


@space(
    "lr_schedules",
    summary="StepLR, cosine and one-cycle schedules, learning rate and warm-up",
    baselines=(
        Baseline(
            name="report B step",
            overrides={**_REPORT_RATE, "optim.schedule": "step", "optim.step_epochs": 3, "optim.step_gamma": 0.1},
            source="course report B, Table 2, StepLR(3, 0.1)",
        ),
        Baseline(
            name="report B cosine",
            overrides={**_REPORT_RATE, "optim.schedule": "cosine", "optim.eta_min": 1e-7},
            source="course report B, Table 2, CosineAnnealingLR(T_max = epochs, eta_min 1e-7)",
        ),
        Baseline(
            name="report A cosine",
            overrides={**_REPORT_RATE, "optim.schedule": "cosine", "optim.eta_min": 0.0},
            source="course report A, CosineAnnealingLR(T_max = epochs)",
        ),
    ),
)
def lr_schedules(trial: optuna.Trial) -> Overrides:
    """A schedule and its parameters."""
    schedule = trial.suggest_categorical("schedule", ["onecycle", "cosine", "step"])
    overrides: Overrides = {
        "optim.schedule": schedule,
        "optim.lr": trial.suggest_float("lr", 1e-4, 5e-3, log=True),
    }
    if schedule == "step":
        overrides["optim.step_epochs"] = trial.suggest_int("step_epochs", 1, 6)
        overrides["optim.step_gamma"] = trial.suggest_float("step_gamma", 0.05, 0.5, log=True)
    if schedule == "onecycle":
        overrides["optim.onecycle_peak"] = trial.suggest_float("onecycle_peak", 0.1, 0.5)
    else:  # one-cycle includes a warm-up
        overrides["optim.warmup_epochs"] = trial.suggest_categorical("warmup_epochs", [0.0, 0.5])
    return overrides
