"""RoIAlign on a pyramid as weighted sums of feature rows: on a CPU several times as fast as torchvision's kernel.

torchvision's CPU kernel computes every sampling point again for each channel, and adds gradients one number at a time.
Here the sampling points of all RoIs and levels are computed once. The result is the product of a sparse matrix and the
features, one row of channels at a time; the gradient uses the transposed matrix.
"""

import math
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from digits_core.devices import constant

CANONICAL_SCALE, CANONICAL_LEVEL, EPSILON = 224, 4, 1e-6
"""A RoI of 224 px is read from level 4, a RoI of half that size from level 3 (Lin et al. 2017, equation 1)."""

FIRST_LEVEL = 2
"""Level 0 of every backbone has 1 / 4 (2 ** -2) of the image's sides, and each further level half of the one before."""

MOST_TAPS = 50_000_000
"""Cells to read for one batch; above this number their list needs too much memory, and torchvision's kernel is used."""

OUTSIDE = -1e6
"""A coordinate far outside of every image, where RoIAlign reads nothing."""


class PyramidRoIAlign(MultiScaleRoIAlign):
    """Gives the results of torchvision's module, except for rounding; during export it uses torchvision's.

    A box without finite coordinates gives zeros. torchvision's CPU kernel gives zeros too, or reads outside of its
    memory for some of these boxes, which may crash the process.

    The scales of the levels are fixed. torchvision estimates them from the images of its first batch before padding,
    which is wrong if these images have a very small height.
    """

    def __init__(self, levels: int, output_size: int, sampling_ratio: int) -> None:
        """Read the first `levels` of the pyramid."""
        super().__init__([str(level) for level in range(levels)], output_size, sampling_ratio)
        self.scales = [2.0 ** -(FIRST_LEVEL + level) for level in range(levels)]
        self.map_levels = initLevelMapper(
            FIRST_LEVEL, FIRST_LEVEL + levels - 1, CANONICAL_SCALE, CANONICAL_LEVEL, EPSILON
        )

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the features of each box, called as torchvision's module.

        Args:
            x: feature maps [images, channels, height, width] by level.
            boxes: float32 [num, 4], xyxy in pixels of the resized image, of each image.
            image_shapes: not used.

        Returns:
            Features [all boxes, channels, output height, output width].
        """
        if torchvision._is_tracing():
            traced: Tensor = super().forward(x, boxes, image_shapes)
            return traced
        counts = torch.tensor([len(some) for some in boxes], device=boxes[0].device)
        return self.of_rois(x, torch.cat(boxes), counts.new_tensor(range(len(boxes))).repeat_interleave(counts))

    def of_rois(self, x: dict[str, Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool the features of each box.

        Args:
            x: feature maps [images, channels, height, width] by level.
            rois: float32 [num, 4], xyxy in pixels of the resized image.
            image: int64 [num], ascending: the image of each box.

        Returns:
            Features [num, channels, output height, output width].
        """
        features = [map_ for name, map_ in x.items() if name in self.featmap_names]
        taps = self.output_size[0] ** 2 * 4 * self.sampling_ratio**2
        if len(rois) * taps <= MOST_TAPS:
            return pool(features, rois, image, self.scales, self.output_size[0], self.sampling_ratio)
        rois = torch.where(_is_finite(rois)[:, None], rois, OUTSIDE)
        counts = torch.bincount(image, minlength=len(features[0])).tolist()
        pooled: Tensor = super().forward(x, list(torch.split(rois, counts)), [(0, 0)] * len(counts))
        return pooled


def _is_finite(boxes: Tensor) -> Tensor:
    """Whether the sampling points of each box are finite, as bool [num]; x_max and y_max may be minus infinity."""
    return boxes[:, :2].isfinite().all(1) & (boxes[:, 2:] < math.inf).all(1)


