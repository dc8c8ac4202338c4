"""torchvision's region proposal network with an NMS that looks at no more boxes than it must."""

from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import batched_nms


class FloatBoxCoder(BoxCoder):
    """Boxes in float32 from regressions in half precision, in which a coordinate above 128 px is a whole number."""

    def decode(self, rel_codes: Tensor, boxes: list[Tensor]) -> Tensor:
        """See torchvision's."""
        decoded: Tensor = super().decode(rel_codes.float(), boxes)
        return decoded


class ProposalNetwork(RegionProposalNetwork):
    """The same proposals from fewer comparisons.

    NMS is greedy: whether a box survives depends on better ones alone. As only the first
    `rpn_post_nms_top_n` survivors are wanted, it runs over the best boxes first, and over all only where
    those gave too few. While it is exported, it is torchvision's own.
    """

    def __init__(self, *given: Any) -> None:
        """Torchvision's arguments."""
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
            objectness: logits, as many.
            image_shapes: (height, width) of each resized image.
            num_anchors_per_level: how the anchors are divided among the levels.

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
    """The first `most` rows that NMS within groups keeps.

    Args:
        boxes: float32 [num, 4], xyxy, best score first.
        scores: [num].
        groups: [num]; boxes of different groups do not meet.
        threshold: IoU above which the weaker box is dropped.
        most: rows wanted.

    Returns:
        Row numbers in order, int64 [at most `most`].
    """
    end = 2 * most
    while True:
        kept: Tensor = batched_nms(boxes[:end], scores[:end], groups[:end], threshold)
        if len(kept) >= most or end >= len(boxes):
            return kept[:most]
        end *= 2
