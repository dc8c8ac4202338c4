"""Runs a model on images: raw detections, before NMS and thresholds of the configuration, and the loss."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from digits_core.data.batches import Batch
from digits_core.data.coco import starts_of
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import rank_within
from digits_core.model.boxes import clip, decode
from digits_core.model.detector import BatchDetector

SCORE_FLOOR = 0.01
"""Detections with this score or less are dropped: they change COCO AP by less than 0.001."""

MAX_CANDIDATES = 1000
"""Raw detections kept per image, best scores first; an untrained model gives many thousands."""

MIN_SIDE_PX = 0.01
"""torchvision's limit: boxes with a shorter side, in pixels of the resized image, are removed before NMS."""


@torch.inference_mode()
def detect_raw(
    model: BatchDetector, batch: Batch, *, floor: float = SCORE_FLOOR, with_loss: bool = False
) -> tuple[Candidates, float | None]:
    """Run the model on one batch, without its NMS and thresholds.

    Args:
        model: in evaluation mode.
        batch: on the model's device; its boxes are used for the loss only.
        floor: only detections with a score above it are kept.
        with_loss: compute the loss too.

    Returns:
        Raw detections, and the sum of the four losses (`BatchDetector.detect`); None if it is not asked for.

    Source:
        torchvision `RoIHeads.postprocess_detections`, up to its score filter and small-box removal.
    """
    inputs = model.inputs(batch)
    regions, loss = model.detect(inputs, with_loss=with_loss)
    scores = regions.logits.float().softmax(dim=-1)[:, 1:]
    above = (scores > floor) & regions.real[:, None]
    row, label = above.nonzero().unbind(1)
    image = regions.image[row]
    boxes = decode(regions.codes[row, label + 1].float(), regions.boxes[row].float(), regions.coder)
    boxes = clip(boxes, inputs.sides[image])
    found = _sorted(boxes.cpu().numpy(), scores[row, label].cpu().numpy(), image.cpu().numpy(), label.cpu().numpy() + 1)
    start = starts_of(np.bincount(found[2], minlength=len(batch)))
    scale = np.tile((batch.sizes / inputs.sizes).astype(np.float32), 2)
    return Candidates(start, found[0], found[1], found[3], scale), None if loss is None else float(loss)


def _sorted(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], image: NDArray[np.int64], label: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Without small boxes, by image and then by score, best first; the best `MAX_CANDIDATES` of each image."""
    solid = np.flatnonzero(((boxes[:, 2:] - boxes[:, :2]) >= np.float32(MIN_SIDE_PX)).all(axis=1))
    rows = solid[np.lexsort((-scores[solid], image[solid]))]
    rows = rows[rank_within(image[rows]) < MAX_CANDIDATES]
    return boxes[rows], scores[rows], image[rows], label[rows]


def batches_by_shape(sizes: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]", batch_size: int) -> Iterator[list[int]]:
    """Image indices in batches of similar aspect ratios, so that batches need little padding.

    Args:
        sizes: int32 [num_images, 2], width and height.
        batch_size: images per batch.
    """
    order = np.argsort(sizes[:, 0] / sizes[:, 1], kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
