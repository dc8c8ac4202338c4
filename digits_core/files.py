"""Names of the files in a checkpoint folder, and how a file from a stranger is read."""

import errno
import os
import stat
from pathlib import Path

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
TRAINING_FILE, STATE_FILE = "training.safetensors", "state.json"

CLASSES_FILE = "classes.json"
"""Beside a model's weights: ids and names of its categories; without it they are the digits."""

BEST_FOLDER = "best"
"""Inside a checkpoint to go on from: the model of the best epoch so far."""

THRESHOLDS_FILE, MATCHES_FILE, CONFIRM_FILE = "thresholds.parquet", "matches.parquet", "confirm.parquet"
"""Beside the model of the best epoch: its threshold sweep, its match tables on valid and on the part to confirm."""

MAX_TEXT_BYTES = 16 * 2**20
"""A settings file is never larger."""


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a file, if it is one and not absurdly large.

    Args:
        path: the file; a pipe or a device would give bytes without end.
        most: bytes that it may hold.

    Raises:
        OSError: it cannot be read, is no file, or is larger.
    """
    with open(path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it holds more than {most / 2**20:.0f} MiB", str(path))
        return file.read(found.st_size)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, all links followed, stays under a folder; a ring of links does not."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def read_text(path: Path) -> str:
    """The text of a settings file.

    Raises:
        OSError: as `read_whole`.
        UnicodeDecodeError: it is no UTF-8.
    """
    return read_whole(path, MAX_TEXT_BYTES).decode("utf-8")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would hold us up
