"""A model over images: raw detections, before any threshold of the config; and what a task keeps of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN
from torchvision.ops import batched_nms, clip_boxes_to_image, nms, remove_small_boxes

from digits_core.cache import Pixels
from digits_core.config import TaskConfig

SCORE_FLOOR = 0.01
"""Detections at or under it are dropped at once: they move COCO AP by less than its third decimal."""

MIN_SIDE_PX = 0.01
"""torchvision's own limit: thinner boxes, in resized pixels, are removed before NMS."""


@dataclass(frozen=True, slots=True)
class RawDetections:
    """The decoded, clipped boxes of every class above the floor, of one image, before NMS.

    Attributes:
        boxes: float32 [num, 4], xyxy, pixels of the resized image (where torchvision does its NMS).
        scores: float32 [num], (0, 1].
        labels: int64 [num], category ids.
        scale: float32 [4]; boxes times scale lie in the original image.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    scale: Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """What a task keeps of one image: boxes xyxy in original pixels, best score first."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def to_tensor(pixels: Pixels) -> Tensor:
    """float32 [3, height, width] in [0, 1] from uint8 [height, width, 3]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


@torch.inference_mode()
def detect_raw(model: FasterRCNN, images: Sequence[Tensor], *, floor: float = SCORE_FLOOR) -> list[RawDetections]:
    """Run the model on one batch and stop before its thresholds.

    Args:
        model: in evaluation mode.
        images: float32 [3, height, width] in [0, 1], of any sizes, on the model's device.
        floor: scores must lie strictly above it.

    Returns:
        Raw detections per image, on the CPU.

    Source:
        torchvision `RoIHeads.postprocess_detections`, up to its score filter and small-box removal.
    """
    original = [(image.shape[-2], image.shape[-1]) for image in images]
    batch, _ = model.transform(list(images))
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    heads = model.roi_heads
    pooled = heads.box_roi_pool(features, proposals, batch.image_sizes)
    class_logits, box_regression = heads.box_predictor(heads.box_head(pooled))
    boxes = heads.box_coder.decode(box_regression.float(), proposals).cpu()
    boxes = boxes.reshape(*class_logits.shape, 4)  # without any proposal, torchvision's decoder loses the shape
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
        wide, tall = size[1] / resized[1], size[0] / resized[0]
        found.append(
            RawDetections(
                kept[solid],
                image_scores[rows, labels][solid],
                labels[solid],
                torch.tensor([wide, tall, wide, tall], dtype=torch.float32),
            )
        )
    return found


def keep(raw: RawDetections, task: TaskConfig) -> Detections:
    """Apply a task's score threshold, NMS and top-k, in torchvision's order.

    `raw` must have been cut at a floor no higher than the task's score.
    """
    above = raw.scores > task.score
    boxes, scores, labels = raw.boxes[above], raw.scores[above], raw.labels[above]
    kept = nms(boxes, scores, task.nms) if task.class_agnostic else batched_nms(boxes, scores, labels, task.nms)
    kept = kept[: task.max_detections]
    return Detections(boxes[kept] * raw.scale, scores[kept], labels[kept])


def batches_by_shape(sizes: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]", batch_size: int) -> Iterator[list[int]]:
    """Image indices in batches of like aspect ratios, so that little is padded.

    Args:
        sizes: int32 [num_images, 2], width and height.
        batch_size: images per batch.
    """
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
