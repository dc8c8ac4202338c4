"""A model's scores on one split, from one pass of the model and one match table per task."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from digits_core.config.train_config import DetectConfig
from digits_core.data.augment import Sample
from digits_core.data.batches import load_batch
from digits_core.data.cache import Split
from digits_core.evaluation.common_height import with_common_height
from digits_core.evaluation.detect import batches_by_shape, detect_raw
from digits_core.evaluation.fusion import fuse
from digits_core.evaluation.matching import Candidates, NmsSetting, match
from digits_core.evaluation.merged_boxes import with_merged_boxes
from digits_core.evaluation.metrics import MatchTable, Scores, Truth, score
from digits_core.evaluation.soft_nms import with_soft_scores
from digits_core.model.detector import BatchDetector


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of one model on one split.

    Attributes:
        found: raw detections, to which NMS and thresholds can still be applied.
        task1, task2: the match tables with the NMS of each task; all detections above the floor.
        scores: with NMS and thresholds of the two tasks.
        loss: sum of the four losses (`BatchDetector.detect`), mean over the images.
    """

    found: Candidates
    task1: MatchTable
    task2: MatchTable
    scores: Scores
    loss: float


def evaluate(
    model: BatchDetector,
    split: Split,
    detect: DetectConfig,
    floor: float,
    *,
    batch_size: int,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> Evaluation:
    """Score a model on a split.

    Args:
        model: runs in evaluation mode on its own device; its mode is restored afterwards.
        split: annotated images.
        detect: NMS and thresholds of the two tasks.
        floor: only raw detections above it are kept; a lower threshold in `detect` lowers it.
        batch_size: images per batch.
        dtype: of the forward pass.
        change: preprocessing of each image that does not move its boxes (`augment.Processing`).
    """
    floor = min(floor, detect.task1.score, detect.task2.score)
    raw, loss = detect_split(model, split, floor, batch_size=batch_size, dtype=dtype, change=change)
    return evaluate_found(refined(raw, detect), split, detect, loss)


def evaluate_found(found: Candidates, split: Split, detect: DetectConfig, loss: float) -> Evaluation:
    """Score the detections of a model before NMS (`refined`); `loss` is stored with the scores."""
    task1, task2 = match_tasks(found, split, detect)
    truth = Truth.from_table(split.table, detect.reading)
    return Evaluation(found, task1, task2, score(task1, task2, truth, detect), loss)


def refined(found: Candidates, detect: DetectConfig) -> Candidates:
    """Raw detections with the changes of `detect` that come before NMS."""
    if detect.box_merge:
        found = with_merged_boxes(found, detect.box_merge)
    if detect.box_fusion:
        found = fuse([found], [1.0], detect.box_fusion)
    if detect.common_height:
        found = with_common_height(found)
    return with_soft_scores(found, detect.soft_nms) if detect.soft_nms else found


def detect_split(
    model: BatchDetector,
    split: Split,
    floor: float,
    *,
    batch_size: int,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> tuple[Candidates, float]:
    """Raw detections with scores above `floor`, in the order of the split's images, and the mean loss."""
    device = next(model.parameters()).device
    found: list[Candidates | None] = [None] * len(split)
    total = 0.0
    training = model.training
    model.eval()
    try:
        for indices in batches_by_shape(split.table.sizes, batch_size):
            batch = load_batch(split, indices, device, change)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                some, loss = detect_raw(model, batch, floor=floor, with_loss=True)
            total += (loss or 0.0) * len(indices)
            for index, one in zip(indices, some.split(), strict=True):
                found[index] = one
    finally:
        model.train(training)
    return Candidates.join([one for one in found if one is not None]), total / len(split)


def match_tasks(found: Candidates, split: Split, detect: DetectConfig) -> tuple[MatchTable, MatchTable]:
    """The match tables with the NMS of each task."""
    settings = [NmsSetting(task.nms, task.class_agnostic) for task in (detect.task1, detect.task2)]
    matches = match(found, split.table, settings)
    return MatchTable.of(found, matches, 0), MatchTable.of(found, matches, 1)
