"""Writes a folder so that readers see it complete or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty temporary folder beside `target` that is renamed to it at the end; after an error it is deleted.

    Args:
        target: the folder to create.
        replace: whether to delete an existing `target` first.

    Raises:
        OSError: the folder cannot be written, or `target` exists and is not empty.
    """
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
