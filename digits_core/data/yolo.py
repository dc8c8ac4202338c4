"""YOLO folders: a data.yaml, images, and one text file of boxes per image."""

import math
from pathlib import Path
from typing import Any

from digits_core.data.coco import MAX_CATEGORIES
from digits_core.data.formats import (
    IMAGE_SUFFIXES,
    YAML_FILES,
    Labelled,
    LabelledBox,
    LabelledImage,
    kind_of,
    size_of,
)
from digits_core.errors import DataError, UsageError, printable, reason_of
from digits_core.files import read_text, read_whole

OTHER_SUFFIXES = (".avif", ".dng", ".gif", ".heic", ".jp2", ".mpo", ".pfm")
"""Images, too, but no command reads them."""

MAX_YAML_BYTES = 2**20
MAX_YAML_EVENTS = 10_000
MAX_YAML_DEPTH = 20

MAX_SHARE = 1.01
"""Shares of the image side may exceed 1 by rounding."""


def read_yolo(place: Path) -> Labelled:
    """Read a YOLO folder.

    Args:
        place: a folder with a data.yaml, or a YAML file of any name. Its keys: `names`, `train`, and optionally `val`,
            `path` and `nc`. `train` and `val` are a folder, a .txt file with one image per line, or a list of these.

    Returns:
        The data set. The labels of `images/a/1.png` are in `labels/a/1.txt`; an image without that file has no objects.

    Raises:
        DataError: the YAML file is wrong, or there are no images or no label files.
        UsageError: pyyaml is not installed.

    Source:
        Ultralytics, "Object Detection Datasets Overview": each line is `class cx cy w h`, where class counts from 0,
        the rest are shares of the image's width and height, and (cx, cy) is the center of the box.
    """
    file = place if place.is_file() else next(place / name for name in YAML_FILES if (place / name).is_file())
    settings = _read_yaml(file)
    found = Labelled(names=_names(file, settings))
    root = _root(file, settings.get("path"))
    split_of: dict[Path, str] = {}
    missing: list[Path] = []
    for split, key in (("train", "train"), ("valid", "val")):
        if key == "val" and not settings.get(key):
            continue
        images = []
        for path in _images(found, file, root, key, settings.get(key)):
            if split_of.setdefault(path.resolve(), split) != split:
                found.blame(_shown(path, root), "is in train and in val; without 'val' a share of train is set apart")
                continue
            image = _read_image(found, path, root, missing)
            if image is not None:
                images.append(image)
        found.splits[split] = images
    if missing and len(missing) == len(split_of):
        raise DataError(f"{file}: no image has a label file; the first one must be {missing[0]}")
    if missing:
        found.notes.append(f"{len(missing)} images have no label file and count as images without objects")
    return found


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        import yaml
    except ImportError:
        raise UsageError("reading a YOLO folder needs the package pyyaml: pip install pyyaml") from None
    try:
        text = read_whole(file, MAX_YAML_BYTES).decode("utf-8")
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            # A few aliases in merge keys stand for billions of entries, and deep nesting takes quadratic time.
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{file}: uses YAML aliases (*name); write the values out")
            starts, ends = (isinstance(event, kind) for kind in (yaml.CollectionStartEvent, yaml.CollectionEndEvent))
            depth += starts - ends
            if number > MAX_YAML_EVENTS:
                raise DataError(f"{file}: contains more than {MAX_YAML_EVENTS} values")
            if depth > MAX_YAML_DEPTH:
                raise DataError(f"{file}: holds lists inside lists, more than {MAX_YAML_DEPTH} deep")
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise DataError(f"{file}{line}: broken YAML: {printable(str(error.problem))[:200]}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
    # What PyYAML raises for a value that contradicts its tag, such as `!!int ''`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: broken YAML: {reason_of(error)}") from None
    if not isinstance(tree, dict):
        raise DataError(f"{file}: must hold the keys names, train and val")
    return tree


def _names(file: Path, settings: dict[Any, Any]) -> list[str]:
    entries = settings.get("names")
    if isinstance(entries, dict):
        numbers = list(range(len(entries)))
        if not all(type(key) is int for key in entries) or sorted(entries) != numbers:
            raise DataError(f"{file}: the keys of 'names' must be the numbers 0, 1, 2, ... without a gap")
        entries = [entries[number] for number in numbers]
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{file}: 'names' must list the class names, in the order of their numbers")
    if len(entries) > MAX_CATEGORIES:
        raise DataError(f"{file}: 'names' lists {len(entries)} classes, more than {MAX_CATEGORIES}")
    names: list[str] = []
    for number, entry in enumerate(entries):
        if not (type(entry) is int or (isinstance(entry, str) and entry.strip())):
            raise DataError(f"{file}: the name of class {number} must be text; put it in quotes")
        name = " ".join(str(entry).split())
        if name in names:
            raise DataError(f"{file}: two classes have the name '{printable(name[:100])}'")
        names.append(name)
    count = settings.get("nc")
    if count is not None and (type(count) is not int or count != len(names)):
        said = count if type(count) is int else "no whole number"
        raise DataError(f"{file}: 'nc' is {said}, but 'names' lists {len(names)} classes")
    return names


def _root(file: Path, path: object) -> Path:
    """The folder that `train` and `val` are relative to."""
    here = file.absolute().parent
    if path is None or path == "":
        return here
    if not isinstance(path, str) or "\0" in path:
        raise DataError(f"{file}: 'path' must be the text of a path")
    if kind_of(here / path) == "folder":
        return here / path
    if Path(path).name == here.name and not Path(path).is_absolute():
        return here  # Ultralytics' own files give the path from the folder that holds all data sets
    raise DataError(
        f"{file}: 'path' is '{printable(path)}', which is no folder; without it, it is the file's own folder"
    )


def _entries(file: Path, key: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    texts = [entry for entry in entries if isinstance(entry, str) and entry and "\0" not in entry]
    if not texts or len(texts) != len(entries):
        raise DataError(
            f"{file}: '{key}' must be a folder of images, a .txt file that lists images, or a list of these"
        )
    return texts


def _images(found: Labelled, file: Path, root: Path, key: str, value: object) -> list[Path]:
    """The image files that `train` or `val` names, in a fixed order, each once."""
    images: dict[Path, None] = {}
    for entry in _entries(file, key, value):
        place = root / entry
        if not kind_of(place) and entry.startswith("../"):  # Roboflow's exports begin so, and mean the file's folder
            place = root / entry.removeprefix("../")
        kind = kind_of(place)
        if kind == "folder":
            images |= dict.fromkeys(_images_in(found, place, root))
        elif kind == "file" and place.suffix.lower() == ".txt":
            images |= dict.fromkeys(_listed(found, place, root))
        else:
            there = "is neither a folder nor a .txt file" if kind else "is not there"
            raise DataError(f"{file}: '{key}' names {printable(entry)[:200]}, which {there}")
    if not images and not found.problems:
        raise DataError(f"{file}: '{key}' names no image")
    return list(images)


def _images_in(found: Labelled, folder: Path, root: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in paths:
        if path.suffix.lower() in OTHER_SUFFIXES:
            found.blame(_shown(path, root), f"must be one of {', '.join(IMAGE_SUFFIXES)}; convert or move it")
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def _listed(found: Labelled, file: Path, root: Path) -> list[Path]:
    """The images of a list; a path that begins with `./` is relative to the list's folder, others to the root."""
    images = []
    for number, line in enumerate(_lines(found, file, root), start=1):
        name = line.strip()
        if not name:
            continue
        path = file.parent / name if name.startswith("./") else root / name
        if "\0" in name or kind_of(path) != "file":
            found.blame(f"{_shown(file, root)}, line {number}", f"there is no image {name[:200]}")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            found.blame(f"{_shown(file, root)}, line {number}", f"must be one of {', '.join(IMAGE_SUFFIXES)}")
        else:
            images.append(path)
    return images


def _lines(found: Labelled, file: Path, root: Path) -> list[str]:
    try:
        return read_text(file).removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError:
        found.blame(_shown(file, root), "is not UTF-8 text")
    except OSError as error:
        found.blame(_shown(file, root), f"cannot be read: {error.strerror}")
    return []


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _label_file(image: Path) -> Path:
    """The last folder `images` of the path becomes `labels`; without one, the labels are beside the image."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_image(found: Labelled, path: Path, root: Path, missing: list[Path]) -> LabelledImage | None:
    (width, height), fault = size_of(path, upright=True)
    if fault:
        found.blame(_shown(path, root), fault)
    file = _label_file(path)
    if not file.exists():
        missing.append(file)
        return None if fault else LabelledImage(path, width, height, [])
    boxes: list[LabelledBox] = []
    for number, line in enumerate(_lines(found, file, root), start=1):
        if not line.split():
            continue
        box = _read_box(line.split(), found.names, width, height)
        if isinstance(box, str):
            found.blame(f"{_shown(file, root)}, line {number}", box)
        else:
            boxes.append(box)
    return None if fault else LabelledImage(path, width, height, boxes)


def _read_box(words: list[str], names: list[str], width: int, height: int) -> LabelledBox | str:
    """The box of one line, or what is wrong with it."""
    if len(words) >= 7 and len(words) % 2:
        return f"a polygon of {len(words) // 2} points; only boxes are read ('class cx cy w h')"
    if len(words) != 5:
        return f"must be 'class cx cy w h', has {len(words)} values"
    try:
        label, *shares = (float(word) for word in words)
    except ValueError:
        return f"must be five numbers 'class cx cy w h', got '{' '.join(words)[:100]}'"
    if not label.is_integer() or not 0 <= label < len(names):
        return f"class must be a whole number from 0 to {len(names) - 1}, got {words[0][:100]}"
    if not all(math.isfinite(share) and 0 <= share <= MAX_SHARE for share in shares):
        return f"cx, cy, w and h must be shares of the image from 0 to 1, got {' '.join(words[1:])[:100]}"
    center_x, center_y, wide, tall = shares
    if wide == 0 or tall == 0:
        return f"an empty box: w {wide:g}, h {tall:g}"
    left, top = (center_x - wide / 2) * width, (center_y - tall / 2) * height
    return names[int(label)], left, top, wide * width, tall * height
