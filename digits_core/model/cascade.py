"""The further stages of a Cascade R-CNN: each moves the boxes of the stage before and classifies them again."""

import torch
from torch import Tensor, nn

from digits_core.model.box_loss import Weights

IOUS = (0.5, 0.6, 0.7)
"""IoU from which a proposal of each stage counts as foreground; the first one is `model.roi_fg_iou`.

Source: Cai and Vasconcelos 2018, Cascade R-CNN, section 5.
"""

CODER_WEIGHTS: tuple[Weights, ...] = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
"""Weights of the codes of each stage: boxes move less from stage to stage.

Source: detectron2 `ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS`; the first ones are torchvision's.
"""

LOSS_WEIGHTS = (1.0, 0.5, 0.25)
"""Weight of the losses of each stage. Source: the authors' implementation, and MMDetection `stage_loss_weights`."""


class Stage(nn.Module):
    """A box head with its own predictor, whose boxes are the same for every class."""

    def __init__(self, number: int, head: nn.Module, width: int, num_classes: int) -> None:
        """Build one stage.

        Args:
            number: of the stage, from 2.
            head: for pooled features.
            width: of the head's output.
            num_classes: with the background.
        """
        super().__init__()
        self.iou, self.coder_weights = IOUS[number - 1], CODER_WEIGHTS[number - 1]
        self.loss_weight = LOSS_WEIGHTS[number - 1]
        self.box_head = head
        self.cls_score = nn.Linear(width, num_classes)
        self.bbox_pred = nn.Linear(width, 4)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """What the stage says about its boxes.

        Args:
            pooled: features [regions, channels, height, width].

        Returns:
            Logits [regions, classes], and codes [regions, classes, 4] relative to the boxes, the same for each class.
        """
        found = self.box_head(pooled)
        logits = self.cls_score(found)
        return logits, self.bbox_pred(found)[:, None].expand(-1, logits.shape[1], -1)

    def start_from(self, head: nn.Module, cls_score: nn.Module) -> None:
        """Begin with the weights of the stage before; boxes do not move yet."""
        self.box_head.load_state_dict(head.state_dict())
        self.cls_score.load_state_dict(cls_score.state_dict())
        with torch.no_grad():
            self.bbox_pred.weight.zero_()
            self.bbox_pred.bias.zero_()


def best_codes(logits: Tensor, codes: Tensor) -> Tensor:
    """The codes [regions, 4] of the most probable class of each region that is not the background."""
    best = logits[:, 1:].argmax(dim=1) + 1
    return codes.gather(1, best[:, None, None].expand(-1, 1, 4))[:, 0]
