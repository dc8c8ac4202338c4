"""Arrow schemas of the tables in a run folder: column names, statuses and the schema version."""

from typing import Literal, get_args

import pyarrow as pa

from digits_core.evaluation.metrics import SCORE_NAMES

SCHEMA_VERSION = "3"

AIMS = {"latency": "latency_ms", "latency_32": "latency_ms_32", "megabytes": "megabytes"}
"""Costs that a search can make small beside its metric, by their names in `--metric`: columns of the leaderboard."""

COSTS = ("latency_ms", "latency_ms_low", "latency_ms_high", "latency_ms_32", "megabytes")
"""Measured costs of a model."""

Status = Literal["running", "finished", "stopped", "screened", "interrupted", "diverged", "out_of_memory", "failed"]
"""running: no end recorded. finished: after all epochs or early stopping. stopped: by the scheduler.
screened: not trained, because its anchors miss too many digits. interrupted: by the user, the time budget or a failure;
--resume continues it. diverged, out_of_memory, failed: see `stop_reason`."""

Role = Literal["search", "replicate", "confirm", "retrain"]
"""search: the first training of a configuration. replicate: a training with another seed. confirm: a replicate after
the search, scored on images that the search did not use. retrain: by `digit-search retrain`."""

STATUSES: tuple[str, ...] = get_args(Status)
ENDED = ("finished", "stopped", "screened", "diverged", "out_of_memory", "failed")
"""Statuses of trials that do not continue."""

FAILED = ("diverged", "out_of_memory", "failed")
"""Statuses of trials that ended with an error; they stay on the leaderboard but cannot win."""

SWEPT = "swept without training"
"""The reason of the end of a trial that is a trained model with other thresholds or another way to merge its boxes."""

_TIME = pa.timestamp("us", tz="UTC")

_METADATA = {b"schema_version": SCHEMA_VERSION.encode()}


def _scores(part: str) -> list[pa.Field]:
    """Each score of one split and its 95 % interval over images, at the trial's own thresholds (`detect`)."""
    names = [f"{part}_{name}" for name in SCORE_NAMES]
    return [pa.field(f"{name}{end}", pa.float64()) for name in names for end in ("", "_low", "_high")]


LEADERBOARD = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("space", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("parent", pa.string()),  # the trial that a retraining repeats; else null
        pa.field("trained_on", pa.string(), nullable=False),  # train, or train+valid
        pa.field("baseline", pa.string()),  # name of the baseline; null for sampled configurations
        pa.field("status", pa.string(), nullable=False),
        pa.field("stop_reason", pa.string()),
        pa.field("config", pa.string(), nullable=False),  # every parameter, as JSON of flat names
        pa.field("config_hash", pa.string(), nullable=False),  # digest of the configuration with its anchors
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("epochs", pa.int32(), nullable=False),  # finished epochs
        pa.field("faults", pa.int32(), nullable=False),  # number of restarts after a failure
        pa.field("best_epoch", pa.int32()),  # by the metric of the run, from 1; null before the first
        pa.field("ties_with_best", pa.bool_()),  # statistically tied with the best; null if not compared
        pa.field("seeds_mean", pa.float64()),  # mean of the metric over the replicates
        pa.field("num_seeds", pa.int32()),  # number of replicates; null without any
        pa.field("same_as", pa.string()),  # a trial with other parameters and the same weights
        *_scores("val"),  # this and the following at the best epoch
        *_scores("confirm"),  # of confirming trials, on the confirmation images
        pa.field("task1_map", pa.float64()),  # best score of the threshold sweep, selected on these images
        pa.field("task1_nms", pa.float64()),
        pa.field("task1_score", pa.float64()),
        pa.field("task1_class_agnostic", pa.bool_()),
        pa.field("task1_max_detections", pa.int64()),
        pa.field("task2_number_accuracy", pa.float64()),  # best score of the threshold sweep, selected on these images
        pa.field("task2_nms", pa.float64()),
        pa.field("task2_score", pa.float64()),
        pa.field("task2_class_agnostic", pa.bool_()),
        pa.field("task2_max_detections", pa.int64()),
        pa.field("train_loss", pa.float64()),
        pa.field("val_loss", pa.float64()),
        pa.field("train_map", pa.float64()),  # on runtime.train_sample training images; null if not measured
        pa.field("train_map_50", pa.float64()),
        pa.field("anchor_recall_50", pa.float64()),  # share of training digits with an anchor at IoU .5
        pa.field("anchor_recall_70", pa.float64()),
        pa.field("anchor_mean_iou", pa.float64()),  # mean over training digits of the best anchor's IoU
        pa.field("train_seconds", pa.float64(), nullable=False),  # optimiser steps only
        pa.field("trial_seconds", pa.float64()),  # total time in a slot; of a retraining, the sum of its epochs
        pa.field("images_per_second", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("device", pa.string()),
        pa.field("num_parameters", pa.int64()),
        pa.field("latency_ms", pa.float64()),  # one image at a time, median over images; null if not asked for
        pa.field("latency_ms_low", pa.float64()),  # the quartiles
        pa.field("latency_ms_high", pa.float64()),
        pa.field("latency_ms_32", pa.float64()),  # an image in a batch of 32
        pa.field("megabytes", pa.float64()),  # of the weights
        pa.field("on_front", pa.bool_()),  # no trial is better in all aims; null with one aim
        pa.field("model", pa.string()),  # read back from the built model, as JSON
        pa.field("checkpoint", pa.string()),  # folder, relative to the run folder; null if deleted
        pa.field("started_at", _TIME),  # null for a retraining
        pa.field("finished_at", _TIME),
    ],
    metadata=_METADATA,
)
"""One row per trial; one more column per parameter that varies, named by its flat name and typed."""

