"""Runs a model on images: raw detections, before NMS and thresholds of the configuration, and the losses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from digits_core.evaluation.matching import Candidates

SCORE_FLOOR = 0.01
"""Detections with this score or less are dropped: they change COCO AP by less than 0.001."""

MAX_CANDIDATES = 1000
"""Raw detections kept per image, best scores first; an untrained model gives many thousands."""

MIN_SIDE_PX = 0.01
"""torchvision's limit: boxes with a shorter side, in pixels of the resized image, are removed before NMS."""

LOSS_SEED = 20_210_811
"""Seed for the sampled anchors and proposals of a validation loss; independent of the seed of the training."""

Features = dict[str, Tensor]


@torch.inference_mode()
def detect_raw(
    model: FasterRCNN,
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]] | None = None,
    *,
    floor: float = SCORE_FLOOR,
) -> tuple[Candidates, float | None]:
    """Run the model on one batch, without its NMS and thresholds.

    Args:
        model: in evaluation mode.
        images: float32 [3, height, width] in [0, 1], of any sizes, on the model's device.
        targets: `boxes` float32 [num, 4] and `labels` int64 [num] of each image, to compute the loss too.
        floor: only detections with a score above it are kept.

    Returns:
        Raw detections, and the sum of torchvision's four losses, which is None without targets.

    Source:
        torchvision `RoIHeads.postprocess_detections`, up to its score filter and small-box removal.
    """
    original = [(image.shape[-2], image.shape[-1]) for image in images]
    batch, resized_targets = model.transform(list(images), None if targets is None else list(targets))
    features = model.backbone(batch.tensors)
    rpn = _run_rpn(model, batch, features)
    proposals = rpn.proposals(model, batch)
    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
    class_logits, box_regression = heads.box_predictor(heads.box_head(pooled))
    boxes = heads.box_coder.decode(box_regression.float(), proposals).cpu()
    boxes = boxes.reshape(*class_logits.shape, 4)  # torchvision's decoder loses the shape if there are no proposals
    scores = class_logits.float().softmax(dim=-1).cpu()
    counts = [len(some) for some in proposals]
    found = []
    for image_boxes, image_scores, resized, size in zip(
        boxes.split(counts), scores.split(counts), batch.image_sizes, original, strict=True
    ):
        rows, classes = torch.nonzero(image_scores[:, 1:] > floor, as_tuple=True)
        labels = classes + 1
        kept = clip_boxes_to_image(image_boxes[rows, labels], resized)
        solid = remove_small_boxes(kept, MIN_SIDE_PX)
        best = image_scores[rows, labels][solid].argsort(descending=True, stable=True)[:MAX_CANDIDATES]
        solid = solid[best.sort().values]
        wide, tall = size[1] / resized[1], size[0] / resized[0]
        found.append(
            (
                kept[solid].numpy(),
                image_scores[rows, labels][solid].numpy(),
                labels[solid].numpy(),
                np.array([wide, tall, wide, tall], dtype=np.float32),
            )
        )
    loss = None if resized_targets is None else _loss(model, batch, features, rpn, resized_targets)
    return Candidates.of_images(found), loss


@dataclass(frozen=True, slots=True)
class _Rpn:
    """The output of the RPN for one batch, before proposals are selected."""

    anchors: list[Tensor]
    per_level: list[int]
    objectness: Tensor
    deltas: Tensor

    def proposals(self, model: FasterRCNN, batch: ImageList) -> list[Tensor]:
        """The proposals of each image; the RPN's mode (training or not) determines how many."""
        decoded = model.rpn.box_coder.decode(self.deltas, self.anchors).view(len(self.anchors), -1, 4)
        boxes, _ = model.rpn.filter_proposals(decoded, self.objectness, batch.image_sizes, self.per_level)
        return list(boxes)


def _run_rpn(model: FasterRCNN, batch: ImageList, features: Features) -> _Rpn:
    """The first half of torchvision's `RegionProposalNetwork.forward`, used by both detections and loss."""
    levels = list(features.values())
    objectness, deltas = model.rpn.head(levels)
    anchors = model.rpn.anchor_generator(batch, levels)
    per_level = [one[0].numel() for one in objectness]
    return _Rpn(anchors, per_level, *concat_box_prediction_layers(objectness, deltas))


def _loss(
    model: FasterRCNN, batch: ImageList, features: Features, rpn: _Rpn, targets: list[dict[str, Tensor]]
) -> float:
    """The sum of the four losses for features of the model in evaluation mode.

    torchvision computes losses only in training mode. Here only the RPN and the RoI heads are set to training mode, not
    the layers in them: batch norm uses its running statistics and does not change them.
    """
    parts = (model.rpn, model.roi_heads)
    devices = [batch.tensors.device] if batch.tensors.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(LOSS_SEED)
        try:
            for part in parts:
                part.training = True
            labels, matched = model.rpn.assign_targets_to_anchors(rpn.anchors, targets)
            wanted = model.rpn.box_coder.encode(matched, rpn.anchors)
            rpn_losses = model.rpn.compute_loss(rpn.objectness, rpn.deltas, labels, wanted)
            proposals = rpn.proposals(model, batch)
            _, roi_losses = model.roi_heads(features, proposals, batch.image_sizes, targets)
        finally:
            for part in parts:
                part.training = False
    return sum(float(loss) for loss in (*rpn_losses, *roi_losses.values()))


def batches_by_shape(sizes: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]", batch_size: int) -> Iterator[list[int]]:
    """Image indices in batches of similar aspect ratios, so that batches need little padding.

    Args:
        sizes: int32 [num_images, 2], width and height.
        batch_size: images per batch.
    """
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
