"""What happens to overlapping raw boxes. It acts after training, so it is scored on a trained model."""

import optuna

from spaces.registry import Overrides, space

KINDS = {
    "none": None,
    "voting": ("detect.box_merge", [0.6, 0.7, 0.8]),
    "Soft-NMS": ("detect.soft_nms", [0.3, 0.5, 0.8]),
    "fusion": ("detect.box_fusion", [0.65, 0.75, 0.85]),
}
"""The parameter of each kind and its values; hard NMS follows all of them."""


@space(
    "box_merging",
    summary="box voting, Soft-NMS or weighted boxes fusion before NMS, with and without a common height",
)
def box_merging(trial: optuna.Trial) -> Overrides:
    """Each combination is scored at its own best thresholds."""
    known = KINDS[trial.suggest_categorical("box_merging", list(KINDS))]
    overrides: Overrides = {"detect.common_height": trial.suggest_categorical("common_height", [False, True])}
    for parameter, _ in filter(None, KINDS.values()):
        overrides[parameter] = 0.0
    if known is not None:
        parameter, values = known
        overrides[parameter] = trial.suggest_categorical(parameter.removeprefix("detect."), values)
    return overrides
