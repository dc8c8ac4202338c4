"""torchvision's region proposal network with a faster NMS, which compares fewer boxes."""

from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import batched_nms


class FloatBoxCoder(BoxCoder):
    """Decodes boxes in float32, because half precision rounds coordinates above 128 px to whole pixels."""

    def decode(self, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
        """As in torchvision, but in float32."""
        decoded: Tensor = super().decode(rel_codes.float(), boxes)
        return decoded


class ProposalNetwork(RegionProposalNetwork):
    """Gives the same proposals as torchvision's network with fewer comparisons.

    NMS is greedy: whether a box is kept depends only on boxes with higher scores. Only the first `rpn_post_nms_top_n`
    boxes that NMS keeps are needed, so NMS runs on the best boxes first, and on more boxes only if these are not
    enough. During ONNX export this class uses torchvision's implementation.
    """

    def __init__(self, *given: Any) -> None:
        """The arguments are torchvision's."""
        super().__init__(*given)
        self.box_coder = FloatBoxCoder(weights=(1.0, 1.0, 1.0, 1.0))

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The proposals of each image, best first, and their scores.

        Args:
            proposals: float32 [images, anchors, 4], xyxy in pixels of the resized image.
            objectness: logits, one per proposal.
            image_shapes: (height, width) of each resized image.
            num_anchors_per_level: number of anchors of each level.

        Source:
            torchvision `RegionProposalNetwork.filter_proposals`.
        """
        if torchvision._is_tracing():
            traced: tuple[list[Tensor], list[Tensor]] = super().filter_proposals(
                proposals, objectness, image_shapes, num_anchors_per_level
            )
            return traced
        scores = objectness.detach().float().reshape(len(proposals), -1)
        level = torch.repeat_interleave(torch.tensor(num_anchors_per_level, device=scores.device))
        best = self._get_top_n_idx(scores, num_anchors_per_level)
        scores = scores.gather(1, best)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        best = best.gather(1, order)
        level, scores = level[best], scores.sigmoid()
        sides = torch.tensor([(width, height) * 2 for height, width in image_shapes], device=scores.device)
        boxes = proposals.gather(1, best[:, :, None].expand(-1, -1, 4)).clamp(min=0)
        boxes = torch.minimum(boxes, sides[:, None].to(boxes.dtype))
        solid = ((boxes[..., 2:] - boxes[..., :2]) >= self.min_size).all(2) & (scores >= self.score_thresh)
        everywhere = bool(solid.all())
        found = []
        for image in range(len(boxes)):
            mine = slice(None) if everywhere else solid[image]
            some = boxes[image][mine], scores[image][mine], level[image][mine]
            kept = first_survivors(*some, self.nms_thresh, self.post_nms_top_n())
            found.append((some[0][kept], some[1][kept]))
        return [one for one, _ in found], [one for _, one in found]


def first_survivors(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, most: int) -> Tensor:
    """The first `most` rows that NMS within each group keeps.

    Args:
        boxes: float32 [num, 4], xyxy, best score first.
        scores: [num].
        groups: [num]; boxes of different groups are not compared.
        threshold: IoU above which the box with the lower score is dropped.
        most: the number of rows to return at most.

    Returns:
        Row numbers in order, int64 [at most `most`].
    """
    end = 2 * most
    while True:
        kept: Tensor = batched_nms(boxes[:end], scores[:end], groups[:end], threshold)
        if len(kept) >= most or end >= len(boxes):
            return kept[:most]
        end *= 2
