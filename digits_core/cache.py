"""The decoded data set: every image decoded once per node, memory-mapped by every trial.

A data set lies in `<cache>/<fingerprint>/`: `pixels.bin` (uint8 RGB, image after image) and
`tables.npz`. The fingerprint covers every byte read, so changed data is other data. A cache is built
under a file lock in a folder of another name and renamed when whole: a half-built one is never seen.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits_core.coco import MAX_IMAGE_PIXELS, Part, Problem, Table, read_part, refuse
from digits_core.errors import DataError, printable

Pixels = NDArray[np.uint8]

DRAWN = "drawn"
FORMAT = 1

MIN_CONFIRM_IMAGES = 30
"""Fewer images on either side of a confirmation tell nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSource:
    """Where a data set comes from; travels to every worker as plain values.

    Attributes:
        folder: `drawn`, or a COCO folder.
        train_json, valid_json: annotation files, relative to the folder.
        train_dir, valid_dir: image folders, relative to the folder.
        valid_fraction: share of the training images set apart when there is no valid part.
        split_seed: which images are set apart then.
        skip_bad: leave out what the check refuses, and count it.
        confirm_fraction: share of valid that takes no part in choosing; 0 sets none apart.
        drawn_train, drawn_valid, drawn_seed: size and seed of the drawn data.
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


@dataclass(frozen=True, slots=True)
class Split:
    """The images and annotations of one part; pixels are views into the mapped file."""

    name: str
    table: Table
    pixel_start: NDArray[np.int64]
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.table.image_ids)

    def image(self, index: int) -> Pixels:
        """uint8 [height, width, 3], RGB, read-only and not copied."""
        width, height = self.table.sizes[index]
        start = self.pixel_start[index]
        return self.pixels[start : start + int(width) * int(height) * 3].reshape(int(height), int(width), 3)

    def some(self, images: NDArray[np.int64], name: str) -> "Split":
        """A split of some of the images, by their indices; pixels stay where they are."""
        return Split(name, self.table.some(images), self.pixel_start[images], self.pixels)


@dataclass(frozen=True, slots=True)
class DigitData:
    """A data set ready to train on.

    Attributes:
        fingerprint: 32 hex digits over all that was read and how it was split; what was set apart to confirm
            stands behind a dash.
        notes: counts of what was clipped or left out, for run.json.
        confirm: the part of valid that takes no part in choosing; None when none was asked for.
    """

    fingerprint: str
    train: Split
    valid: Split
    notes: dict[str, int]
    confirm: Split | None = None


def images_per_epoch(num_images: int, asked: int) -> int:
    """Images of one epoch: all of them when 0 is asked, or more than there are."""
    return min(asked, num_images) if asked else num_images


def cache_root() -> Path:
    """`$DIGIT_SEARCH_CACHE`, or `digit-search` in the user's cache folder."""
    named = os.environ.get("DIGIT_SEARCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "digit-search"


def open_data(source: DataSource, *, fingerprint: str | None = None) -> DigitData:
    """Open a data set, decoding it first where this node has not yet.

    Args:
        source: what to open.
        fingerprint: what the driver opened; given, an existing cache is used without reading the source,
            and data that differs is refused.

    Raises:
        DataError: the data is not usable as it is, or is not the data of `fingerprint`.
    """
    from filelock import FileLock

    root = cache_root()
    known = None if fingerprint is None else fingerprint.partition("-")[0]
    if known is not None and (root / known).is_dir():
        return _set_confirm_apart(_load(root / known), source.confirm_fraction)
    found = _fingerprint(source)
    if known is not None and found != known:
        raise DataError(f"the data at {source.folder} differs from the run's: fingerprint {found}, not {known}")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache folder {root} cannot be made ({error.strerror}); set DIGIT_SEARCH_CACHE") from None
    if not (root / found).is_dir():
        with FileLock(root / f"{found}.lock"):
            if not (root / found).is_dir():
                _build(source, root, found)
    return _set_confirm_apart(_load(root / found), source.confirm_fraction)


def check_data(source: DataSource) -> tuple[dict[str, Table], list[Problem], dict[str, int]]:
    """Read everything once and report all that is wrong, without writing.

    Returns:
        The tables of what is usable, every problem, and the counts that `DigitData.notes` would hold.
    """
    parts = _read_parts(source)
    for _ in _decode(source, parts):
        pass
    problems = [problem for part in parts for problem in part.problems]
    return {part.name: Table.from_part(part) for part in parts}, problems, _notes(parts)


def _notes(parts: list[Part]) -> dict[str, int]:
    return {
        "clipped_boxes": sum(part.clipped for part in parts),
        "skipped": sum(len(part.problems) for part in parts),
        "crowd_boxes": sum(row[6] for part in parts for rows in part.boxes.values() for row in rows),
    }


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} {path} cannot be read: {error.strerror}") from None


