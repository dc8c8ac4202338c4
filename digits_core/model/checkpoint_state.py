"""The training state of a checkpoint and whether the checkpoint is complete, read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from digits_core.errors import WeightsError
from digits_core.files import BEST_FOLDER, CLASSES_FILE, CONFIG_FILE, MODEL_FILE, STATE_FILE, TRAINING_FILE, read_text


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What a resumed training needs besides weights and optimiser; random numbers depend only on seed and epoch.

    Attributes:
        epoch: finished epochs.
        step: finished optimiser steps.
        best_epoch: epoch of the best score so far, by the metric of the search; 0 before the first score.
        best_value: that score; None before the first score.
    """

    epoch: int
    step: int
    best_epoch: int
    best_value: float | None


def is_whole(folder: Path) -> bool:
    """Whether training can resume from a checkpoint: every file exists and has the length that its header states.

    This includes the best epoch's model, which is a part of the checkpoint.
    """
    try:
        state = load_state(folder)
        models = [folder, folder / BEST_FOLDER] if state.best_epoch else [folder]
        for file in (folder / TRAINING_FILE, *(one / MODEL_FILE for one in models)):
            with safe_open(file, framework="np"):
                pass
        for one in models:
            read_text(one / CONFIG_FILE)
            read_text(one / CLASSES_FILE)
    except (WeightsError, SafetensorError, OSError, UnicodeDecodeError):
        return False
    return True


def load_state(folder: Path) -> TrainingState:
    """The training state of a checkpoint.

    Raises:
        WeightsError: the state is missing or damaged.
    """
    try:
        values: dict[str, Any] = json.loads(read_text(folder / STATE_FILE))
        return TrainingState(
            epoch=int(values["epoch"]),
            step=int(values["step"]),
            best_epoch=int(values["best_epoch"]),
            best_value=None if values["best_value"] is None else float(values["best_value"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise WeightsError(f"{folder / STATE_FILE} is damaged: {error}") from None