def pool(features: list[Tensor], rois: Tensor, image: Tensor, scales: list[float], side: int, ratio: int) -> Tensor:
    """RoIAlign of every box on its level, see `PyramidRoIAlign.of_rois`.

    Args:
        features: the feature maps of the levels, each half as large as the one before.
        rois: boxes of all images.
        image: of each box.
        scales: pixels of each level per pixel of the resized image.
        side: height and width of the pooled features.
        ratio: samples per bin and axis.

    Source:
        torchvision `ops.poolers` (levels and scales) and `roi_align_kernel.cpp`, aligned=False.
    """
    channels, device = features[0].shape[1], rois.device
    level = _levels(rois, scales)
    # One more level without a scale: boxes that belong to no level read nothing.
    shapes = [(map_.shape[2], map_.shape[3]) for map_ in [*features, features[0]]]
    sizes = [map_.shape[0] * map_.shape[2] * map_.shape[3] for map_ in features]
    begins = [*(sum(sizes[:index]) for index in range(len(sizes))), 0]
    known = constant(
        tuple((*shape, shape[0] * shape[1], begin) for shape, begin in zip(shapes, begins, strict=True)),
        device,
        torch.int64,
    ).index_select(0, level)
    limit, (_, width, area, begin) = known[:, :2], known.unbind(1)
    scaled = rois * constant((*scales, math.nan), device, rois.dtype).index_select(0, level)[:, None]
    # Rows are [num, 2, ...]: y first, then x.
    start, end = scaled.view(-1, 2, 2).flip(2).unbind(1)
    cells, weights = _taps(start, end, limit, side, ratio)
    row = (begin + image * area)[:, None, None] + cells[:, 0] * width[:, None, None]
    # [num, bins, taps of one axis] to [num, bins, taps]: for y each value several times, for x all of them again and
    # again, so that their products are long contiguous loops.
    each = range(2 * ratio)
    of_y = constant(tuple(tap for tap in each for _ in each), device, torch.int64)
    of_x = constant(tuple(tap for _ in each for tap in each), device, torch.int64)
    rows = row.index_select(2, of_y)[:, :, None] + cells[:, 1].index_select(2, of_x)[:, None]
    shares = weights[:, 0].index_select(2, of_y)[:, :, None] * weights[:, 1].index_select(2, of_x)[:, None]
    taps = 4 * ratio**2
    table = torch.cat([map_.permute(0, 2, 3, 1).reshape(-1, channels) for map_ in features])
    with torch.autocast(device.type, enabled=False):
        pooled: Tensor = _WeightedRows.apply(
            table.to(torch.promote_types(table.dtype, torch.float32)),
            rows.reshape(-1, taps).int(),
            shares.reshape(-1, taps),
        )
    return pooled.to(features[0].dtype).view(len(rois), side, side, channels).permute(0, 3, 1, 2)


def _levels(rois: Tensor, scales: list[float]) -> Tensor:
    """int64 [num]: the index of the level that each RoI is read from.

    With several levels, a RoI whose area is negative or NaN belongs to no level: its index is the one after the last.
    """
    if len(scales) == 1:
        return torch.zeros(len(rois), dtype=torch.int64, device=rois.device)
    first, last = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    corner, end = rois.view(-1, 2, 2).unbind(1)
    side = (end - corner).prod(1).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SCALE) + EPSILON)
    return level.clamp(first, last).nan_to_num(last + 1).long() - first


def _taps(start: Tensor, end: Tensor, limit: Tensor, bins: int, ratio: int) -> tuple[Tensor, Tensor]:
    """The cells that each bin reads along both axes, and their weights.

    Each sampling point reads the two cells around it; a point more than one cell outside the map reads nothing.

    Args:
        start: [num, 2], where each box begins, in cells.
        end: [num, 2].
        limit: [num, 2], the number of cells.
        bins: per axis.
        ratio: sampling points per bin and axis.

    Returns:
        int64 and float32 [num, 2, bins, 2 * ratio].
    """
    length = (end - start).clamp(min=1.0)
    places = tuple(tuple(bin_ + (tap + 0.5) / ratio for tap in range(ratio)) for bin_ in range(bins))
    point = constant(places, start.device, start.dtype)
    at = start[:, :, None, None] + point * (length / bins)[:, :, None, None]
    limit = limit[:, :, None, None]
    inside = (at >= -1) & (at <= limit)
    share = inside / float(ratio)
    at = torch.where(inside, at, 0).clamp(min=0)  # a point outside may be NaN, or too large for int64
    low = torch.minimum(at.long(), limit - 1)
    high = torch.minimum(low + 1, limit - 1)
    upper = (at - low) * (high > low)
    cells = torch.stack([low, high], dim=-1)
    weights = torch.stack([(1 - upper) * share, upper * share], dim=-1)
    return cells.flatten(3), weights.flatten(3)


class _WeightedRows(torch.autograd.Function):
    """Weighted sums of rows of a table; the gradient is the same operation with rows and sums exchanged."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        """float32 [sums, channels] from the table [rows, channels], row numbers and weights [sums, taps]."""
        ctx.save_for_backward(rows, weights)
        ctx.num_rows = len(table)
        return functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the table, float32 [rows, channels]."""
        rows, weights = ctx.saved_tensors
        ordered, order = torch.sort(rows.flatten(), stable=True)
        every = torch.arange(ctx.num_rows, dtype=ordered.dtype, device=ordered.device)
        begins = torch.searchsorted(ordered, every)
        taken = torch.div(order, rows.shape[1], rounding_mode="floor")
        return (
            functional.embedding_bag(
                taken, gradients[0].contiguous(), begins, per_sample_weights=weights.flatten()[order], mode="sum"
            ),
            None,
            None,
        )
