"""Data sets in formats other than COCO: which format a folder has, and what is read of it before it is written."""

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from digits_core.data.coco import MAX_IMAGE_PIXELS, Problem
from digits_core.errors import UsageError

STRUCT_FILE = "digitStruct.mat"

YAML_FILES = ("data.yaml", "data.yml")
YAML_SUFFIXES = (".yaml", ".yml")

ANNOTATIONS_DIR = "Annotations"

SVHN, YOLO, VOC = "SVHN", "YOLO", "Pascal VOC"

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

EXIF_ORIENTATION = 0x0112

LabelledBox = tuple[str, float, float, float, float]
"""Class name, then x_min, y_min, width and height in pixels, as in COCO."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of another format.

    Attributes:
        path: the image file.
        width, height: its size in pixels.
        boxes: what it shows; may be empty.
    """

    path: Path
    width: int
    height: int
    boxes: list[LabelledBox]


@dataclass(slots=True)
class Labelled:
    """A data set of another format, read and checked; nothing is written yet.

    Attributes:
        names: the class names, in the order of their category ids.
        splits: `train`, and `valid` if the data set has one.
        problems: everything that is wrong.
        notes: sentences for the user about what is no problem.
    """

    names: list[str] = field(default_factory=list)
    splits: dict[str, list[LabelledImage]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def blame(self, where: str, text: str) -> None:
        """Note a problem; `where` names the file, and the line if there is one."""
        self.problems.append(Problem(where, text))


def format_of(place: Path) -> str | None:
    """The format of a folder that `convert` reads; None if it has none of them.

    Args:
        place: a folder, or the YAML file of a YOLO folder.
    """
    if place.is_file():
        return YOLO if place.suffix.lower() in YAML_SUFFIXES else None
    if any((place / name / STRUCT_FILE).is_file() for name in ("", "train", "extra", "test")):
        return SVHN
    if any((place / name).is_file() for name in YAML_FILES):
        return YOLO
    return VOC if next((place / ANNOTATIONS_DIR).glob("*.xml"), None) is not None else None


def kind_of(path: Path) -> str:
    """`folder` or `file`; empty if nothing is there, or no file can have such a name."""
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else ""
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return ""


def size_of(path: Path, *, upright: bool = False) -> tuple[tuple[int, int], str]:
    """The size of an image, and what is wrong with it.

    Args:
        path: the file.
        upright: refuse an image with an EXIF orientation. Pixels are read as they are stored, so boxes that refer to
            the image as it is shown would not fit.

    Returns:
        Width and height in pixels, and a text that is empty if nothing is wrong.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                return (0, 0), f"is {image.width} x {image.height} px, more than {MAX_IMAGE_PIXELS:,} pixels"
            if upright and image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1):
                return (0, 0), "is stored turned (EXIF orientation), so its boxes would not fit; save it upright"
            return image.size, ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return (0, 0), "cannot be read: it is not a complete image"


def place_image(image: Path, target: Path, *, link: bool) -> None:
    """Copy an image to its place in the COCO folder.

    Args:
        image: the file.
        target: the new file; its folder is made if it is missing.
        link: make a hard link instead of a copy.

    Raises:
        UsageError: the file system cannot make the hard link.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not link:
        shutil.copyfile(image, target)
        return
    try:
        os.link(image.resolve(), target)  # resolved: a link to a symbolic link would still depend on its original
    except OSError as error:
        raise UsageError(f"--link: {image} cannot be hard-linked ({error.strerror}); copy it, without --link") from None
