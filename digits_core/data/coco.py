"""COCO annotations: reads, checks and writes them."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from digits_core.errors import DataError, printable
from digits_core.labels import DIGITS, NUM_DIGITS, Categories, coco_categories

MAX_OVERHANG_PX = 2.0
MAX_OVERHANG_SHARE = 0.1
"""A box may exceed its image by the larger of the two; it is clipped and counted, which is not a problem."""

MAX_CATEGORIES = 255
"""The largest number of classes; labels are stored in one byte."""

MAX_NAME_LETTERS = 1000

MAX_IMAGE_PIXELS = 64_000_000
"""Larger images are refused before they are decoded, as a protection against decompression bombs."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of the data, and its location."""

    file: str
    text: str
    image_id: int | None = None
    annotation_id: int | None = None

    def __str__(self) -> str:
        where = [self.file]
        if self.image_id is not None:
            where.append(f"image {self.image_id}")
        if self.annotation_id is not None:
            where.append(f"annotation {self.annotation_id}")
        return printable(f"{', '.join(where)}: {self.text}")


@dataclass(slots=True)
class Part:
    """The annotations of one split, checked for consistency; images are not opened yet.

    Attributes:
        name: `train` or `valid`.
        source: the name of the annotation file, for messages.
        images: image id to (file name, width, height).
        boxes: image id to rows of (annotation id, x_min, y_min, x_max, y_max, category id, crowd).
        problems: the problems found so far.
        clipped: the number of boxes that exceeded the image slightly and were clipped.
        categories: the classes; the ten digits if the file does not define others.
    """

    name: str
    source: str
    images: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    boxes: dict[int, list[tuple[int, float, float, float, float, int, bool]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    clipped: int = 0
    categories: Categories = DIGITS

    def blame(self, text: str, image_id: int | None = None, annotation_id: int | None = None) -> None:
        """Add a problem."""
        self.problems.append(Problem(self.source, text, image_id, annotation_id))

    def drop_image(self, image_id: int) -> None:
        """Remove an image and its boxes."""
        del self.images[image_id]
        self.boxes.pop(image_id, None)


def read_part(name: str, path: Path, content: bytes) -> Part:
    """Read and check the annotations of one split.

    Args:
        name: `train` or `valid`.
        path: the file of `content`, for messages.
        content: the bytes of a COCO annotation file.

    Returns:
        The usable images and boxes, and all problems.

    Raises:
        DataError: the categories are not consistent.
    """
    part = Part(name, path.name)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        part.blame(f"invalid JSON: {error}")
        return part
    if not isinstance(tree, dict):
        part.blame("must be one JSON object with the lists images, annotations and categories")
        return part
    for key in ("images", "annotations"):
        if not isinstance(tree.get(key), list):
            part.blame(f"has no list '{key}'")
            return part
    used = (one.get("category_id") for one in tree["annotations"] if isinstance(one, Mapping))
    part.categories = read_categories(part.source, tree.get("categories"), used)
    for image in tree["images"]:
        _read_image(part, image)
    seen: set[int] = set()
    for annotation in tree["annotations"]:
        _read_box(part, annotation, seen)
    if not part.images:
        part.blame("an empty split: no usable image")
    elif not seen:
        part.blame("no annotations")
    return part


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a data set into; it is renamed to `folder` when it is complete.

    Raises:
        DataError: `folder` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is not empty; name a new folder")
    half = folder.with_name(f".{folder.name}.{os.getpid()}.half")
    half.mkdir(parents=True)
    try:
        yield half
        half.replace(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def write_annotations(
    path: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]] | None = None,
) -> None:
    """Write a COCO annotation file, of digits unless other categories are given."""
    tree = {"images": images, "annotations": annotations, "categories": categories or coco_categories()}
    path.write_text(json.dumps(tree), encoding="utf-8")


def refuse(problems: list[Problem], *, limit: int = 20) -> None:
    """Raise one error for all problems.

    Raises:
        DataError: `problems` is not empty.
    """
    if not problems:
        return
    lines = [str(problem) for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"and {len(problems) - limit} more")
    raise DataListError(
        f"the data has {len(problems)} problem{'s' * (len(problems) > 1)} (listed above); fix the data, or skip the "
        "affected images and boxes with --skip-bad",
        lines,
    )


class DataListError(DataError):
    """A DataError with one line per problem."""

    def __init__(self, sentence: str, lines: Iterable[str]) -> None:
        super().__init__(sentence)
        self.lines = list(lines)


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return int(value) if abs(value) < 2**53 and float(value).is_integer() else None


def read_categories(source: str, entries: object, used: Iterable[object]) -> Categories:
    """The classes of a file: the digits if it has no names or only digits as names, otherwise its own categories.

    The names of digits must fit their ids: 1 is "0", 10 is "9". Only categories that an annotation uses decide whether
    the classes are digits, so an unused root category does not matter.

    Args:
        source: the name of the annotation file, for messages.
        entries: the `categories` of the file.
        used: the category ids of its annotations.

    Raises:
        DataError: ids are wrong, or names do not fit them. Then no box is reliable, so --skip-bad does not help.
    """
    names: dict[int, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        number = _whole(entry.get("id")) if isinstance(entry, Mapping) else None
        if number is None:
            raise DataError(f"{source}: a category's id must be a whole number, got {printable(repr(entry)[:100])}")
        if number in names:
            raise DataError(f"{source}: two categories have the id {number}")
        name = entry.get("name")
        names[number] = " ".join(name.split())[:100] if isinstance(name, str) else ""
    wanted = {_whole(number) for number in used}
    named = {number: name for number, name in names.items() if name and (number in wanted or not wanted & names.keys())}
    if all(len(name) == 1 and name.isdigit() for name in named.values()):
        digits = dict(zip(DIGITS.ids, DIGITS.names, strict=True))
        for number, name in named.items():
            if name != digits.get(number):
                right = (
                    f"must be the digit '{digits[number]}'"
                    if number in digits
                    else "is not the id of a digit (1 to 10)"
                )
                raise DataError(f"{source}: category {number} is named '{name}', but id {number} {right}")
        return DIGITS
    if len(names) > MAX_CATEGORIES:
        raise DataError(f"{source}: has {len(names)} categories, more than {MAX_CATEGORIES}")
    ids = tuple(sorted(names))
    return Categories(ids, tuple(names[number] or str(number) for number in ids))


def is_plain_path(name: str) -> bool:
    """Whether a name is a relative path that does not leave its folder."""
    if not name or "\0" in name or len(name) > MAX_NAME_LETTERS:
        return False
    return not PurePosixPath(name).is_absolute() and ".." not in Path(name).parts


def _read_image(part: Part, image: object) -> None:
    if not isinstance(image, Mapping):
        part.blame("an entry of 'images' is not an object")
        return
    image_id, width, height = (_whole(image.get(key)) for key in ("id", "width", "height"))
    name = image.get("file_name")
    if image_id is None:
        part.blame(f"an image's id must be a whole number, got {image.get('id')!r}")
    elif image_id in part.images:
        part.blame("two images have this id", image_id)
    elif not isinstance(name, str) or not is_plain_path(name):
        part.blame(f"file_name must be a path inside the image folder, got {name!r}"[:200], image_id)
    elif width is None or height is None or width < 1 or height < 1:
        part.blame(
            f"width and height must be whole numbers above 0, got {image.get('width')!r} x {image.get('height')!r}",
            image_id,
        )
    else:
        part.images[image_id] = (name, width, height)


def _read_box(part: Part, annotation: object, seen: set[int]) -> None:
    if not isinstance(annotation, Mapping):
        part.blame("an entry of 'annotations' is not an object")
        return
    number, image_id, category = (_whole(annotation.get(key)) for key in ("id", "image_id", "category_id"))
    if number is None:
        part.blame(f"an annotation's id must be a whole number, got {annotation.get('id')!r}", image_id)
        return
    if number in seen:
        part.blame("two annotations have this id", image_id, number)
        return
    seen.add(number)
    if image_id is None or image_id not in part.images:
        part.blame(f"image_id {annotation.get('image_id')!r} does not exist", None, number)
        return
    if category is None or category not in part.categories.ids:
        allowed = f"must be from 1 to {NUM_DIGITS} (1 is the digit '0')"
        if not part.categories.are_digits:
            allowed = "must be one of the categories of the file"
        part.blame(f"category_id {allowed}, got {annotation.get('category_id')!r}", image_id, number)
        return
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        part.blame(f"iscrowd must be 0 or 1, got {crowd!r}", image_id, number)
        return
    box = _inside(part, annotation.get("bbox"), image_id, number)
    if box is not None:
        part.boxes.setdefault(image_id, []).append((number, *box, category, bool(crowd)))


def _inside(part: Part, bbox: object, image_id: int, number: int) -> tuple[float, float, float, float] | None:
    """The box as xyxy, clipped if it exceeds the image slightly; None, and a new problem, if it is not usable."""
    sides = bbox if isinstance(bbox, list) and len(bbox) == 4 else []
    if not sides or not all(isinstance(side, int | float) and abs(side) < 2**53 for side in sides):
        part.blame(f"bbox must be [x_min, y_min, width, height] in pixels, got {bbox!r}"[:200], image_id, number)
        return None
    x_min, y_min, wide, tall = (float(side) for side in sides)
    if wide <= 0 or tall <= 0:
        part.blame(f"the box is empty: {wide:g} x {tall:g} px", image_id, number)
        return None
    _, width, height = part.images[image_id]
    box = np.array([x_min, y_min, x_min + wide, y_min + tall])
    inside = np.clip(box, 0, [width, height, width, height])
    allowed = np.maximum(MAX_OVERHANG_PX, MAX_OVERHANG_SHARE * np.array([wide, tall, wide, tall]))
    overhang = np.abs(box - inside)
    if (overhang > allowed).any() or (inside[2:] - inside[:2] <= 0).any():
        part.blame(
            f"box [{x_min:g}, {y_min:g}, {wide:g}, {tall:g}] leaves its {width} x {height} image", image_id, number
        )
        return None
    part.clipped += bool(overhang.any())
    left, top, right, bottom = inside.tolist()
    return left, top, right, bottom


def summary(table: "Table") -> dict[str, Any]:
    """Numbers of one part of a data set, as values for JSON: images, boxes, their sizes in pixels."""
    sides, widths = table.boxes[:, 2:] - table.boxes[:, :2], table.sizes[:, 0]
    return {
        "images": len(table.image_ids),
        "image_width_px": [int(widths.min()), int(widths.max())] if len(widths) else None,
        "boxes": len(sides),
        "median_box_px": np.median(sides, axis=0).tolist() if len(sides) else None,
        "images_by_boxes": dict(sorted(Counter(map(str, np.diff(table.box_start).tolist())).items(), key=_as_number)),
    }


def _as_number(item: tuple[str, int]) -> int:
    return int(item[0])


def describe(parts: Mapping[str, "Table"]) -> list[str]:
    """A short description of a data set, one line per part."""
    lines = []
    for name, table in parts.items():
        found = summary(table)
        if not found["images"]:
            continue
        what = "digits" if table.categories.are_digits else "boxes"
        digits = f"no {what}"
        if found["boxes"]:
            wide, tall = found["median_box_px"]
            counts = ", ".join(f"{number}: {count}" for number, count in found["images_by_boxes"].items())
            digits = f"{found['boxes']} {what}, median {wide:.0f} x {tall:.0f} px; {what} per image {counts}"
        least, most = found["image_width_px"]
        lines.append(f"{name}: {found['images']} images, {least} to {most} px wide; {digits}")
    others = next((table.categories for table in parts.values() if not table.categories.are_digits), None)
    if others is not None:
        lines.append(printable(f"{others.words}: these are not digits, so no numbers are read"))
    return lines


def starts_of(counts: ArrayLike) -> NDArray[np.int64]:
    """Where the rows of each image begin, and where the last ones end, from the number of rows of each image."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Table:
    """The annotations of one split as arrays; image i has the boxes box_start[i] to box_start[i + 1] - 1.

    Attributes:
        image_ids: int64 [num_images], ascending.
        sizes: int32 [num_images, 2], width and height in pixels.
        box_start: int64 [num_images + 1].
        boxes: float32 [num_boxes, 4], xyxy, pixels of the original image.
        labels: int64 [num_boxes], the labels of the detector: 1 is the first category. For digits, the category ids.
        crowds: bool [num_boxes]; training and evaluation ignore crowds.
        categories: the classes.
    """

    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    box_start: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowds: NDArray[np.bool_]
    categories: Categories = DIGITS

    @classmethod
    def from_part(cls, part: Part) -> "Table":
        """The arrays of a checked part, with images in the order of their ids."""
        ids = sorted(part.images)
        rows = [part.boxes.get(image_id, []) for image_id in ids]
        flat = [row for some in rows for row in some]
        return cls(
            image_ids=np.array(ids, dtype=np.int64),
            sizes=np.array([part.images[number][1:] for number in ids], dtype=np.int32).reshape(-1, 2),
            box_start=starts_of([len(some) for some in rows]),
            boxes=np.array([row[1:5] for row in flat], dtype=np.float32).reshape(-1, 4),
            labels=np.array([part.categories.label_of(row[5]) for row in flat], dtype=np.int64),
            crowds=np.array([row[6] for row in flat], dtype=bool),
            categories=part.categories,
        )

    def some(self, images: NDArray[np.int64]) -> "Table":
        """The annotations of the images with the given indices."""
        counts = np.diff(self.box_start)[images]
        start = starts_of(counts)
        rows = np.repeat(self.box_start[images] - start[:-1], counts) + np.arange(start[-1])
        return Table(
            self.image_ids[images],
            self.sizes[images],
            start,
            self.boxes[rows],
            self.labels[rows],
            self.crowds[rows],
            self.categories,
        )
