"""What a checkpoint says of itself, read without torch: where its training was, and whether all of it is there."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from digits_core.errors import WeightsError
from digits_core.files import BEST_FOLDER, CLASSES_FILE, CONFIG_FILE, MODEL_FILE, STATE_FILE, TRAINING_FILE, read_text


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What is needed to go on beside weights and optimiser; random states follow from seed and epoch.

    Attributes:
        epoch: epochs done.
        step: optimiser steps done.
        best_epoch: epoch of the best score so far, by the search's metric; 0 before the first.
        best_value: that score; None before the first.
    """

    epoch: int
    step: int
    best_epoch: int
    best_value: float | None


def is_whole(folder: Path) -> bool:
    """Whether training can go on from a checkpoint: every file is there, and as long as its header says.

    The best epoch's model, which a checkpoint carries along, is part of it.
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
    """Where the training of a checkpoint stood.

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
