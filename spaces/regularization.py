"""What keeps the RoI heads from fitting the training images too closely."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "regularization",
    summary="label smoothing, jitter of the annotated boxes among the proposals, and weight decay",
    baselines=(
        Baseline(
            name="label smoothing .1",
            overrides={"model.label_smoothing": 0.1},
            source="Szegedy et al. 2016, Rethinking the Inception architecture: 0.1",
        ),
        Baseline(
            name="box jitter",
            overrides={"model.box_jitter": 0.06},
            source="Xu et al. 2021, Soft Teacher: box jittering by up to 6 % of a side, here on the proposals",
        ),
    ),
)
def regularization(trial: optuna.Trial) -> Overrides:
    """Each is off, or nearly off, at its lower end."""
    return {
        "model.label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.2, step=0.02),
        "model.box_jitter": trial.suggest_float("box_jitter", 0.0, 0.3, step=0.03),
        "optim.weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
    }
