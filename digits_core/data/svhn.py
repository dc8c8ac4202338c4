"""Converts the SVHN format (digitStruct.mat and numbered PNGs) to a COCO folder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from digits_core.data.coco import new_folder, write_annotations
from digits_core.data.formats import STRUCT_FILE, place_image
from digits_core.data.source import NOT_AN_IMAGE
from digits_core.errors import DataError, UsageError
from digits_core.labels import category_of

Box = tuple[float, float, float, float, int]
"""left, top, width, height in pixels, and the digit 0..9."""


def read_digit_struct(path: Path) -> Iterator[tuple[str, list[Box]]]:
    """The file name and boxes of each image.

    Args:
        path: a digitStruct.mat, MATLAB 7.3 (HDF5).

    Raises:
        DataError: the file is missing, is not HDF5, or has another layout.
        UsageError: h5py is not installed.

    Source:
        the description on the SVHN page: `label` is 1..9 for the digits 1 to 9 and 10 for the digit 0.
    """
    try:
        import h5py
    except ImportError:
        raise UsageError("reading digitStruct.mat needs the package h5py: pip install 'digit-search[svhn]'") from None
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            names, groups = file["digitStruct/name"], file["digitStruct/bbox"]
            for row in range(len(names)):
                name = "".join(chr(int(code)) for code in file[names[row, 0]][()].ravel())
                yield name, _boxes(file, file[groups[row, 0]])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged or not a digitStruct.mat file: {error}") from None


def convert_svhn(source: Path, out: Path, *, valid_fraction: float, seed: int, link: bool = False) -> dict[str, int]:
    """Convert the SVHN folders into one COCO folder.

    Args:
        source: contains `train/` (and `extra/`, `test/`), each with digitStruct.mat and PNGs; or is such a folder.
        out: a new or empty folder; images are copied into it.
        valid_fraction: share of the training images that become validation images, by a hash of their names.
        seed: of this split.
        link: hard-link the images instead of copying them.

    Returns:
        The number of written images per split.

    Raises:
        DataError: there is nothing to convert, or an image is missing or damaged.
    """
    parts = [source / name for name in ("train", "extra", "test") if (source / name / STRUCT_FILE).is_file()]
    if not parts and (source / STRUCT_FILE).is_file():
        parts = [source]
    if not parts:
        raise DataError(f"{source}: contains no {STRUCT_FILE}, and neither do train/, extra/ and test/ in it")
    with new_folder(out) as half:
        return _convert(parts, half, valid_fraction=valid_fraction, seed=seed, link=link)


def _convert(parts: list[Path], out: Path, *, valid_fraction: float, seed: int, link: bool) -> dict[str, int]:
    from PIL import Image

    images: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    annotations: dict[str, list[dict[str, Any]]] = {name: [] for name in images}
    for part in parts:
        for name, boxes in read_digit_struct(part / STRUCT_FILE):
            split = "test" if part.name == "test" else _split(f"{part.name}/{name}", valid_fraction, seed)
            picture = part / name
            if Path(name).name != name or not picture.is_file():
                raise DataError(f"{part / STRUCT_FILE} refers to the image {name}, which does not exist")
            try:
                with Image.open(picture) as image:
                    width, height = image.size
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                raise DataError(f"{picture} cannot be read: {NOT_AN_IMAGE}") from None
            image_id = len(images[split]) + 1
            target = f"{image_id}{picture.suffix}"
            place_image(picture, out / split / target, link=link)
            images[split].append({"id": image_id, "file_name": target, "width": width, "height": height})
            for left, top, wide, tall, digit in boxes:
                annotations[split].append(
                    {
                        "id": len(annotations[split]) + 1,
                        "image_id": image_id,
                        "category_id": category_of(digit),
                        "bbox": [left, top, wide, tall],
                        "area": wide * tall,
                        "iscrowd": 0,
                    }
                )
    for split, rows in images.items():
        if rows:
            write_annotations(out / f"{split}.json", rows, annotations[split])
    return {split: len(rows) for split, rows in images.items() if rows}


def _boxes(file: Any, group: Any) -> list[Box]:
    """The boxes of one image; MATLAB stores one box as plain numbers, but several boxes as references to numbers."""
    columns = []
    for key in ("left", "top", "width", "height", "label"):
        values = group[key]
        if len(values) == 1:
            columns.append([float(values[0, 0])])
        else:
            columns.append([float(file[values[row, 0]][0, 0]) for row in range(len(values))])
    return [(left, top, wide, tall, int(label) % 10) for left, top, wide, tall, label in zip(*columns, strict=True)]


def _split(name: str, valid_fraction: float, seed: int) -> str:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return "valid" if int.from_bytes(digest, "big") < valid_fraction * 2**64 else "train"
