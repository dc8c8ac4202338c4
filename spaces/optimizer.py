"""The optimiser and its parameters."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "optimizer",
    summary="AdamW and SGD: learning rate, weight decay, momentum, gradient clipping",
    baselines=(
        Baseline(
            name="report A and B",
            overrides={"optim.optimizer": "adamw", "optim.lr": 1e-4, "optim.weight_decay": 1e-4},
            source="both course reports: AdamW, rate 1e-4, weight decay 1e-4",
        ),
        Baseline(
            name="torchvision",
            overrides={
                "optim.optimizer": "sgd",
                "optim.lr": 0.01,
                "optim.momentum": 0.9,
                "optim.weight_decay": 1e-4,
            },
            source="torchvision's reference training: 0.02 for 16 images, scaled to 8",
        ),
    ),
)
def optimizer(trial: optuna.Trial) -> Overrides:
    """An optimiser; each has its own range of learning rates."""
    kind = trial.suggest_categorical("optimizer", ["adamw", "sgd"])
    overrides: Overrides = {"optim.optimizer": kind}
    if kind == "sgd":
        overrides["optim.lr"] = trial.suggest_float("sgd_lr", 1e-3, 5e-2, log=True)
        overrides["optim.momentum"] = trial.suggest_float("momentum", 0.8, 0.98)
    else:
        overrides["optim.lr"] = trial.suggest_float("adamw_lr", 1e-4, 5e-3, log=True)
    overrides["optim.weight_decay"] = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    overrides["optim.max_grad_norm"] = trial.suggest_categorical("max_grad_norm", [0.0, 1.0, 5.0])
    return overrides