def _annotation_files(source: DataSource) -> list[tuple[str, Path]]:
    """The (name, annotation file) of each part; one part alone is to be split."""
    folder = Path(source.folder)
    if not folder.is_dir():
        hint = f"; '{DRAWN}' is the built-in data" if not folder.exists() else " (it is a file)"
        raise DataError(f"--data {printable(source.folder)}: no such folder{hint}")
    train = folder / source.train_json
    if not train.is_file():
        raise DataError(
            f"--data {printable(source.folder)}: holds no {source.train_json}; a COCO folder has train.json, "
            "valid.json, train/ and valid/ (other names: --train-json, --valid-json, --train-dir, --valid-dir)"
        )
    valid = folder / source.valid_json
    if source.valid_json != DataSource().valid_json and not valid.is_file():
        raise DataError(f"--valid-json {printable(source.valid_json)}: {printable(source.folder)} holds no such file")
    return [("train", train), *([("valid", valid)] if valid.is_file() else [])]


def _fingerprint(source: DataSource) -> str:
    """32 hex digits over annotations, image bytes and the way they are split."""
    digest = hashlib.blake2b(digest_size=16)
    if source.folder == DRAWN:
        import albumentations
        import cv2
        import PIL

        from digits_core import synthetic

        # The drawing code and the libraries that draw stand for the pixels.
        versions = [np.__version__, cv2.__version__, PIL.__version__, albumentations.__version__]
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
    """What decides on the decoded files; what is set apart of them afterwards does not."""
    return {name: value for name, value in asdict(source).items() if name != "confirm_fraction"}


def _file_digest(path: Path) -> bytes:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return b"unreadable"


def _image_folder(source: DataSource, name: str) -> Path:
    return Path(source.folder) / (source.train_dir if name == "train" else source.valid_dir)


def _read_parts(source: DataSource) -> list[Part]:
    parts = [read_part(name, path, _read(path, "annotation file")) for name, path in _annotation_files(source)]
    return parts if len(parts) == 2 else _set_apart(source, parts[0])


def _draw_by_hash(ids: Iterable[int], fraction: float, salt: str) -> set[int]:
    """A share of some ids, at least one, by a hash of each: a few more ids move but a few across."""

    def rank(image_id: int) -> bytes:
        return hashlib.blake2b(f"{salt}:{image_id}".encode(), digest_size=8).digest()

    ordered = sorted(ids, key=rank)
    return set(ordered[: max(1, round(len(ordered) * fraction))])


def _set_confirm_apart(data: DigitData, fraction: float) -> DigitData:
    """Take a share of valid out of it, by a hash of the image ids.

    Raises:
        DataError: what is left on either side could tell nothing.
    """
    if not fraction:
        return data
    ids = data.valid.table.image_ids.tolist()
    chosen = _draw_by_hash(ids, fraction, "confirm")
    mine = np.array([image_id in chosen for image_id in ids])
    smaller = int(min(mine.sum(), (~mine).sum()))
    if smaller < MIN_CONFIRM_IMAGES:
        raise DataError(
            f"--confirm-fraction {fraction:g}: splits the {len(ids)} valid images into {int((~mine).sum())} to choose "
            f"by and {int(mine.sum())} to confirm on; each needs at least {MIN_CONFIRM_IMAGES} to tell anything"
        )
    return replace(
        data,
        fingerprint=f"{data.fingerprint}-confirm{fraction:g}",
        valid=data.valid.some(np.flatnonzero(~mine), "valid"),
        confirm=data.valid.some(np.flatnonzero(mine), "confirm"),
    )


def _set_apart(source: DataSource, whole: Part) -> list[Part]:
    """Split a lone train part by a hash of its image ids, so that other images do not move."""
    if not 0 < source.valid_fraction < 1:
        raise DataError(f"--valid-fraction must lie between 0 and 1, got {source.valid_fraction}")

    chosen = _draw_by_hash(whole.images, source.valid_fraction, f"{source.split_seed}")
    train, valid = Part("train", whole.source), Part("valid", whole.source)
    train.problems, train.clipped = whole.problems, whole.clipped
    for image_id, image in whole.images.items():
        part = valid if image_id in chosen else train
        part.images[image_id] = image
        if image_id in whole.boxes:
            part.boxes[image_id] = whole.boxes[image_id]
    if not train.images and whole.images:
        train.blame("an empty split: every image was set apart for valid")
    return [train, valid]


