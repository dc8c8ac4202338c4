"""The region proposal network for all images of a batch at once: proposals and losses as torchvision's."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import nms

from digits_core.devices import constant, must_not_wait
from digits_core.model.box_loss import smooth_l1
from digits_core.model.boxes import clip, decode, encode, take
from digits_core.model.resize import Inputs
from digits_core.model.sampling import assign, draw, expected

BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""The weights of torchvision's `BoxCoder` in the RPN: x and y, width and height."""

BETA = 1 / 9
"""Where torchvision's smooth L1 loss of the RPN changes from a square to a line."""

FIRST_SHARE = 2
"""Boxes that NMS compares first, as a multiple of those that are needed: mostly enough."""

MOST_SHAPES = 64
"""Shapes of batches whose anchors are kept."""

GROUPS = 8
"""More than the levels of a pyramid and the group of the boxes that are dropped anyway."""

MOST_COMPARED = 2**15
"""Boxes of one NMS on a GPU: its time and memory grow with the square."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """The places of all levels of a pyramid on one map: beside the first level the second, and below it all others.

    Attributes:
        right_size: height and width of the part beside the first level.
        below_size: height and width of the part below the second level.
        cells: int64 [cells of all levels]: their places on the flattened map.
        covered: [1, 1, height, width]: 1 where a level is, 0 between the levels.
        anchors: [anchors, 4], xyxy, of all levels, in the dtype of the model.
        per_level: the number of anchors of each level.
    """

    right_size: tuple[int, int]
    below_size: tuple[int, int]
    cells: Tensor
    covered: Tensor
    anchors: Tensor
    per_level: tuple[int, ...]

    @classmethod
    def of(
        cls, grids: tuple[tuple[int, int], ...], anchors: list[Tensor], dtype: torch.dtype, device: torch.device
    ) -> "Canvas":
        """The canvas of the levels with these heights and widths; there are at least three."""
        first, second, others = grids[0], grids[1], grids[2:]
        below = max(tall for tall, _ in others), max(second[1], sum(wide + 1 for _, wide in others) - 1)
        right = max(first[0], second[0] + 1 + below[0]), below[1]
        place = np.arange(right[0] * (first[1] + 1 + right[1])).reshape(right[0], -1)
        lefts = itertools.accumulate([first[1] + 1, *(wide + 1 for _, wide in others[:-1])])
        corners = [(0, 0), (0, first[1] + 1), *((second[0] + 1, left) for left in lefts)]
        cells = np.concatenate(
            [
                place[top : top + tall, left : left + wide].ravel()
                for (top, left), (tall, wide) in zip(corners, grids, strict=True)
            ]
        )
        covered = np.zeros(place.size, dtype=np.float32)
        covered[cells] = 1
        return cls(
            right,
            below,
            torch.from_numpy(cells).to(device),
            torch.from_numpy(covered.reshape(1, 1, *place.shape)).to(device, dtype),
            torch.cat(anchors),
            tuple(len(one) for one in anchors),
        )

    def lay_out(self, levels: list[Tensor]) -> Tensor:
        """The map [images, channels, height, width] of the levels, 0 between them."""
        first, second, others = levels[0], levels[1], levels[2:]
        gaps = [*[1] * (len(others) - 1), self.below_size[1] - sum(one.shape[3] + 1 for one in others) + 1]
        below = torch.cat(
            [
                functional.pad(one, (0, gap, 0, self.below_size[0] - one.shape[2]))
                for one, gap in zip(others, gaps, strict=True)
            ],
            dim=3,
        )
        rows = self.right_size[0] - second.shape[2] - below.shape[2]
        right = torch.cat(
            [
                functional.pad(second, (0, self.right_size[1] - second.shape[3], 0, 1)),
                functional.pad(below, (0, 0, 0, rows - 1)),
            ],
            dim=2,
        )
        return torch.cat([functional.pad(first, (0, 1, 0, self.right_size[0] - first.shape[2])), right], dim=3)


@dataclass(frozen=True, slots=True)
class RpnOutput:
    """What the RPN says about each anchor.

    Attributes:
        anchors: [anchors, 4], xyxy, the same for every image of the batch.
        per_level: the number of anchors of each level.
        objectness: logits [images, anchors].
        codes: [images, anchors, 4], boxes relative to the anchors.
    """

    anchors: Tensor
    per_level: tuple[int, ...]
    objectness: Tensor
    codes: Tensor


@dataclass(frozen=True, slots=True)
class Proposals:
    """The proposals of each image, best first.

    Attributes:
        boxes: [images, most, 4], xyxy, pixels of the resized image.
        real: bool [images, most]; False where an image has fewer proposals.
    """

    boxes: Tensor
    real: Tensor


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's network, whose weights and settings it has, with methods for a whole batch."""

    def __init__(self, *given: Any) -> None:
        """The arguments are torchvision's."""
        super().__init__(*given)
        self._canvases: dict[object, Canvas] = {}

    def run(self, inputs: Inputs, levels: list[Tensor]) -> RpnOutput:
        """Apply the head to the feature maps [images, channels, height, width] of the levels.

        All levels are laid out on one canvas, so that each convolution runs once. Zeros between the levels are the
        padding that each level would have.

        Source:
            torchvision `RPNHead` and `concat_box_prediction_layers`.
        """
        canvas = self._canvas(inputs, levels)
        images, features = len(levels[0]), canvas.lay_out(levels)
        for number, layer in enumerate(self.head.conv):
            features = layer(features if number == 0 else features * canvas.covered)
        objectness, codes = (
            layer(features).permute(0, 2, 3, 1).flatten(1, 2).index_select(1, canvas.cells)
            for layer in (self.head.cls_logits, self.head.bbox_pred)
        )
        return RpnOutput(canvas.anchors, canvas.per_level, objectness.reshape(images, -1), codes.reshape(images, -1, 4))

    def _canvas(self, inputs: Inputs, levels: list[Tensor]) -> "Canvas":
        """The canvas for feature maps of these shapes, which is made once."""
        shape, dtype, device = tuple(inputs.images.shape[2:]), inputs.images.dtype, inputs.images.device
        grids = tuple((one.shape[2], one.shape[3]) for one in levels)
        known = self._canvases
        key = (grids, shape, dtype, device)
        if key not in known:
            if len(known) >= MOST_SHAPES:
                known.pop(next(iter(known)))  # the oldest
            with torch.inference_mode(False):
                strides = [
                    [torch.tensor(whole // part, device=device) for whole, part in zip(shape, grid, strict=True)]
                    for grid in grids
                ]
                self.anchor_generator.set_cell_anchors(dtype, device)
                anchors = self.anchor_generator.grid_anchors([list(grid) for grid in grids], strides)
                known[key] = Canvas.of(grids, anchors, dtype, device)
        return known[key]

    @torch.no_grad()
    def propose(self, output: RpnOutput, inputs: Inputs) -> Proposals:
        """The proposals of each image; the mode of the network, training or not, determines how many.

        NMS is greedy: whether a box is kept depends only on boxes with higher scores. Only the first
        `rpn_post_nms_top_n` boxes that NMS keeps are needed.

        Args:
            output: from `run`.
            inputs: the batch.

        Source:
            torchvision `RegionProposalNetwork.filter_proposals`.
        """
        device = output.codes.device
        per_level = output.per_level
        counts = [min(self.pre_nms_top_n(), count) for count in per_level]
        scored = torch.split(output.objectness.to(output.anchors.dtype), list(per_level), dim=1)
        best = [one.topk(count, dim=1) for one, count in zip(scored, counts, strict=True)]
        scores, order = torch.cat([one.values for one in best], dim=1).sort(dim=1, descending=True, stable=True)
        before = [0, *itertools.accumulate(per_level[:-1])]
        offset = constant(spread(before, counts), device, torch.int64)
        row = (torch.cat([one.indices for one in best], dim=1) + offset).gather(1, order)
        codes = take(output.codes, row)
        boxes = clip(decode(codes, output.anchors[row], BOX_WEIGHTS), inputs.sides[:, None])
        solid = (boxes[..., 2:] - boxes[..., :2] >= self.min_size).all(dim=2)
        if self.score_thresh > 0:
            solid &= scores.sigmoid() >= self.score_thresh
        # Boxes of different levels are not compared. Boxes that are dropped anyway are a level of their own.
        level = constant(spread(range(len(counts)), counts), device, torch.int64)
        group = torch.where(solid, level[order], len(counts))
        survivors = all_survivors if must_not_wait(device) else first_survivors
        reach = int(inputs.sizes.max()) + 1
        kept, real = survivors(boxes, scores, group, solid, reach, self.nms_thresh, self.post_nms_top_n())
        return Proposals(take(boxes, kept).nan_to_num(), real)

    def losses(
        self, output: RpnOutput, inputs: Inputs, keys: Callable[[torch.Size], Tensor] | None
    ) -> dict[str, Tensor]:
        """Torchvision's two losses of the RPN.

        Args:
            output: from `run`.
            inputs: the batch.
            keys: random numbers in [0, 1) of a shape, which choose the sampled anchors. With None, each anchor counts
                as much as it does on average over all samples, and nothing is random.

        Source:
            torchvision `RegionProposalNetwork.compute_loss`.
        """
        found = assign(
            inputs.boxes,
            inputs.labels > 0,
            output.anchors[None],
            foreground_iou=self.proposal_matcher.high_threshold,
            background_iou=self.proposal_matcher.low_threshold,
            best_of_each_box=True,
        )
        sampler = self.fg_bg_sampler
        asked = sampler.batch_size_per_image, sampler.positive_fraction
        objectness, codes, box, anchors = output.objectness, output.codes, found.box, output.anchors[None]
        if keys is None:
            weight, total = expected(found, *asked)
            foreground = found.foreground
        else:
            drawn = draw(found, *asked, keys(found.foreground.shape))
            total, foreground = drawn.used.sum(), drawn.foreground
            objectness, box = objectness.gather(1, drawn.rows), box.gather(1, drawn.rows)
            codes = take(codes, drawn.rows)
            anchors, weight = output.anchors[drawn.rows], drawn.used.to(objectness.dtype)
        scored = functional.binary_cross_entropy_with_logits(
            objectness, foreground.to(objectness.dtype), weight, reduction="sum"
        )
        matched = take(inputs.boxes, box)
        moved = smooth_l1(codes, encode(matched, anchors, BOX_WEIGHTS), foreground, weight, BETA)
        total = total.clamp(min=1)
        return {"loss_objectness": scored / total, "loss_rpn_box_reg": moved / total}


def spread(values: Iterable[int], counts: list[int]) -> tuple[int, ...]:
    """Each value, repeated as often as its count says."""
    return tuple(value for value, count in zip(values, counts, strict=True) for _ in range(count))


def first_survivors(
    boxes: Tensor, scores: Tensor, group: Tensor, solid: Tensor, reach: int, threshold: float, most: int
) -> tuple[Tensor, Tensor]:
    """The first boxes of each image that NMS within each group keeps, on a CPU.

    torchvision's NMS compares each kept box with all that follow. So it runs on the best boxes of an image first, and
    on more of them only if these are not enough.

    Args:
        boxes: [images, num, 4], xyxy, not negative, best score first.
        scores: [images, num].
        group: int64 [images, num]; boxes of different groups are not compared.
        solid: bool [images, num]; others are not returned.
        reach: larger than every coordinate.
        threshold: IoU above which the box with the lower score is dropped.
        most: the number of boxes of an image that are returned at most.

    Returns:
        Row numbers int64 [images, at most `most`], and whether they are real, bool of the same shape.
    """
    apart = boxes + (group * reach)[:, :, None]
    wanted, end = solid.numpy(), FIRST_SHARE * most
    found = [nms(*some, threshold) for some in zip(apart[:, :end].unbind(), scores[:, :end].unbind(), strict=True)]
    kept: list[NDArray[np.int64]] = []
    for image, rows in enumerate(np.split(torch.cat(found).numpy(), np.cumsum([len(some) for some in found])[:-1])):
        rows, tried = rows[wanted[image, rows]], end
        while len(rows) < most and tried < boxes.shape[1]:
            tried = int(1.5 * tried) + 1
            rows = nms(apart[image, :tried], scores[image, :tried], threshold).numpy()
            rows = rows[wanted[image, rows]]
        kept.append(rows[:most])
    table = np.zeros((len(kept), max(1, *map(len, kept))), dtype=np.int64)
    real = np.zeros(table.shape, dtype=bool)
    for image, rows in enumerate(kept):
        table[image, : len(rows)], real[image, : len(rows)] = rows, True
    return torch.from_numpy(table), torch.from_numpy(real)


def all_survivors(
    boxes: Tensor, scores: Tensor, group: Tensor, solid: Tensor, reach: int, threshold: float, most: int
) -> tuple[Tensor, Tensor]:
    """As `first_survivors`, for a GPU: one NMS for many images. The CPU waits for the GPU only there.

    The boxes of different images and groups are moved apart, in float64 because float32 would round moved boxes.
    """
    images, num = scores.shape
    first = constant(tuple(range(0, images * GROUPS, GROUPS)), boxes.device, torch.int64)
    apart = boxes.double() + ((group + first[:, None]) * reach)[:, :, None]
    step = max(1, MOST_COMPARED // num)
    parts = zip(torch.split(apart, step), torch.split(scores.double(), step), strict=True)
    rows = [nms(some.flatten(0, 1), its.flatten(), threshold) for some, its in parts]
    rows = [some + number * step * num if number else some for number, some in enumerate(rows)]
    kept = torch.zeros(images * num, dtype=torch.bool, device=boxes.device).index_fill(0, torch.cat(rows), True)
    kept = kept.view(images, num) & solid
    order = kept.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :most]
    return order, kept.gather(1, order)
