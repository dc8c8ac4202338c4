"""A torchvision Faster R-CNN that also works on a whole batch at once instead of image by image."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN

from digits_core.config.train_config import ModelConfig
from digits_core.data.batches import Batch
from digits_core.devices import must_not_wait
from digits_core.model.boxes import encode, take
from digits_core.model.region_proposals import ProposalNetwork, Proposals, RpnOutput, box_loss
from digits_core.model.resize import Inputs, resize
from digits_core.model.roi_align import PyramidRoIAlign
from digits_core.model.sampling import Assignment, assign, draw, expected

Losses = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Regions:
    """What the RoI heads say about the proposals of a batch.

    Attributes:
        rows: the numbers of the proposals that the heads got, if the proposals of all images were numbered together.
        boxes: [regions, 4], xyxy, pixels of the resized image.
        image: int64 [regions], ascending.
        real: bool [regions]; False for padding of images with fewer proposals.
        logits: [regions, classes].
        codes: [regions, classes, 4], boxes relative to `boxes`.
    """

    rows: Tensor | slice
    boxes: Tensor
    image: Tensor
    real: Tensor
    logits: Tensor
    codes: Tensor


class BatchDetector(FasterRCNN):
    """torchvision's model, which can be called with a `Batch` as well as with lists of images and targets.

    In training mode a `Batch` gives torchvision's losses, with the same mathematics for all images at once. On a GPU
    the CPU waits in NMS, if the box head has batch norm, if there are very many RoIs (`MOST_TAPS` of RoIAlign), and
    for the first batch of each shape.

    Attributes:
        size: the sizes after the resize.
    """

    rpn: ProposalNetwork

    def __init__(self, backbone: nn.Module, *, size: ModelConfig, **given: Any) -> None:
        """Build torchvision's model with the sizes of a configuration; `given` are torchvision's arguments."""
        square = None if size.fixed_size is None else (size.fixed_size, size.fixed_size)
        super().__init__(
            backbone,
            min_size=size.min_size,
            max_size=size.max_size,
            **({} if square is None else {"fixed_size": square}),
            **given,
        )
        self.size = size

    def forward(self, images: Any, targets: Any = None) -> Any:
        """The losses of a `Batch`, by torchvision's names; otherwise as in torchvision."""
        if not isinstance(images, Batch):
            return super().forward(images, targets)
        inputs = self.inputs(images)
        features = self.backbone(inputs.images)
        output = self.rpn.run(inputs, list(features.values()))
        found = self.rpn.propose(output, inputs)
        return self.rpn.losses(output, inputs, self.keys) | self._drawn_losses(inputs, features, found)

    def inputs(self, batch: Batch) -> Inputs:
        """A batch after the resize."""
        transform, dtype = self.transform, next(self.parameters()).dtype
        return resize(batch, self.size, transform.image_mean, transform.image_std, dtype)

    def keys(self, shape: torch.Size) -> Tensor:
        """Random numbers in [0, 1), which choose the anchors and proposals of the losses."""
        return torch.rand(shape, device=next(self.parameters()).device)

    def detect(self, inputs: Inputs, *, with_loss: bool = False) -> tuple[Regions, Tensor | None]:
        """Everything that the network says about a batch, in evaluation mode, and the sum of its four losses.

        The losses are those of the same forward pass: the proposals are those of an evaluation, without the annotated
        boxes. Each anchor and proposal counts as much as it does on average over torchvision's random samples, so the
        loss is not random.
        """
        features = self.backbone(inputs.images)
        output = self.rpn.run(inputs, list(features.values()))
        found = self.rpn.propose(output, inputs)
        regions = self._regions(features, found)
        return regions, self._expected_loss(inputs, output, found, regions) if with_loss else None

    def _regions(self, features: dict[str, Tensor], found: Proposals) -> Regions:
        images, most = found.real.shape
        image = torch.arange(images, device=found.boxes.device)[:, None].expand(-1, most)
        rows: Tensor | slice = slice(None)
        if self._counts_every_row or not must_not_wait(found.boxes.device):
            rows = found.real.flatten().nonzero()[:, 0]  # the other rows would cost time, or enter batch norm's mean
        boxes, image, real = (one.flatten(0, 1)[rows] for one in (found.boxes, image, found.real))
        heads = self.roi_heads
        pool: PyramidRoIAlign = heads.box_roi_pool
        logits, codes = heads.box_predictor(heads.box_head(pool.of_rois(features, boxes, image)))
        return Regions(rows, boxes, image, real, logits, codes.view(*logits.shape, 4))

    @property
    def _counts_every_row(self) -> bool:
        norms = nn.modules.batchnorm._BatchNorm
        return any(isinstance(part, norms) for part in self.roi_heads.box_head.modules())

    def _drawn_losses(
        self, inputs: Inputs, features: dict[str, Tensor], every: Proposals, *, with_boxes: bool = True
    ) -> Losses:
        """Torchvision's two losses of the RoI heads on sampled proposals; the annotated boxes are proposals, too.

        Source:
            torchvision `RoIHeads.select_training_samples`.
        """
        sampler = self.roi_heads.fg_bg_sampler
        if with_boxes:
            real = torch.cat([every.real, inputs.labels > 0], dim=1)
            every = Proposals(torch.cat([every.boxes, inputs.boxes], dim=1), real)
        assigned = self._assign(inputs, every)
        keys = self.keys(every.real.shape)
        drawn = draw(assigned, sampler.batch_size_per_image, sampler.positive_fraction, keys)
        some = Proposals(take(every.boxes, drawn.rows), drawn.used)
        regions = self._regions(features, some)
        box = assigned.box.gather(1, drawn.rows)
        total = drawn.used.sum().clamp(min=1)
        return self._region_losses(inputs, regions, some.boxes, box, drawn.foreground, drawn.used / total)

    def _expected_loss(self, inputs: Inputs, output: RpnOutput, found: Proposals, regions: Regions) -> Tensor:
        """The sum of the four losses, see `detect`."""
        sampler = self.roi_heads.fg_bg_sampler
        assigned = self._assign(inputs, found)
        chance, total = expected(assigned, sampler.batch_size_per_image, sampler.positive_fraction)
        weight = chance / total.clamp(min=1)
        mine = self._region_losses(inputs, regions, found.boxes, assigned.box, assigned.foreground, weight)
        return torch.stack([*self.rpn.losses(output, inputs, None).values(), *mine.values()]).sum()

    def _assign(self, inputs: Inputs, found: Proposals) -> Assignment:
        matcher = self.roi_heads.proposal_matcher
        assigned = assign(
            inputs.boxes,
            inputs.labels > 0,
            found.boxes,
            foreground_iou=matcher.high_threshold,
            background_iou=matcher.low_threshold,
            best_of_each_box=False,
        )
        return Assignment(assigned.foreground & found.real, assigned.background & found.real, assigned.box)

    def _region_losses(
        self, inputs: Inputs, regions: Regions, boxes: Tensor, box: Tensor, foreground: Tensor, weight: Tensor
    ) -> Losses:
        """Torchvision's two losses of the RoI heads.

        Args:
            inputs: the batch.
            regions: the output of the heads for `boxes`.
            boxes: proposals [images, num, 4].
            box: int64 [images, num]: the annotated box of each.
            foreground: bool [images, num].
            weight: [images, num]: how much each counts in both losses.

        Source:
            torchvision `fastrcnn_loss`.
        """
        matched = take(inputs.boxes, box)
        wanted = encode(matched, boxes, self.roi_heads.box_coder.weights)
        label = inputs.labels.gather(1, box) * foreground
        wanted, label, weight = (one.flatten(0, 1)[regions.rows] for one in (wanted, label, weight))
        scored = functional.cross_entropy(regions.logits, label, reduction="none")
        codes = regions.codes.gather(1, label[:, None, None].expand(-1, 1, 4))[:, 0]
        moved = box_loss(codes, wanted, label > 0, weight)
        return {"loss_classifier": (scored * weight).sum(), "loss_box_reg": moved}
