"""All spaces by name, and a user's own from a file."""

import importlib.util
import sys
from pathlib import Path

from digits_core.errors import SpaceError, did_you_mean, printable
from spaces import (
    anchors,
    aspect_ratios,
    augmentation,
    backbones,
    batch_size,
    image_size,
    lr_schedules,
    optimizer,
    reports,
    roi_heads,
    roi_levels,
    thresholds,
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
        backbones.backbones,
        lr_schedules.lr_schedules,
        optimizer.optimizer,
        batch_size.batch_size,
        augmentation.augmentation,
        thresholds.thresholds,
        reports.reports,
        reports.reports_tiny,
    )
}


def get_spaces(names: str) -> list[Space]:
    """The spaces of `--space NAME[,NAME...]`; a name that ends in `.py` is a file of the user's.

    Raises:
        SpaceError: no such space, or a file that holds none.
    """
    found = []
    for name in (item.strip() for item in names.split(",")):
        if name.endswith(".py"):
            found.append(_load_file(Path(name)))
        elif name in SPACES:
            found.append(SPACES[name])
        else:
            hint = did_you_mean(name, SPACES) or "; --list-spaces prints them all"
            raise SpaceError(f"unknown space '{printable(name)}'{hint}")
    return found


def _load_file(path: Path) -> Space:
    """Run a user's file and take the one Space in it. The file is code: it can do all that its user can."""
    if not path.is_file():
        raise SpaceError(f"--space {printable(str(path))}: no such file")
    specification = importlib.util.spec_from_file_location(f"user_space_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise SpaceError(f"--space {path}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise SpaceError(f"--space {path}: {type(error).__name__}: {error}") from error
    found = [value for value in vars(module).values() if isinstance(value, Space)]
    own = [one for one in found if one.suggest.__module__ == specification.name] or found
    if len(own) != 1:
        raise SpaceError(
            f"--space {path}: must hold one space made with @space(...) of spaces.registry, found {len(own)}"
        )
    return own[0]
