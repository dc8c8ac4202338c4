"""All spaces by name, and the loading of a user's space from a file."""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from digits_core.errors import SpaceError, did_you_mean, printable
from digits_core.files import MAX_TEXT_BYTES, read_whole
from spaces import (
    anchors,
    aspect_ratios,
    augmentation,
    backbones,
    batch_size,
    box_loss,
    box_merging,
    cascade,
    image_size,
    long,
    lr_schedules,
    multi_scale,
    optimizer,
    regularization,
    reports,
    roi_heads,
    roi_levels,
    thresholds,
    weight_average,
)
from spaces.registry import Space

SPACES: dict[str, Space] = {
    one.name: one
    for one in (
        anchors.anchors,
        aspect_ratios.aspect_ratios,
        roi_heads.roi_heads,
        roi_levels.roi_levels,
        image_size.image_size,
        cascade.cascade,
        box_loss.box_loss,
        backbones.backbones,
        lr_schedules.lr_schedules,
        optimizer.optimizer,
        weight_average.weight_average,
        long.long,
        batch_size.batch_size,
        augmentation.augmentation,
        multi_scale.multi_scale,
        regularization.regularization,
        thresholds.thresholds,
        box_merging.box_merging,
        reports.reports,
        reports.reports_tiny,
    )
}


def get_spaces(names: str, files: Mapping[str, str] | None = None) -> list[Space]:
    """The spaces of `--space NAME[,NAME...]`; a name that ends in `.py` is a Python file, which is run.

    Args:
        names: the value of `--space`.
        files: the files that may be run, from `space_files`; None allows all files in `names`.

    Raises:
        SpaceError: the space does not exist, or the file has no space, is not allowed or has changed.
    """
    found = []
    for name in (item.strip() for item in names.split(",")):
        if name.endswith(".py"):
            found.append(_load_file(Path(name), files))
        elif name in SPACES:
            found.append(SPACES[name])
        else:
            hint = did_you_mean(name, SPACES) or "; --list-spaces prints them all"
            raise SpaceError(f"unknown space '{printable(name)}'{hint}")
    return found


def space_files(names: str) -> dict[str, str]:
    """The files in the value of `--space`: maps absolute path to sha256. Runs nothing.

    Raises:
        SpaceError: a file cannot be read.
    """
    paths = [Path(name) for item in names.split(",") if (name := item.strip()).endswith(".py")]
    return {str(path.absolute()): hashlib.sha256(_read_file(path)).hexdigest() for path in paths}


def _read_file(path: Path) -> bytes:
    try:
        return read_whole(path, MAX_TEXT_BYTES)
    except FileNotFoundError:
        raise SpaceError(f"--space {path}: no such file") from None
    except OSError as error:
        raise SpaceError(f"--space {path}: cannot be read: {error.strerror}") from None


def _load_file(path: Path, files: Mapping[str, str] | None) -> Space:
    """Run a user's file and return the Space in it. The code has all permissions of the user.

    It runs the bytes that were read and checked; the file is not read again and cached bytecode is not used.
    """
    content = _read_file(path)
    if files is not None and files.get(str(path.absolute())) != hashlib.sha256(content).hexdigest():
        raise SpaceError(f"--space {path}: has changed or was not given before; give it again with --space")
    specification = importlib.util.spec_from_file_location(f"user_space_{path.stem}", path)
    if specification is None:
        raise SpaceError(f"--space {path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
    except Exception as error:
        raise SpaceError(f"--space {path}: {type(error).__name__}: {error}") from error
    found = [value for value in vars(module).values() if isinstance(value, Space)]
    own = [one for one in found if one.suggest.__module__ == specification.name] or found
    if len(own) != 1:
        raise SpaceError(f"--space {path}: must define one space with @space(...) of spaces.registry, found {len(own)}")
    return own[0]