def _decode_one(path: Path, width: int, height: int) -> tuple[Pixels | None, str]:
    """The RGB pixels of one image, or None and what is wrong."""
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                return None, f"is {image.width} x {image.height} px, more than {MAX_IMAGE_PIXELS:,} pixels"
            if image.size != (width, height):
                return None, f"is {image.width} x {image.height} px, the annotations say {width} x {height}"
            return np.asarray(image.convert("RGB")), ""
    except FileNotFoundError:
        return None, "is missing"
    except OSError as error:
        return None, f"cannot be read: {error.strerror or 'it is no whole image'}"
    except (ValueError, SyntaxError, Image.DecompressionBombError):
        return None, "cannot be read: it is no whole image"


def _decode(source: DataSource, parts: list[Part]) -> Iterator[tuple[Part, int, Pixels]]:
    """Decode every image, in the order of the parts and ids; bad ones are dropped and blamed."""
    splitting = len({part.source for part in parts}) == 1 and len(parts) == 2
    seen: dict[bytes, tuple[str, int]] = {}
    for part in reversed(parts):  # valid first: a picture that stands in both is blamed in train
        folder = _image_folder(source, "train" if splitting else part.name)
        inside = folder.resolve()

        def load(image_id: int, part: Part = part, inside: Path = inside) -> tuple[int, Pixels | None, str]:
            name, width, height = part.images[image_id]
            path = inside / name
            if not path.resolve().is_relative_to(inside):
                return image_id, None, "is a link that leaves the image folder"
            return image_id, *_decode_one(path, width, height)

        for image_id, pixels, fault in _in_threads(load, sorted(part.images)):
            name, width, height = part.images[image_id]
            if pixels is not None:
                key = hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=f"{width}x{height}".encode()).digest()
                other = seen.setdefault(key, (part.name, image_id))
                if other[0] != part.name:
                    fault = f"is the same picture as image {other[1]} of {other[0]}"
            if fault or pixels is None:
                part.problems.append(Problem(f"{folder.name}/{name}", fault, image_id))
                part.drop_image(image_id)
                continue
            yield part, image_id, pixels
        if not part.images and not any("empty split" in problem.text for problem in part.problems):
            part.blame("an empty split: no usable image")


def _in_threads(load, items: Iterable[int]):  # type: ignore[no-untyped-def]
    """`map` over threads, a bounded number ahead."""
    waiting = iter(items)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(waiting, 256)):
            yield from pool.map(load, batch)


def _drawn_parts(source: DataSource) -> tuple[list[Part], Iterator[tuple[Part, int, Pixels]]]:
    from digits_core import synthetic
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
                # The very numbers that a drawn folder holds on disk.
                part.boxes[image_id] = [
                    (number, *box, category_of(digit), False)
                    for number, (box, digit) in enumerate(zip(drawn.boxes.tolist(), drawn.digits.tolist(), strict=True))
                ]
                yield part, image_id, drawn.pixels

    return list(parts.values()), draw()


def _build(source: DataSource, root: Path, fingerprint: str) -> None:
    """Decode into a folder of another name, then rename it."""
    for left_over in root.glob(f"{fingerprint}.half-*"):  # we hold the lock: its builder is dead
        shutil.rmtree(left_over, ignore_errors=True)
    half = root / f"{fingerprint}.half-{os.getpid()}"
    half.mkdir()
    try:
        if source.folder == DRAWN:
            parts, images = _drawn_parts(source)
        else:
            parts = _read_parts(source)
            images = _decode(source, parts)
        starts: dict[str, dict[int, int]] = {part.name: {} for part in parts}
        position = 0
        with (half / "pixels.bin").open("wb") as out:
            for part, image_id, pixels in images:
                starts[part.name][image_id] = position
                position += out.write(pixels.tobytes())
        if not source.skip_bad:
            refuse([problem for part in parts for problem in part.problems])
        arrays: dict[str, NDArray[np.generic]] = {}
        for part in parts:
            if not part.images:
                raise DataError(f"the {part.name} part of {printable(source.folder)} has no usable image")
            table = Table.from_part(part)
            if table.crowds.all():  # none at all, too
                raise DataError(f"the {part.name} part of {printable(source.folder)} has no usable box")
            for item in fields(Table):
                arrays[f"{part.name}.{item.name}"] = getattr(table, item.name)
            arrays[f"{part.name}.pixel_start"] = np.array(
                [starts[part.name][int(number)] for number in table.image_ids], dtype=np.int64
            )
        np.savez(half / "tables.npz", allow_pickle=False, **arrays)
        (half / "notes.json").write_text(json.dumps(_notes(parts)), encoding="utf-8")
        half.rename(root / fingerprint)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def _load(folder: Path) -> DigitData:
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
    splits = {}
    with np.load(folder / "tables.npz", allow_pickle=False) as arrays:
        for name in ("train", "valid"):
            table = Table(**{item.name: arrays[f"{name}.{item.name}"] for item in fields(Table)})
            splits[name] = Split(name, table, arrays[f"{name}.pixel_start"], pixels)
    notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    return DigitData(folder.name, splits["train"], splits["valid"], notes)
