"""A model's scores on one split: one pass of the model, one match table a task, all scores from those."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torchvision.models.detection import FasterRCNN

from digits_core.config.train_config import DetectConfig
from digits_core.data.augment import Sample
from digits_core.data.batches import load_batch
from digits_core.data.cache import Split
from digits_core.evaluation.detect import batches_by_shape, detect_raw
from digits_core.evaluation.matching import Candidates, NmsSetting, match
from digits_core.evaluation.metrics import MatchTable, Scores, Truth, score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on one split.

    Attributes:
        found: raw detections, for whatever acts after training.
        task1, task2: the match tables at the two tasks' NMS, all scores above the floor.
        scores: at the two tasks' settings.
        loss: mean over the images of torchvision's four losses' sum.
    """

    found: Candidates
    task1: MatchTable
    task2: MatchTable
    scores: Scores
    loss: float


def evaluate(
    model: FasterRCNN,
    split: Split,
    detect: DetectConfig,
    floor: float,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> Evaluation:
    """Score a model on a split.

    Args:
        model: put into evaluation mode for the time and back into its own after; nothing else of it changes.
        split: annotated images.
        detect: the two tasks' settings.
        floor: raw detections are cut at it, or at a lower threshold of `detect`.
        batch_size: images per batch.
        device: where the model is.
        dtype: arithmetic of the forward pass.
        change: what is done to each image before, without moving its boxes (`augment.Processing`).
    """
    found, loss = detect_split(
        model,
        split,
        min(floor, detect.task1.score, detect.task2.score),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        change=change,
    )
    task1, task2 = match_tasks(found, split, detect)
    truth = Truth.from_table(split.table, detect.reading)
    return Evaluation(found, task1, task2, score(task1, task2, truth, detect), loss)


def detect_split(
    model: FasterRCNN,
    split: Split,
    floor: float,
    *,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> tuple[Candidates, float]:
    """Raw detections of every image of a split, in its order, strictly above the score `floor`; and the loss."""
    found: list[Candidates | None] = [None] * len(split)
    total = 0.0
    training = model.training
    model.eval()
    try:
        for indices in batches_by_shape(split.table.sizes, batch_size):
            images, targets = load_batch(split, indices, device, change)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                some, loss = detect_raw(model, images, targets, floor=floor)
            total += (loss or 0.0) * len(indices)
            for index, one in zip(indices, some.split(), strict=True):
                found[index] = one
    finally:
        model.train(training)
    return Candidates.join([one for one in found if one is not None]), total / len(split)


def match_tasks(found: Candidates, split: Split, detect: DetectConfig) -> tuple[MatchTable, MatchTable]:
    """The match tables at the two tasks' NMS."""
    settings = [NmsSetting(task.nms, task.class_agnostic) for task in (detect.task1, detect.task2)]
    matches = match(found, split.table, settings)
    return MatchTable.of(found, matches, 0), MatchTable.of(found, matches, 1)