EPOCHS = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("train_loss", pa.float64()),
        pa.field("loss_classifier", pa.float64()),
        pa.field("loss_box_reg", pa.float64()),
        pa.field("loss_objectness", pa.float64()),
        pa.field("loss_rpn_box_reg", pa.float64()),
        pa.field("lr", pa.float64()),
        pa.field("train_map", pa.float64()),
        pa.field("train_map_50", pa.float64()),
        pa.field("val_loss", pa.float64()),
        pa.field("val_map", pa.float64()),
        pa.field("val_map_50", pa.float64()),
        pa.field("val_map_75", pa.float64()),
        pa.field("val_digit_accuracy", pa.float64()),
        pa.field("val_number_accuracy", pa.float64()),
        pa.field("images_per_second", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("epoch_seconds", pa.float64()),
        pa.field("train_seconds", pa.float64()),
        pa.field("eval_seconds", pa.float64()),
        pa.field("reported_at", _TIME, nullable=False),
    ],
    metadata=_METADATA,
)
"""One row per trial and epoch."""

THRESHOLDS = pa.schema(
    [
        pa.field(
            "class_agnostic", pa.bool_(), nullable=False
        ),  # this and the next three: the threshold values of a task
        pa.field("nms", pa.float64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("max_detections", pa.int64(), nullable=False),
        pa.field("val_map", pa.float64()),
        pa.field("val_map_50", pa.float64()),
        pa.field("val_digit_accuracy", pa.float64()),
        pa.field("val_number_accuracy", pa.float64()),
    ],
    metadata=_METADATA,
)
"""One row per combination of threshold values, for the best epoch of one trial."""


def _detections(task: str) -> list[pa.Field]:
    """What one task's NMS keeps of an image above the score floor, best score first."""
    kinds = {
        "labels": pa.uint8(),  # labels: for digits their category ids
        "scores": pa.float32(),
        "boxes": pa.float32(),  # four numbers a detection: xyxy, original pixels
        "iou": pa.float32(),  # with its match at IoU .5; 0 without one
        "matched": pa.uint16(),  # bit t: matches a digit of its class at IoU .50 + .05 t
        "ignored": pa.uint16(),  # bit t: on a crowd instead
        "digits": pa.uint8(),  # on: 0 no digit, 1 a digit of another class, 2 of its class, 3 only a crowd
    }
    return [pa.field(f"{task}_{name}", pa.list_(kind), nullable=False) for name, kind in kinds.items()]


MATCHES = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("number", pa.string()),  # the annotated number; null if the classes are not digits
        pa.field("truth", pa.list_(pa.uint8()), nullable=False),  # in the order of the number
        pa.field("truth_boxes", pa.list_(pa.float32()), nullable=False),  # four numbers a box: xyxy, original pixels
        pa.field("crowds", pa.list_(pa.uint8()), nullable=False),  # labels of the crowds
        pa.field("crowd_boxes", pa.list_(pa.float32()), nullable=False),
        *_detections("task1"),
        *_detections("task2"),
    ],
    metadata=_METADATA,
)
"""One row per image of a split: one trial's best epoch against the annotations."""

SAMPLES = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # of the original image, pixels
        pa.field("height", pa.int32(), nullable=False),
        pa.field("png", pa.binary(), nullable=False),  # the image, downscaled if large
        pa.field("boxes", pa.list_(pa.float32()), nullable=False),  # four numbers a box: xyxy, original pixels
        pa.field("labels", pa.list_(pa.uint8()), nullable=False),  # labels: for digits their category ids
    ],
    metadata=_METADATA,
)
"""A few validation images with annotations, to show predictions without the data."""

BOXES = pa.schema(
    [
        pa.field("image_width", pa.int32(), nullable=False),  # of the original image, pixels
        pa.field("image_height", pa.int32(), nullable=False),
        pa.field("width", pa.float32(), nullable=False),  # of the box, pixels of the original image
        pa.field("height", pa.float32(), nullable=False),
    ],
    metadata=_METADATA,
)
"""Sizes of a sample of training boxes, to compare anchors with them without the data."""

BOOTSTRAP = pa.schema([pa.field(name, pa.float64()) for name in SCORE_NAMES], metadata=_METADATA)
"""One row per resample of the images; the same resamples in every file of a run."""

EPOCH_NUMBERS = tuple(field.name for field in EPOCHS if field.name not in ("run", "trial_id", "epoch", "reported_at"))
"""The numbers of one epoch in a report."""
