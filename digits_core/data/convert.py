"""Data sets of other formats to a COCO folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits_core.data.coco import MAX_CATEGORIES, DataListError, new_folder, write_annotations
from digits_core.data.formats import STRUCT_FILE, SVHN, VOC, YOLO, Labelled, LabelledImage, format_of, place_image
from digits_core.data.source import draw_by_hash
from digits_core.data.svhn import convert_svhn
from digits_core.data.voc import read_voc
from digits_core.data.yolo import read_yolo
from digits_core.errors import DataError
from digits_core.labels import DIGITS, category_of

MAX_LISTED = 20
"""Problems printed before the rest is only counted."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted: the format, the images of each part, and sentences for the user."""

    format: str
    counts: dict[str, int]
    notes: list[str]


def convert(place: Path, out: Path, *, valid_fraction: float, seed: int, link: bool) -> Conversion:
    """Turn a data set of another format into a COCO folder.

    Args:
        place: SVHN's folders, a YOLO folder or its YAML file, or a Pascal VOC folder.
        out: a new or empty folder.
        valid_fraction: share of the training images set apart as valid, if there is no validation part.
        seed: another one sets other images apart.
        link: hard-link the images instead of copying them.

    Raises:
        DataError: nothing to convert, or the data has problems; nothing is written then.
        UsageError: a package is missing, or the file system cannot make hard links.
    """
    kind = format_of(place)
    if kind == SVHN:
        counts = convert_svhn(place, out, valid_fraction=valid_fraction, seed=seed, link=link)
        return Conversion(kind, counts, [])
    if kind == YOLO:
        found = read_yolo(place)
    elif kind == VOC:
        found = read_voc(place)
    elif place.is_dir():
        raise DataError(
            f"{place}: contains no {STRUCT_FILE} (SVHN), no data.yaml (YOLO) and no Annotations/*.xml (Pascal VOC)"
        )
    else:
        raise DataError(f"{place}: must be a folder, or the YAML file of a YOLO folder")
    _refuse(place, found)
    if "valid" not in found.splits:
        _set_apart(place, found, valid_fraction, seed)
    with new_folder(out) as half:
        for split, images in found.splits.items():
            _write(half, split, images, category_ids(found.names), link=link)
    return Conversion(kind, {split: len(images) for split, images in found.splits.items()}, found.notes)


def category_ids(names: list[str]) -> dict[str, int]:
    """The category id of each class name.

    A digit has the id that it has everywhere: 1 for "0", 10 for "9". Other names are numbered in their order, from 1,
    or from 11 if a digit is among the names. (If all names are digits, the file lists all ten.)
    """
    digits = {name: category_of(int(name)) for name in names if name in DIGITS.names}
    first = len(DIGITS.names) + 1 if digits else 1
    others = [name for name in names if name not in digits]
    return digits | {name: number for number, name in enumerate(others, start=first)}


def _refuse(place: Path, found: Labelled) -> None:
    if found.problems:
        lines = [str(problem) for problem in found.problems[:MAX_LISTED]]
        if len(found.problems) > MAX_LISTED:
            lines.append(f"and {len(found.problems) - MAX_LISTED} more")
        many = "problem" if len(found.problems) == 1 else "problems"
        raise DataListError(f"{place}: {len(found.problems)} {many} (listed above); nothing was converted", lines)
    if len(found.names) > MAX_CATEGORIES:
        raise DataError(f"{place}: has {len(found.names)} classes, more than {MAX_CATEGORIES}")


def _set_apart(place: Path, found: Labelled, valid_fraction: float, seed: int) -> None:
    images = found.splits["train"]
    if len(images) < 2:
        raise DataError(f"{place}: has one image and no validation part; at least two images are needed")
    chosen = draw_by_hash(range(len(images)), valid_fraction, f"{seed}")
    if len(chosen) == len(images):
        raise DataError(f"{place}: --valid-fraction {valid_fraction:g} of {len(images)} images leaves none to train on")
    found.splits["valid"] = [image for number, image in enumerate(images) if number in chosen]
    found.splits["train"] = [image for number, image in enumerate(images) if number not in chosen]


def _write(half: Path, split: str, images: list[LabelledImage], ids: dict[str, int], *, link: bool) -> None:
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    taken: set[str] = set()
    for image_id, image in enumerate(images, start=1):
        name = image.path.name
        while name in taken:  # of another folder
            name = f"{image_id}_{name}"
        taken.add(name)
        place_image(image.path, half / split / name, link=link)
        rows.append({"id": image_id, "file_name": name, "width": image.width, "height": image.height})
        annotations.extend(
            {
                "id": number,
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (label, *box) in enumerate(image.boxes, start=len(annotations) + 1)
        )
    named = ids if not ids.keys() <= set(DIGITS.names) else dict(zip(DIGITS.names, DIGITS.ids, strict=True))
    categories = [{"id": number, "name": name} for name, number in sorted(named.items(), key=lambda pair: pair[1])]
    write_annotations(half / f"{split}.json", rows, annotations, categories)
