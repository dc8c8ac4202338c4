"""The source of a data set: reads and checks its annotations, and decodes its images."""

import hashlib
import io
import json
import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits_core.config.fields import wrong_field
from digits_core.data.coco import MAX_IMAGE_PIXELS, Part, Problem, Table, read_part
from digits_core.data.formats import SVHN, format_of
from digits_core.errors import DataError, printable
from digits_core.files import is_inside, read_whole

Pixels = NDArray[np.uint8]

DRAWN = "drawn"

MAX_ANNOTATION_BYTES = 2 * 2**30
MAX_IMAGE_BYTES = 256 * 2**20

NOT_AN_IMAGE = "it is not a complete image file"

FORMAT = 2
"""The version of the format of decoded files; it is a part of the fingerprint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSource:
    """The source of a data set; it is sent to every worker as plain values.

    Attributes:
        folder: `drawn`, or the path or address of a COCO folder.
        train_json, valid_json: annotation files, relative to the folder.
        train_dir, valid_dir: image folders, relative to the folder.
        valid_fraction: share of the training images that become validation images if there are none.
        split_seed: seed of this split.
        skip_bad: skip images and boxes with problems, and count them.
        confirm_fraction: share of the validation images that are not used for selection.
        drawn_train, drawn_valid, drawn_seed: numbers of images and seed of the drawn data.
    """

    folder: str = DRAWN
    train_json: str = "train.json"
    valid_json: str = "valid.json"
    train_dir: str = "train"
    valid_dir: str = "valid"
    valid_fraction: float = 0.1
    split_seed: int = 0
    skip_bad: bool = False
    confirm_fraction: float = 0.0
    drawn_train: int = 320
    drawn_valid: int = 160
    drawn_seed: int = 0

    def __post_init__(self) -> None:
        """Check that every value has its type.

        Raises:
            DataError: a value has a wrong type, or is text with a null character, which no file name can contain.
        """
        wrong = wrong_field(self)
        if wrong is not None:
            raise DataError(f"data: '{wrong}' cannot be {getattr(self, wrong)!r}")


def check_data(source: DataSource) -> tuple[dict[str, Table], list[Problem], dict[str, int]]:
    """Read the whole data set once and return all problems, without writing anything.

    Returns:
        The tables of usable images and boxes, all problems, and the counts for `DigitData.notes`.
    """
    parts = _read_parts(source)
    for _ in _decode(source, parts):
        pass
    problems = [problem for part in parts for problem in part.problems]
    return {part.name: Table.from_part(part) for part in parts}, problems, notes_of(parts)


def notes_of(parts: list[Part]) -> dict[str, int]:
    """The numbers of clipped boxes, skipped items and crowd boxes."""
    return {
        "clipped_boxes": sum(part.clipped for part in parts),
        "skipped": sum(len(part.problems) for part in parts),
        "crowd_boxes": sum(row[6] for part in parts for rows in part.boxes.values() for row in rows),
    }


def _read(path: Path, what: str) -> bytes:
    try:
        return read_whole(path, MAX_ANNOTATION_BYTES)
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}") from None


def _annotation_files(source: DataSource) -> list[tuple[str, Path]]:
    """Name and annotation file of each part; a single part must be split later."""
    folder = Path(source.folder)
    kind = None if (folder / source.train_json).is_file() else format_of(folder)
    if kind is not None:
        named = printable(shlex.quote(source.folder))
        raise DataError(
            f"--data {printable(source.folder)}: this is {'an' if kind == SVHN else 'a'} {kind} folder; "
            f"convert it first with: digit-search data convert {named} -o OUT"
        )
    if not folder.is_dir():
        hint = f"; '{DRAWN}' is the built-in data" if not folder.exists() else " (it is a file)"
        raise DataError(f"--data {printable(source.folder)}: no such folder{hint}")
    train = folder / source.train_json
    if not train.is_file():
        raise DataError(
            f"--data {printable(source.folder)}: contains no {source.train_json}; a COCO folder has train.json, "
            "valid.json, train/ and valid/ (other names: --train-json, --valid-json, --train-dir, --valid-dir)"
        )
    valid = folder / source.valid_json
    if source.valid_json != DataSource().valid_json and not valid.is_file():
        raise DataError(
            f"--valid-json {printable(source.valid_json)}: {printable(source.folder)} contains no such file"
        )
    return [("train", train), *([("valid", valid)] if valid.is_file() else [])]


def fingerprint_of(source: DataSource) -> str:
    """32 hex digits for the annotations, the image files and how they are split."""
    digest = hashlib.blake2b(digest_size=16)
    if source.folder == DRAWN:
        from importlib.metadata import version

        import cv2
        import PIL

        from digits_core.data import drawn as synthetic

        # The drawing code and its libraries determine the pixels; importing albumentations takes seconds.
        versions = [np.__version__, cv2.__version__, PIL.__version__, version("albumentations")]
        digest.update(json.dumps([FORMAT, _read_from(source), versions]).encode())
        digest.update(Path(synthetic.__file__).read_bytes())
        return digest.hexdigest()
    files = _annotation_files(source)
    how = _read_from(source) | {"folder": "", "format": FORMAT}
    digest.update(json.dumps(how, sort_keys=True).encode())
    for name, path in files:
        content = _read(path, "annotation file")
        digest.update(content)
        folder = _image_folder(source, name)
        paths = [folder / file_name for file_name, _, _ in read_part(name, path, content).images.values()]
        with ThreadPoolExecutor() as pool:
            for file_digest in pool.map(_file_digest, paths):
                digest.update(file_digest)
    return digest.hexdigest()


def _read_from(source: DataSource) -> dict[str, object]:
    """The fields that determine the decoded files; `confirm_fraction` is applied afterwards."""
    return {name: value for name, value in asdict(source).items() if name != "confirm_fraction"}


def _file_digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(read_whole(path, MAX_IMAGE_BYTES), digest_size=16).digest()
    except OSError:
        return b"unreadable"


def _image_folder(source: DataSource, name: str) -> Path:
    return Path(source.folder) / (source.train_dir if name == "train" else source.valid_dir)


def _read_parts(source: DataSource) -> list[Part]:
    parts = [read_part(name, path, _read(path, "annotation file")) for name, path in _annotation_files(source)]
    if len(parts) == 1:
        return _set_apart(source, parts[0])
    train, valid = parts
    if train.images and valid.images and train.categories != valid.categories:
        raise DataError(
            f"{valid.source} has other categories ({printable(valid.categories.words)}) than {train.source} "
            f"({printable(train.categories.words)}); both must have the same ids and names"
        )
    return parts


def draw_by_hash(ids: Iterable[int], fraction: float, salt: str) -> set[int]:
    """A share of some ids, at least one, by a hash of each: with a few more ids, the choice changes only a little."""

    def rank(image_id: int) -> bytes:
        return hashlib.blake2b(f"{salt}:{image_id}".encode(), digest_size=8).digest()

    ordered = sorted(ids, key=rank)
    return set(ordered[: max(1, round(len(ordered) * fraction))])


def _set_apart(source: DataSource, whole: Part) -> list[Part]:
    """Split a training part into training and validation by a hash of its image ids (see `draw_by_hash`)."""
    if not 0 < source.valid_fraction < 1:
        raise DataError(f"--valid-fraction must be between 0 and 1, got {source.valid_fraction}")

    chosen = draw_by_hash(whole.images, source.valid_fraction, f"{source.split_seed}")
    train, valid = Part("train", whole.source), Part("valid", whole.source)
    train.problems, train.clipped = whole.problems, whole.clipped
    train.categories = valid.categories = whole.categories
    for image_id, image in whole.images.items():
        part = valid if image_id in chosen else train
        part.images[image_id] = image
        if image_id in whole.boxes:
            part.boxes[image_id] = whole.boxes[image_id]
    if not train.images and whole.images:
        train.blame("an empty split: every image became a validation image")
    return [train, valid]


def decode_image(path: Path, size: tuple[int, int] | None = None) -> tuple[Pixels | None, str]:
    """The RGB pixels of one image and an empty text, or None and the problem.

    Args:
        path: the file.
        size: the width and height that the image must have; None accepts any.
    """
    from PIL import Image

    try:
        content = read_whole(path, MAX_IMAGE_BYTES)
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                return None, f"is {image.width} x {image.height} px, more than {MAX_IMAGE_PIXELS:,} pixels"
            if size is not None and image.size != size:
                return None, f"is {image.width} x {image.height} px, but the annotations say {size[0]} x {size[1]}"
            return np.asarray(image.convert("RGB")), ""
    except FileNotFoundError:
        return None, "is missing"
    except OSError as error:
        return None, f"cannot be read: {error.strerror or NOT_AN_IMAGE}"
    except (ValueError, SyntaxError, Image.DecompressionBombError):
        return None, f"cannot be read: {NOT_AN_IMAGE}"


def _decode(source: DataSource, parts: list[Part]) -> Iterator[tuple[Part, int, Pixels]]:
    """Decode every image, in the order of parts and ids; images with problems are removed, and the problem is added."""
    splitting = len({part.source for part in parts}) == 1 and len(parts) == 2
    seen: dict[bytes, tuple[str, int]] = {}
    for part in reversed(parts):  # valid first: an image that is in both parts is a problem of train
        folder = _image_folder(source, "train" if splitting else part.name)
        inside = folder.resolve()

        def load(image_id: int, part: Part = part, inside: Path = inside) -> tuple[int, Pixels | None, str]:
            name, width, height = part.images[image_id]
            path = inside / name
            if not is_inside(path, inside):
                return image_id, None, "is a link that leaves the image folder"
            return image_id, *decode_image(path, (width, height))

        for image_id, pixels, fault in _in_threads(load, sorted(part.images)):
            name, width, height = part.images[image_id]
            if pixels is not None:
                key = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=f"{width}x{height}".encode()).digest()
                other = seen.setdefault(key, (part.name, image_id))
                if other[0] != part.name:
                    fault = f"is the same image as image {other[1]} of {other[0]}"
            if fault or pixels is None:
                part.problems.append(Problem(f"{folder.name}/{name}", fault, image_id))
                part.drop_image(image_id)
                continue
            yield part, image_id, pixels
        if not part.images and not any("empty split" in problem.text for problem in part.problems):
            part.blame("an empty split: no usable image")


def _in_threads(load, items: Iterable[int]):  # type: ignore[no-untyped-def]
    """`map` with threads, for a limited number of items at a time."""
    waiting = iter(items)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(waiting, 256)):
            yield from pool.map(load, batch)


def _drawn_parts(source: DataSource) -> tuple[list[Part], Iterator[tuple[Part, int, Pixels]]]:
    from digits_core.data import drawn as synthetic
    from digits_core.labels import category_of

    counts = {"train": source.drawn_train, "valid": source.drawn_valid}
    parts = {name: Part(name, DRAWN) for name in counts}

    def draw() -> Iterator[tuple[Part, int, Pixels]]:
        for name in ("valid", "train"):
            part = parts[name]
            stream = synthetic.draw_numbers(synthetic.stream_seed(name, source.drawn_seed), counts[name])
            for image_id, drawn in enumerate(stream, start=1):
                height, width = drawn.pixels.shape[:2]
                part.images[image_id] = (f"{image_id}.png", width, height)
                # The same numbers as in a drawn folder on disk.
                part.boxes[image_id] = [
                    (number, *box, category_of(digit), False)
                    for number, (box, digit) in enumerate(zip(drawn.boxes.tolist(), drawn.digits.tolist(), strict=True))
                ]
                yield part, image_id, drawn.pixels

    return list(parts.values()), draw()


def valid_part(source: DataSource) -> Part:
    """The annotations of the validation images of a local data set; the images are not opened.

    Raises:
        DataError: the annotations cannot be read.
    """
    if source.folder != DRAWN:
        return _read_parts(source)[1]
    parts, images = _drawn_parts(source)
    _, valid = parts
    while len(valid.images) < source.drawn_valid:  # the validation images are drawn first
        next(images)
    return valid


def valid_folder(source: DataSource) -> Path:
    """The folder of the validation images of a COCO folder."""
    has_valid = len(_annotation_files(source)) > 1
    return _image_folder(source, "valid" if has_valid else "train")


def open_source(source: DataSource) -> tuple[list[Part], Iterator[tuple[Part, int, Pixels]]]:
    """The parts of a data set, and every image with its part and id; images with problems are removed on the way."""
    if source.folder == DRAWN:
        return _drawn_parts(source)
    parts = _read_parts(source)
    return parts, _decode(source, parts)
