"""What `train` reports after each epoch, and how far it is inside an epoch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from digits_core.evaluation.evaluate import Evaluation

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochMetrics:
    """The results of one epoch: one row of epochs.parquet.

    Attributes:
        epoch: from 1.
        train_loss: sum of the four losses, mean over the epoch's images.
        loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg: each loss, mean over the epoch's images.
        lr: learning rate of the epoch's last step.
        train_map, train_map_50: COCO AP on `runtime.train_sample` training images without augmentation; None if there
            are none.
        val_loss: sum of the four losses on the validation images, mean over the images. It has the losses of the
            configuration, so it is comparable only where `box_loss`, `label_smoothing` and `cascade_stages` are equal.
        val_map, val_map_50, val_map_75: COCO AP on the validation images at `detect.task1`; None if not measurable.
        val_digit_accuracy: correctly read validation digits at `detect.task2`, divided by the number of all digits
            plus detections that are not on a digit.
        val_number_accuracy: share of validation images whose number is read correctly at `detect.task2`.
        images_per_second: training images divided by training seconds.
        peak_memory_bytes: largest use so far. On a GPU, of this training; on a CPU, of the process, which may have
            trained other models before.
        epoch_seconds: training, evaluation and saving; it includes train_seconds and eval_seconds.
        early_stopped: `optim.early_stop_epochs` ended the training here.
    """

    epoch: int
    train_loss: float
    loss_classifier: float
    loss_box_reg: float
    loss_objectness: float
    loss_rpn_box_reg: float
    lr: float
    train_map: float | None
    train_map_50: float | None
    val_loss: float | None
    val_map: float | None
    val_map_50: float | None
    val_map_75: float | None
    val_digit_accuracy: float | None
    val_number_accuracy: float | None
    images_per_second: float
    peak_memory_bytes: int | None
    epoch_seconds: float
    train_seconds: float
    eval_seconds: float
    early_stopped: bool


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch as `train` reports it.

    Attributes:
        metrics: losses, scores, times and memory.
        improved: whether the metric is the best so far in this stage.
        checkpoint: a folder to resume from, with the best epoch's model in `best/`; the receiver may move it.
            None if no checkpoints are written.
        valid: raw detections and match tables on the validation images; None without validation.
        confirm: the same on the confirmation images; None if not requested, or if the epoch is not the best so far.
        model: what the built model really contains (`model.read_back`).
        device: the name of the GPU, or `cpu`.
    """

    metrics: EpochMetrics
    improved: bool
    checkpoint: Path | None
    valid: Evaluation | None
    confirm: Evaluation | None
    model: dict[str, object]
    device: str


Report = Callable[[EpochReport], None]


@dataclass(frozen=True, slots=True)
class EpochProgress:
    """How far an epoch is. It is shown to users and never part of a result.

    Attributes:
        epoch: from 1.
        share: finished optimiser steps divided by those of the epoch, in (0, 1]; 1 while the epoch is evaluated.
    """

    epoch: int
    share: float


def ignore_progress(progress: EpochProgress) -> None:
    """A receiver of progress that does nothing."""
