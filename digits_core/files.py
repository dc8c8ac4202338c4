"""Names of the files in a checkpoint folder, and safe reading of files from unknown sources."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
TRAINING_FILE, STATE_FILE = "training.safetensors", "state.json"

CLASSES_FILE = "classes.json"
"""Ids and names of the categories of a model; without this file they are the digits."""

ENSEMBLE_FILE = "ensemble.json"
"""In the model folder of an ensemble, instead of weights: the folders of its models, and how they are fused."""

BEST_FOLDER = "best"
"""The folder in a checkpoint that contains the model of the best epoch so far."""

THRESHOLDS_FILE, MATCHES_FILE, CONFIRM_FILE = "thresholds.parquet", "matches.parquet", "confirm.parquet"
"""Files next to the model of the best epoch: threshold sweep, match tables on validation and confirmation images."""

MAX_TEXT_BYTES = 16 * 2**20
"""The largest text file that `read_text` accepts."""


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a regular file of limited size; pipes and devices are refused, because they may not end.

    Args:
        path: the file.
        most: the largest accepted size in bytes.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a file name cannot contain a null character", str(path))
    with open(path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most / 2**20:.0f} MiB", str(path))
        return file.read(found.st_size)


def file_digest(path: Path) -> str:
    """Sixteen hexadecimal digits of a file's content (BLAKE2b)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def copy_checked(source: Path, target: Path) -> None:
    """Copy a file, and compare size and digest of the copy.

    Raises:
        OSError: it cannot be copied, or the copy differs.
    """
    shutil.copyfile(source, target)
    if target.stat().st_size != source.stat().st_size or file_digest(target) != file_digest(source):
        raise OSError(errno.EIO, "the copy differs from its original", str(target))


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is inside a folder after all links are resolved; False for a cycle of links."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False


def link_out_of(folder: Path) -> Path | None:
    """A link in a folder, at any depth, that points outside the folder; None if there is none."""
    waiting = [folder]
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    if not is_inside(Path(entry.path), folder):
                        return Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return None


def read_text(path: Path) -> str:
    """The text of a file of at most MAX_TEXT_BYTES.

    Raises:
        OSError: as `read_whole`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_whole(path, MAX_TEXT_BYTES).decode("utf-8")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a pipe without a writer would wait


def folder_bytes(folder: Path, beginning: str = "") -> tuple[int, int]:
    """Disk usage in bytes of a folder, and of the largest folder in it whose name starts with `beginning`.

    A file with several hard links is counted once.
    """
    total, largest = 0, 0
    seen: set[tuple[int, int]] = set()

    def walk(path: str) -> int:
        nonlocal total, largest
        mine = 0
        try:
            entries = list(os.scandir(path))
        except OSError:  # deleted in the meantime
            return 0
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    mine += walk(entry.path)
                    continue
                stat = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                mine += stat.st_blocks * 512
                total += stat.st_blocks * 512
        if Path(path).name.startswith(beginning):
            largest = max(largest, mine)
        return mine

    walk(str(folder))
    return total, largest


def size_words(number: int) -> str:
    """`740 MB`, `1.5 GB`."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1000:.0f} kB"
