"""Arrow schemas of a run folder's tables; the one home of column names, statuses and the version."""

from typing import Literal, get_args

import pyarrow as pa

SCHEMA_VERSION = "1"

Status = Literal["running", "finished", "stopped", "interrupted", "diverged", "out_of_memory", "failed"]
"""running: no end recorded. finished: all epochs, or early stopping. stopped: by the scheduler or the
time budget. interrupted: the run was; --resume goes on. The others failed, with the reason beside."""

STATUSES: tuple[str, ...] = get_args(Status)
ENDED = ("finished", "stopped", "diverged", "out_of_memory", "failed")
"""Statuses of trials that are never run again."""

FAILED = ("diverged", "out_of_memory", "failed")
"""Ended by an error: such a trial keeps its row but never wins."""

_TIME = pa.timestamp("us", tz="UTC")

_METADATA = {b"schema_version": SCHEMA_VERSION.encode()}

LEADERBOARD = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("trial_id", pa.string(), nullable=False),
        pa.field("space", pa.string(), nullable=False),
        pa.field("baseline", pa.string()),  # the name of the baseline; null for drawn settings
        pa.field("status", pa.string(), nullable=False),
        pa.field("stop_reason", pa.string()),
        pa.field("config", pa.string(), nullable=False),  # every knob, as JSON of flat names
        pa.field("config_hash", pa.string(), nullable=False),  # the setting by its realised anchors
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("epochs", pa.int32(), nullable=False),  # epochs done
        pa.field("best_epoch", pa.int32()),  # by the run's metric, from 1; null before the first
        pa.field("val_map", pa.float64()),  # this and the following at the best epoch
        pa.field("val_map_50", pa.float64()),
        pa.field("val_map_75", pa.float64()),
        pa.field("val_number_accuracy", pa.float64()),
        pa.field("task1_map", pa.float64()),  # optimum of the threshold sweep, chosen on these images
        pa.field("task1_nms", pa.float64()),
        pa.field("task1_score", pa.float64()),
        pa.field("task2_number_accuracy", pa.float64()),  # likewise
        pa.field("task2_nms", pa.float64()),
        pa.field("task2_score", pa.float64()),
        pa.field("train_loss", pa.float64()),
        pa.field("train_seconds", pa.float64(), nullable=False),  # optimiser steps alone
        pa.field("trial_seconds", pa.float64(), nullable=False),  # all the time in a slot
        pa.field("images_per_second", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("device", pa.string()),
        pa.field("num_parameters", pa.int64()),
        pa.field("model", pa.string()),  # read back from the built model, as JSON
        pa.field("checkpoint", pa.string()),  # folder, relative to the run's; null once deleted
        pa.field("started_at", _TIME),
        pa.field("finished_at", _TIME),
    ],
    metadata=_METADATA,
)
"""One row per trial; one more column per knob that varies, named by its flat name and typed."""

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
        pa.field("val_map", pa.float64()),
        pa.field("val_map_50", pa.float64()),
        pa.field("val_map_75", pa.float64()),
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
        pa.field("task1_nms", pa.float64(), nullable=False),
        pa.field("task1_score", pa.float64(), nullable=False),
        pa.field("task2_nms", pa.float64(), nullable=False),
        pa.field("task2_score", pa.float64(), nullable=False),
        pa.field("val_map", pa.float64()),  # at Task 1's thresholds
        pa.field("val_map_50", pa.float64()),
        pa.field("val_number_accuracy", pa.float64()),  # at Task 2's thresholds
    ],
    metadata=_METADATA,
)
"""One row per setting of the threshold sweep of one trial's best epoch."""
EPOCH_NUMBERS = tuple(field.name for field in EPOCHS if field.name not in ("run", "trial_id", "epoch", "reported_at"))
"""The numbers of one epoch, as a report bears them."""
