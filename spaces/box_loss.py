"""The box loss of the RoI heads."""

import optuna

from spaces.registry import Baseline, Overrides, space


@space(
    "box_loss",
    summary="box loss of the RoI heads (smooth L1 with its beta, L1, GIoU, CIoU) and its weight",
    baselines=(
        Baseline(
            name="L1",
            overrides={"model.box_loss": "l1"},
            source="detectron2 `ROI_BOX_HEAD.SMOOTH_L1_BETA=0`, its default",
        ),
        Baseline(
            name="GIoU",
            overrides={"model.box_loss": "giou", "model.box_loss_weight": 10.0},
            source="MMDetection faster-rcnn_r50_fpn_giou_1x_coco: weight 10",
        ),
        Baseline(
            name="CIoU",
            overrides={"model.box_loss": "ciou", "model.box_loss_weight": 12.0},
            source="MMDetection faster-rcnn_r50_fpn_ciou_1x_coco: weight 12",
        ),
    ),
)
def box_loss(trial: optuna.Trial) -> Overrides:
    """The IoU losses are per box instead of per coordinate, so their weights are about ten times as large."""
    kind = trial.suggest_categorical("box_loss", ["smooth_l1", "l1", "giou", "ciou"])
    if kind in ("giou", "ciou"):
        return {
            "model.box_loss": kind,
            "model.box_loss_weight": trial.suggest_float("iou_loss_weight", 2.0, 20.0, log=True),
        }
    overrides: Overrides = {
        "model.box_loss": kind,
        "model.box_loss_weight": trial.suggest_float("box_loss_weight", 0.3, 4.0, log=True),
    }
    if kind == "smooth_l1":
        overrides["model.box_loss_beta"] = trial.suggest_float("box_loss_beta", 1 / 9, 1.0, log=True)
    return overrides
