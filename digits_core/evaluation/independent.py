"""mAP by torchmetrics: an independent check of our own."""

from typing import Any

import numpy as np

from digits_core.config.train_config import DetectConfig
from digits_core.evaluation.metrics import MatchTable, Truth

MOST = 100
"""Detections of an image that torchmetrics counts."""


def torchmetrics_map(table: MatchTable, truth: Truth, detect: DetectConfig) -> float | None:
    """COCO mAP of Task 1's detections by `torchmetrics.detection.MeanAveragePrecision`.

    Args:
        table: the match table of Task 1's NMS, all scores above the floor; only its detections are used.
        truth: what is annotated, with boxes and crowds.
        detect: for Task 1's score threshold and detections per image.

    Returns:
        mAP over IoU .50:.95 in [0, 1]; None without an annotated digit, without annotated boxes, or with more than
        100 detections in an image.
    """
    kept = table.above(detect.task1.score, detect.task1.max_detections)
    if truth.boxes is None or truth.crowds is None or not len(truth.labels) or (kept.rank >= MOST).any():
        return None
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    def tensor(values: Any, kind: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(kind)

    crowds = truth.crowds
    image = np.concatenate([truth.image, crowds.image])
    annotated = {
        "boxes": np.concatenate([truth.boxes, crowds.boxes]),
        "labels": np.concatenate([truth.labels, crowds.labels]),
        "iscrowd": np.repeat([0, 1], [len(truth.labels), len(crowds.labels)]),
    }
    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_type="bbox",
        backend="pycocotools",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),  # COCO's; torchmetrics itself rounds them to float32
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
    )
    for number in range(truth.num_images):
        mine, theirs = kept.image == number, image == number
        metric.update(
            [
                {
                    "boxes": tensor(kept.boxes[mine], torch.float32),
                    "scores": tensor(kept.scores[mine], torch.float32),
                    "labels": tensor(kept.labels[mine], torch.int64),
                }
            ],
            [
                {
                    "boxes": tensor(annotated["boxes"][theirs], torch.float32),
                    "labels": tensor(annotated["labels"][theirs], torch.int64),
                    "iscrowd": tensor(annotated["iscrowd"][theirs], torch.int64),
                }
            ],
        )
    value = float(metric.compute()["map"])
    return None if value < 0 else value
