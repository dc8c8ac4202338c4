"""A torchvision Faster R-CNN that also works on a whole batch at once instead of image by image."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN

from digits_core.config.train_config import ModelConfig
from digits_core.data.batches import Batch
from digits_core.devices import must_not_wait
from digits_core.model.box_loss import Weights, box_loss
from digits_core.model.boxes import clip, decode, take
from digits_core.model.cascade import Stage, best_codes
from digits_core.model.region_proposals import ProposalNetwork, Proposals
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
        coder: the weights of the codes.
    """

    rows: Tensor | slice
    boxes: Tensor
    image: Tensor
    real: Tensor
    logits: Tensor
    codes: Tensor
    coder: Weights


class BatchDetector(FasterRCNN):
    """torchvision's model, which can be called with a `Batch` as well as with lists of images and targets.

    In training mode a `Batch` gives torchvision's losses, with the same mathematics for all images at once. On a GPU
    the CPU waits in NMS, if the box head has batch norm, if there are very many RoIs (`MOST_TAPS` of RoIAlign), and
    for the first batch of each shape.

    Only a call with a `Batch` uses the parameters of the configuration that torchvision does not have: the box loss,
    label smoothing, box jitter and the further stages of a cascade.

    Attributes:
        config: the sizes after the resize, and the parameters that torchvision does not have.
        cascade: the stages of the RoI heads after the first one.
    """

    rpn: ProposalNetwork

    def __init__(self, backbone: nn.Module, *, config: ModelConfig, **given: Any) -> None:
        """Build torchvision's model with the sizes of a configuration; `given` are torchvision's arguments."""
        square = None if config.fixed_size is None else (config.fixed_size, config.fixed_size)
        super().__init__(
            backbone,
            min_size=config.min_size,
            max_size=config.max_size,
            **({} if square is None else {"fixed_size": square}),
            **given,
        )
        self.config = config
        self.cascade: Any = nn.ModuleList()  # of Stage

    def forward(self, images: Any, targets: Any = None) -> Any:
        """The losses of a `Batch`, by torchvision's names; otherwise as in torchvision."""
        if not isinstance(images, Batch):
            if self.cascade:
                raise NotImplementedError("a cascade takes a Batch; a list of images would skip its further stages")
            return super().forward(images, targets)
        inputs = self.inputs(images)
        features = self.backbone(inputs.images)
        output = self.rpn.run(inputs, list(features.values()))
        found = self.rpn.propose(output, inputs)
        return self.rpn.losses(output, inputs, self.keys) | self._drawn_losses(inputs, features, found)

    def inputs(self, batch: Batch) -> Inputs:
        """A batch after the resize."""
        transform, dtype = self.transform, next(self.parameters()).dtype
        return resize(batch, self.config, transform.image_mean, transform.image_std, dtype)

    def keys(self, shape: torch.Size) -> Tensor:
        """Random numbers in [0, 1), which choose the anchors and proposals of the losses and move boxes."""
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
        loss = None
        if with_loss:
            assigned = self._assign(inputs, found)
            sampler = self.roi_heads.fg_bg_sampler
            chance, total = expected(assigned, sampler.batch_size_per_image, sampler.positive_fraction)
            weight = chance / total.clamp(min=1)
            mine = self._region_losses(inputs, regions, found.boxes, assigned.box, assigned.foreground, weight)
            loss = torch.stack([*self.rpn.losses(output, inputs, None).values(), *mine.values()]).sum()
        if not self.cascade:
            return regions, loss
        probabilities = [regions.logits.float().softmax(dim=1)]
        for stage in self.cascade:
            found, regions = self._next_stage(inputs, features, found, regions, stage)
            probabilities.append(regions.logits.float().softmax(dim=1))
            if loss is not None:
                loss += torch.stack([*self._stage_losses(inputs, found, regions, weight, stage).values()]).sum()
        mean = torch.stack(probabilities).mean(dim=0)  # the softmax of its logarithm is the mean again
        return replace(regions, logits=mean.log()), loss

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
        return Regions(rows, boxes, image, real, logits, codes.view(*logits.shape, 4), heads.box_coder.weights)

    def _next_stage(
        self, inputs: Inputs, features: dict[str, Tensor], before: Proposals, regions: Regions, stage: Stage
    ) -> tuple[Proposals, Regions]:
        """The boxes that a stage of the cascade gets from the one before, and what it says about them.

        Args:
            inputs: the batch.
            features: of the pyramid.
            before: the proposals of the stage before.
            regions: the output of the stage before.
            stage: the next stage.

        Source:
            Cai and Vasconcelos 2018, Cascade R-CNN: all boxes of a stage go to the next one.
        """
        codes = best_codes(regions.logits, regions.codes).float()
        boxes = clip(decode(codes, regions.boxes.float(), regions.coder), inputs.sides[regions.image].float())
        boxes = boxes.detach().to(regions.boxes.dtype)
        every = before.boxes.detach().flatten(0, 1).clone()
        every[regions.rows] = boxes
        pool: PyramidRoIAlign = self.roi_heads.box_roi_pool
        logits, codes = stage(pool.of_rois(features, boxes, regions.image))
        moved = replace(regions, boxes=boxes, logits=logits, codes=codes, coder=stage.coder_weights)
        return Proposals(every.view_as(before.boxes), before.real), moved

    def _stage_losses(self, inputs: Inputs, found: Proposals, regions: Regions, weight: Tensor, stage: Stage) -> Losses:
        """The two losses of a stage of the cascade; `weight` [images, num] as for `_region_losses`."""
        assigned = self._assign(inputs, found, stage.iou)
        losses = self._region_losses(inputs, regions, found.boxes, assigned.box, assigned.foreground, weight)
        return {name: loss * stage.loss_weight for name, loss in losses.items()}

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
            every = Proposals(torch.cat([every.boxes, self._jittered(inputs)], dim=1), real)
        assigned = self._assign(inputs, every)
        keys = self.keys(every.real.shape)
        drawn = draw(assigned, sampler.batch_size_per_image, sampler.positive_fraction, keys)
        some = Proposals(take(every.boxes, drawn.rows), drawn.used)
        regions = self._regions(features, some)
        box = assigned.box.gather(1, drawn.rows)
        weight = drawn.used / drawn.used.sum().clamp(min=1)
        losses = self._region_losses(inputs, regions, some.boxes, box, drawn.foreground, weight)
        for stage in self.cascade:
            some, regions = self._next_stage(inputs, features, some, regions, stage)
            more = self._stage_losses(inputs, some, regions, weight, stage)
            losses = {name: loss + more[name] for name, loss in losses.items()}
        return losses

    def _jittered(self, inputs: Inputs) -> Tensor:
        """The annotated boxes [images, boxes, 4], each side moved by up to `box_jitter` of the width or height."""
        boxes, jitter = inputs.boxes, self.config.box_jitter
        if not jitter:
            return boxes
        sides = (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
        moves = (2 * self.keys(boxes.shape).to(boxes.dtype) - 1) * jitter
        return clip(boxes + moves * sides, inputs.sides[:, None])

    def _assign(self, inputs: Inputs, found: Proposals, iou: float | None = None) -> Assignment:
        """The annotated boxes of the proposals; `iou` replaces both thresholds of the first stage."""
        matcher = self.roi_heads.proposal_matcher
        assigned = assign(
            inputs.boxes,
            inputs.labels > 0,
            found.boxes,
            foreground_iou=matcher.high_threshold if iou is None else iou,
            background_iou=matcher.low_threshold if iou is None else iou,
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
        label = inputs.labels.gather(1, box) * foreground
        matched, boxes, label, weight = (one.flatten(0, 1)[regions.rows] for one in (matched, boxes, label, weight))
        smoothing = self.config.label_smoothing
        scored = functional.cross_entropy(regions.logits, label, reduction="none", label_smoothing=smoothing)
        codes = regions.codes.gather(1, label[:, None, None].expand(-1, 1, 4))[:, 0]
        moved = box_loss(self.config, codes, matched, boxes, label > 0, weight, regions.coder)
        return {"loss_classifier": (scored * weight).sum(), "loss_box_reg": moved}
