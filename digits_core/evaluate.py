"""A model's scores on one split: COCO AP by torchmetrics, and whole numbers read right."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.models.detection import FasterRCNN

from digits_core.cache import Split
from digits_core.config import DetectConfig, TaskConfig
from digits_core.detect import (
    Detections,
    RawDetections,
    batches_by_shape,
    detect_raw,
    keep,
    to_tensor,
)
from digits_core.transcribe import read_number

# torchmetrics' own defaults are float32: a recall of exactly 3/5 would then miss the threshold 0.6, and AP
# differ from pycocotools' in the second decimal where there are few boxes.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101).tolist()


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one split, each in [0, 1]; None where nothing could be measured.

    Attributes:
        map: COCO AP averaged over IoU .50:.95.
        map_50: AP at IoU .50.
        map_75: AP at IoU .75.
        number_accuracy: share of images whose whole number is read right.
    """

    map: float | None
    map_50: float | None
    map_75: float | None
    number_accuracy: float | None

    def named(self, metric: str) -> float | None:
        """A score by its name in reports: `val_map`, `val_map_50` or `val_number_accuracy`."""
        value: float | None = getattr(self, metric.removeprefix("val_"))
        return value


def detect_split(
    model: FasterRCNN, split: Split, floor: float, *, batch_size: int, device: torch.device, dtype: torch.dtype
) -> list[RawDetections]:
    """Raw detections of every image of a split, in its order, strictly above the score `floor`.

    The model is put into evaluation mode for the time and back into its own after.
    """
    found: list[RawDetections | None] = [None] * len(split)
    training = model.training
    model.eval()
    try:
        for indices in batches_by_shape(split.table.sizes, batch_size):
            images = [to_tensor(split.image(index)).to(device) for index in indices]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                raw = detect_raw(model, images, floor=floor)
            for index, detections in zip(indices, raw, strict=True):
                found[index] = detections
    finally:
        model.train(training)
    return [raw for raw in found if raw is not None]


def score_split(raw: list[RawDetections], split: Split, detect: DetectConfig) -> Scores:
    """Score raw detections at the two tasks' settings."""
    boxes = score_boxes([keep(one, detect.task1) for one in raw], split, detect.task1)
    return Scores(*boxes, number_accuracy(raw, split, detect.task2))


def score_boxes(
    kept: list[Detections], split: Split, task: TaskConfig
) -> tuple[float | None, float | None, float | None]:
    """AP at .50:.95, .50 and .75 of kept detections against a split's annotations.

    Source:
        torchmetrics `MeanAveragePrecision` with the faster_coco_eval backend (COCO's rules, crowds ignored).
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        iou_thresholds=IOU_THRESHOLDS,
        rec_thresholds=RECALL_THRESHOLDS,
        max_detection_thresholds=[1, 10, max(100, task.max_detections)],
    )
    metric.warn_on_many_detections = False
    table = split.table
    targets, predictions = [], []
    for index, detections in enumerate(kept):
        mine = slice(int(table.box_start[index]), int(table.box_start[index + 1]))
        targets.append(
            {
                "boxes": torch.from_numpy(table.boxes[mine]),
                "labels": torch.from_numpy(table.labels[mine]),
                "iscrowd": torch.from_numpy(table.crowds[mine].astype(np.int64)),
            }
        )
        predictions.append({"boxes": detections.boxes, "scores": detections.scores, "labels": detections.labels})
    metric.update(predictions, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics warns of splits without one of the sizes
        result = metric.compute()
    return _value(result["map"]), _value(result["map_50"]), _value(result["map_75"])


def number_accuracy(raw: list[RawDetections], split: Split, task: TaskConfig) -> float | None:
    """Share of images whose number, read from Task 2's detections, equals the annotated one."""
    table = split.table
    right = 0
    for index, one in enumerate(raw):
        mine = slice(int(table.box_start[index]), int(table.box_start[index + 1]))
        solid = ~table.crowds[mine]
        kept = keep(one, task)
        right += read_number(kept.boxes.numpy(), kept.labels.numpy()) == read_number(
            table.boxes[mine][solid], table.labels[mine][solid]
        )
    return right / len(raw) if raw else None


def _value(tensor: torch.Tensor) -> float | None:
    """COCO's -1 (no ground truth) and NaN are None."""
    number = float(tensor)
    return number if number >= 0 else None
