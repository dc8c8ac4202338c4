"""Pascal VOC folders: one XML file of boxes per image, and lists of the images of each part."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from digits_core.data.coco import is_plain_path
from digits_core.data.formats import (
    ANNOTATIONS_DIR,
    IMAGE_SUFFIXES,
    Labelled,
    LabelledBox,
    LabelledImage,
    kind_of,
    size_of,
)
from digits_core.errors import DataError, reason_of
from digits_core.files import read_text

IMAGES_DIR = "JPEGImages"
LISTS_DIR = "ImageSets/Main"

Lines = dict[ET.Element, int]
"""The line of a file on which each element starts, from 1."""


class _XmlError(Exception):
    """What is wrong with an XML file, and on which line (0: none)."""

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


def read_voc(folder: Path) -> Labelled:
    """Read a Pascal VOC folder.

    Args:
        folder: holds `Annotations/NAME.xml` and `JPEGImages/NAME.jpg`, and optionally `train.txt` and `val.txt` in
            `ImageSets/Main/`, with one NAME per line. Without `train.txt`, train is `trainval.txt`, or everything that
            is not in `test.txt`; what is in `val.txt` is not in train then.

    Returns:
        The data set, classes sorted by name. Objects marked `difficult` are ordinary boxes; a note counts them.

    Raises:
        DataError: there are no images, or no objects.

    Source:
        The VOC challenges' annotations: the top left pixel is (1, 1), and `xmax`, `ymax` are the last pixels inside the
        box. So x_min = xmin - 1 and width = xmax - xmin + 1 here, where the image's left edge is 0.
    """
    found = Labelled()
    images = _index_images(folder)
    names: set[str] = set()
    difficult = 0
    for split, listed in _lists(found, folder).items():
        rows = found.splits.setdefault(split, [])
        for name, where in listed.items():
            file = folder / ANNOTATIONS_DIR / f"{name}.xml"
            if kind_of(file) != "file":
                found.blame(where, f"there is no {ANNOTATIONS_DIR}/{name}.xml"[:200])
                continue
            try:
                root, lines = _parse(file)
            except _XmlError as error:
                found.blame(_place(file, error.line), str(error))
                continue
            image = _find_image(found, file, root, images.get(name, []))
            boxes = list(_read_boxes(found, file, root, lines))
            if image is not None:
                rows.append(LabelledImage(*image, boxes))
            names.update(box[0] for box in boxes)
            difficult += sum(_text(one, "difficult") == "1" for one in root.findall("object"))
    if not names and not found.problems:
        raise DataError(f"{folder}: no file of {ANNOTATIONS_DIR} holds an object")
    found.names = sorted(names)
    if difficult:
        found.notes.append(f"{difficult} boxes are marked difficult; they are converted as ordinary boxes")
    return found


def _index_images(folder: Path) -> dict[str, list[Path]]:
    images: dict[str, list[Path]] = {}
    for path in sorted((folder / IMAGES_DIR).glob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            images.setdefault(path.stem, []).append(path)
    return images


def _lists(found: Labelled, folder: Path) -> dict[str, dict[str, str]]:
    """The names of each part, each with the place that lists it."""
    read = {name: _read_list(found, folder, name) for name in ("train", "val", "trainval", "test")}
    train, valid = read["train"], read["val"]
    if train is None:
        train = read["trainval"]
        if train is None:
            files = sorted(path for path in (folder / ANNOTATIONS_DIR).glob("*.xml") if not path.name.startswith("."))
            train = {path.stem: ANNOTATIONS_DIR for path in files if path.stem not in (read["test"] or {})}
        train = {name: where for name, where in train.items() if name not in (valid or {})}
    for name in sorted(train.keys() & (valid or {}).keys()):
        found.blame((valid or {})[name], f"{name[:100]} is in train.txt, too")
    parts = {"train": train} if valid is None else {"train": train, "valid": valid}
    for split, names in parts.items():
        if not names and not found.problems:
            raise DataError(f"{folder}: the {split} part has no images; see {LISTS_DIR}")
    return parts


def _read_list(found: Labelled, folder: Path, name: str) -> dict[str, str] | None:
    file = folder / LISTS_DIR / f"{name}.txt"
    shown = f"{LISTS_DIR}/{name}.txt"
    if not file.exists():
        return None
    try:
        lines = read_text(file).removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError:
        found.blame(shown, "is not UTF-8 text")
        return {}
    except OSError as error:
        found.blame(shown, f"cannot be read: {error.strerror}")
        return {}
    names = {}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if entry and ("/" in entry or not is_plain_path(entry)):
            found.blame(f"{shown}, line {number}", f"must be the name of an image, without a folder, got {entry[:100]}")
        elif entry:
            names[entry] = f"{shown}, line {number}"
    return names


class _Builder(ET.TreeBuilder):
    """Builds the tree and notes on which line each element starts."""

    def __init__(self) -> None:
        super().__init__()
        self.line = 0
        self.lines: Lines = {}

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        element = super().start(tag, attrs)
        self.lines[element] = self.line
        return element


def _parse(file: Path) -> tuple[ET.Element, Lines]:
    """The tree of an XML file.

    A document type is refused before anything is parsed: only there can entities be declared, which expand without end
    or name other files. The text is decoded as UTF-8 first, so that no other encoding can hide one.

    Raises:
        _XmlError: the file cannot be read, is broken, or is no annotation.
    """
    try:
        text = read_text(file).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise _XmlError("is not UTF-8 text") from None
    except OSError as error:
        raise _XmlError(f"cannot be read: {error.strerror}") from None
    before, found, _ = text.partition("<!DOCTYPE")
    if found:
        raise _XmlError("has a document type (<!DOCTYPE ...>), which is refused; delete it", before.count("\n") + 1)
    builder = _Builder()
    parser = ET.XMLParser(target=builder)
    try:
        for number, line in enumerate(text.split("\n"), start=1):
            builder.line = number
            parser.feed(line if number == 1 else "\n" + line)
        root = parser.close()
    except ET.ParseError as error:
        raise _XmlError(f"broken XML: {reason_of(error).partition(':')[0]}", error.position[0]) from None
    except (ValueError, LookupError) as error:  # an encoding that Python does not know
        raise _XmlError(f"broken XML: {reason_of(error)}") from None
    if root.tag != "annotation":
        raise _XmlError(f"must hold one <annotation>, got <{root.tag[:100]}>", builder.lines[root])
    return root, builder.lines


def _place(file: Path, line: int = 0) -> str:
    return f"{ANNOTATIONS_DIR}/{file.name}" + (f", line {line}" if line else "")


def _text(element: ET.Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def _number(element: ET.Element, tag: str) -> float:
    """The number in a child; NaN if there is none."""
    try:
        return float(_text(element, tag))
    except ValueError:
        return math.nan


def _find_image(found: Labelled, file: Path, root: ET.Element, paths: list[Path]) -> tuple[Path, int, int] | None:
    if len(paths) != 1:
        count = "no image" if not paths else f"{len(paths)} images"
        found.blame(_place(file), f"{IMAGES_DIR} holds {count} named {file.stem} ({', '.join(IMAGE_SUFFIXES)})")
        return None
    (width, height), fault = size_of(paths[0])
    if fault:
        found.blame(f"{IMAGES_DIR}/{paths[0].name}", fault)
        return None
    said = [_number(root, f"size/{side}") for side in ("width", "height")]
    # Some tools write 0 for a size that they do not know.
    if any(0 < number != side for number, side in zip(said, (width, height), strict=True)):
        found.blame(_place(file), f"says {said[0]:g} x {said[1]:g} px, but {paths[0].name} is {width} x {height} px")
        return None
    return paths[0], width, height


def _read_boxes(found: Labelled, file: Path, root: ET.Element, lines: Lines) -> Iterator[LabelledBox]:
    for entry in root.findall("object"):
        name, bounds = _text(entry, "name"), entry.find("bndbox")
        if not name:
            found.blame(_place(file, lines[entry]), "an <object> has no <name>")
            continue
        if bounds is None:
            found.blame(_place(file, lines[entry]), "an <object> has no <bndbox>; only boxes are read")
            continue
        x_min, y_min, x_max, y_max = sides = [_number(bounds, tag) for tag in ("xmin", "ymin", "xmax", "ymax")]
        if not all(math.isfinite(side) and abs(side) < 2**31 for side in sides):
            found.blame(_place(file, lines[bounds]), "<bndbox> must hold the numbers xmin, ymin, xmax and ymax")
        elif x_max < x_min or y_max < y_min:
            found.blame(
                _place(file, lines[bounds]), f"an empty box: x {x_min:g} to {x_max:g}, y {y_min:g} to {y_max:g}"
            )
        else:
            yield name, x_min - 1, y_min - 1, x_max - x_min + 1, y_max - y_min + 1
