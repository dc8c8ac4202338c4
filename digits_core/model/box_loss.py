"""The loss of predicted boxes in the RoI heads."""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from digits_core.config.train_config import ModelConfig
from digits_core.devices import constant
from digits_core.model.boxes import LARGEST_LOG_RATIO, decode, encode

Weights = tuple[float, float, float, float]
"""Factors of a `BoxCoder` for x, y, width and height."""


def smooth_l1(codes: Tensor, wanted: Tensor, foreground: Tensor, weight: Tensor, beta: float) -> Tensor:
    """The sum of torchvision's smooth L1 loss over the foreground, each row with its weight.

    Args:
        codes: predictions [..., 4].
        wanted: [..., 4]; may be anything where `foreground` is False.
        foreground: bool [...].
        weight: [...].
        beta: where the loss changes from a square to a line; 0 is the L1 loss.
    """
    wanted = torch.where(foreground[..., None], wanted, codes.detach().to(wanted.dtype))
    loss = functional.smooth_l1_loss(codes.to(wanted.dtype), wanted, beta=beta, reduction="none")
    return (loss * weight[..., None]).sum()


def box_loss(
    model: ModelConfig,
    codes: Tensor,
    boxes: Tensor,
    origins: Tensor,
    foreground: Tensor,
    weight: Tensor,
    coder: Weights,
) -> Tensor:
    """The sum of the loss of a configuration over the foreground, each row with its weight.

    Args:
        model: `box_loss`, `box_loss_beta` and `box_loss_weight`.
        codes: predictions [num, 4], relative to `origins`.
        boxes: the annotated boxes [num, 4], xyxy; may be anything where `foreground` is False.
        origins: the proposals [num, 4], xyxy.
        foreground: bool [num].
        weight: [num].
        coder: weights of the codes.

    Source:
        Rezatofighi et al. 2019, Generalized intersection over union; Zheng et al. 2020, Distance-IoU loss (CIoU). Both
        compare decoded boxes, by torchvision's operators.
    """
    if model.box_loss in ("smooth_l1", "l1"):
        beta = model.box_loss_beta if model.box_loss == "smooth_l1" else 0.0
        return model.box_loss_weight * smooth_l1(codes, encode(boxes, origins, coder), foreground, weight, beta)
    compare = generalized_box_iou_loss if model.box_loss == "giou" else complete_box_iou_loss
    # Rows that do not count compare a box with itself.
    whole = constant((0.0, 0.0, 1.0, 1.0), origins.device, origins.dtype)
    origins = torch.where(foreground[:, None], origins, whole)
    boxes = torch.where(foreground[:, None], boxes, whole)
    codes = torch.where(foreground[:, None], codes, torch.zeros_like(codes))
    # A side that rounds to 0 has no CIoU; `decode` limits only large sides.
    sides = codes[:, 2:].clamp(min=-LARGEST_LOG_RATIO * coder[2])
    codes = torch.cat([codes[:, :2], sides], dim=1)
    loss: Tensor = compare(decode(codes, origins, coder), boxes, reduction="none")
    return model.box_loss_weight * (loss * weight * foreground).sum()
