"""Writes and checks the files of the course: pred.json (Task 1), pred.csv (Task 2), submission.zip with both."""

import codecs
import csv
import io
import json
import lzma
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits_core.errors import DataError, printable
from digits_core.evaluation.transcribe import NO_NUMBER
from digits_core.files import is_inside, read_whole
from digits_core.labels import NUM_DIGITS

PRED_JSON, PRED_CSV, SUBMISSION = "pred.json", "pred.csv", "submission.zip"

HEADER = ["image_id", "pred_label"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

OTHER_SUFFIXES = (".tif", ".tiff", ".gif", ".heic", ".avif", ".ppm", ".jp2")
"""Image formats that are not supported; such a file is an error, so that it is not missed."""

EDGE_PX = 0.01
"""A box may exceed its image by this much, because coordinates are rounded."""

NOTE = "note: "
"""The prefix of a remark that is not an error, but may be unintended."""

COUNTED = 100
"""COCO counts only this many detections of an image."""

MAX_DIGITS = 18
"""The largest number of digits in the number of an image, so that it fits into int64."""

MAX_FILE_BYTES = 2**28
"""The largest file, or member of a zip file, that is checked; 13,068 images with 100 detections each need 150 MB."""

PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Detection:
    """One line of pred.json: `bbox` is x_min, y_min, width, height in pixels of the original image."""

    image_id: int
    bbox: tuple[float, float, float, float]
    score: float
    category_id: int

    def to_json(self) -> dict[str, Any]:
        """The object in the file."""
        return {
            "image_id": self.image_id,
            "bbox": list(self.bbox),
            "score": self.score,
            "category_id": self.category_id,
        }


def numbered_images(folder: Path) -> dict[int, Path]:
    """The images of a folder by their number, ascending: `12.png` is image 12.

    Raises:
        DataError: there is no such folder, it has no image, a name is not a number, or two files have the same number.
    """
    if not folder.is_dir():
        raise DataError(f"{printable(str(folder))}: no such folder of images")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            if path.suffix.lower() in OTHER_SUFFIXES:
                raise DataError(
                    f"{printable(str(path))}: an image must be one of {', '.join(SUFFIXES)}; convert it or remove it"
                )
            continue
        if not (path.stem.isascii() and path.stem.isdigit()) or len(path.stem) > MAX_DIGITS:
            raise DataError(
                f"{printable(str(path))}: the name of an image must be a number, like 12.png; rename it or remove it"
            )
        number = int(path.stem)
        if not is_inside(path, folder):
            raise DataError(f"{printable(str(path))}: is a link that leaves the folder of images")
        if number in found:
            raise DataError(f"{printable(str(path))}: {found[number].name} has the same number")
        found[number] = path
    if not found:
        raise DataError(f"{printable(str(folder))}: contains no image ({', '.join(SUFFIXES)})")
    return dict(sorted(found.items()))


def write_submission(folder: Path, detections: Sequence[Detection], numbers: Mapping[int, str] | None) -> list[str]:
    """Write pred.json and, if there are numbers, pred.csv and submission.zip into a folder.

    Args:
        folder: an existing folder.
        detections: of all images, for Task 1.
        numbers: the number of every image, for Task 2; None if the classes are not digits.

    Returns:
        The names of the files.
    """
    (folder / PRED_JSON).write_text(json.dumps([one.to_json() for one in detections]), encoding="utf-8")
    if numbers is None:
        return [PRED_JSON]
    with (folder / PRED_CSV).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(sorted(numbers.items()))
    with zipfile.ZipFile(folder / SUBMISSION, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (PRED_JSON, PRED_CSV):
            archive.write(folder / name, name)
    return [PRED_JSON, PRED_CSV, SUBMISSION]


def check_file(path: Path, sizes: Mapping[int, tuple[int, int] | None]) -> Iterator[str]:
    """The problems of a pred.json, a pred.csv or a submission.zip, one sentence each.

    Args:
        path: the file.
        sizes: width and height of each image by its number, in pixels; None if it cannot be read.

    Raises:
        DataError: the file cannot be read, or is not one of these three.
    """
    kind = path.suffix.lower()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{printable(str(path))}: too large, more than {MAX_FILE_BYTES / 2**20:.0f} MiB")
        if kind == ".json":
            yield from check_json(read_whole(path, MAX_FILE_BYTES), sizes)
        elif kind == ".csv":
            yield from check_csv(read_whole(path, MAX_FILE_BYTES), sizes)
        elif kind == ".zip":
            yield from _check_zip(path, sizes)
        else:
            raise DataError(f"{printable(str(path))}: must be a .json, a .csv or a .zip file")
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from None


def _check_zip(path: Path, sizes: Mapping[int, tuple[int, int] | None]) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in (PRED_JSON, PRED_CSV):
                if name not in names:
                    yield f"contains no {name} at its root"
                else:
                    content = _member(archive, name)
                    check = check_json if name == PRED_JSON else check_csv
                    for problem in check(content, sizes):
                        note = NOTE if problem.startswith(NOTE) else ""
                        yield f"{note}{name}: {problem.removeprefix(NOTE)}"
            for name in names:
                if name not in (PRED_JSON, PRED_CSV):
                    yield f"contains {printable(name)}, which does not belong to a submission"
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError,
        ValueError, OverflowError,
    ) as error:  # fmt: skip
        yield f"is not a complete zip file: {error}"


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member, read in pieces, because the size that the archive states may be wrong.

    Raises:
        BadZipFile: it is larger than MAX_FILE_BYTES.
    """
    pieces, size = [], 0
    with archive.open(name) as file:
        while piece := file.read(PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_FILE_BYTES:
                raise zipfile.BadZipFile(f"{name} is larger than {MAX_FILE_BYTES / 2**20:.0f} MiB")
    return b"".join(pieces)


def check_json(content: bytes, sizes: Mapping[int, tuple[int, int] | None]) -> Iterator[str]:
    """The problems of the content of a pred.json."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        yield f"invalid JSON: {error}"
        return
    if not isinstance(entries, list):
        yield "must be one JSON list of detections"
        return
    seen: Counter[int] = Counter()
    lines: set[str] = set()
    twice = 0
    for number, entry in enumerate(entries):
        problem = _entry_problem(entry, sizes)
        if problem:
            yield f"entry {number}: {problem}"
            continue
        seen[entry["image_id"]] += 1
        line = json.dumps(entry, sort_keys=True)
        twice += line in lines
        lines.add(line)
    without = len(sizes) - len(seen)
    crowded = [image for image, count in seen.items() if count > COUNTED]
    if without:
        yield f"{NOTE}{without} of {len(sizes)} images have no detection"
    if crowded:
        yield f"{NOTE}image {crowded[0]} has {seen[crowded[0]]} detections, and {len(crowded) - 1} more have over " + (
            f"{COUNTED}; COCO counts the best {COUNTED} of an image"
        )
    if twice:
        yield f"{NOTE}{twice} detections are duplicates"


def _entry_problem(entry: object, sizes: Mapping[int, tuple[int, int] | None]) -> str | None:
    """The first problem of one detection; None if there is none."""
    if not isinstance(entry, Mapping):
        return "is not an object"
    missing = [key for key in ("image_id", "bbox", "score", "category_id") if key not in entry]
    if missing:
        return f"has no '{missing[0]}'"
    image_id, category = entry["image_id"], entry["category_id"]
    if not _is_int(image_id) or image_id not in sizes:
        return f"image_id {printable(repr(image_id))} is not an image of the folder"
    if not _is_int(category) or not 1 <= category <= NUM_DIGITS:
        return f"category_id must be a whole number from 1 to {NUM_DIGITS}, got {printable(repr(category))}"
    if not _is_finite(entry["score"]) or not 0 <= entry["score"] <= 1:
        return f"score must be a number from 0 to 1, got {printable(repr(entry['score']))}"
    bbox = entry["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_finite(side) for side in bbox):
        return f"bbox must be [x_min, y_min, width, height] of finite numbers, got {printable(repr(bbox)[:80])}"
    x_min, y_min, wide, tall = bbox
    if wide <= 0 or tall <= 0:
        return f"the box is empty: {wide:g} x {tall:g} px"
    size = sizes[image_id]
    if size is not None and (
        min(x_min, y_min) < -EDGE_PX or x_min + wide > size[0] + EDGE_PX or y_min + tall > size[1] + EDGE_PX
    ):
        return f"box {bbox} leaves its {size[0]} x {size[1]} image"
    return None


def check_csv(content: bytes, sizes: Mapping[int, tuple[int, int] | None]) -> Iterator[str]:
    """The problems of the content of a pred.csv."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"is not a CSV file in UTF-8: {error}"
        return
    if content.startswith(codecs.BOM_UTF8):
        yield "begins with a byte-order mark, which Excel writes; save it as plain UTF-8"
        return
    if not rows or rows[0] != HEADER:
        yield f"must begin with the line {','.join(HEADER)}, got {printable(','.join(rows[0]) if rows else 'nothing')}"
        return
    seen: dict[int, int] = {}
    last = -math.inf
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 2:
            yield f"line {line}: must have two columns, image_id and pred_label, got {len(row)}"
            continue
        image, label = row
        if not (image.isascii() and image.isdigit()) or len(image) > MAX_DIGITS or int(image) not in sizes:
            yield f"line {line}: image_id {printable(repr(image))} is not an image of the folder"
            continue
        number = int(image)
        if number in seen:
            yield f"line {line}: image {number} is already in line {seen[number]}"
        elif number < last:
            yield f"line {line}: image {number} comes after {last:.0f}; sort the lines by number"
        seen.setdefault(number, line)
        last = max(last, number)
        if label != NO_NUMBER and not (label.isascii() and label.isdigit()):
            yield f"line {line}: pred_label must be digits, or {NO_NUMBER} for none, got {printable(repr(label))}"
    missing = [number for number in sizes if number not in seen]
    if missing:
        few = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        yield f"images without a line: {few}"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    """Whether a value is a finite number; JSON integers can be too large for floating point."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
