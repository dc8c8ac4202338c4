"""The decoded data set: every image decoded once per node, memory-mapped by every trial.

A data set lies in `<cache>/<fingerprint>/`: `pixels.bin` (uint8 RGB, image after image) and
`tables.npz`. The fingerprint covers every byte read, so changed data is other data. A cache is built
under a file lock in a folder of another name and renamed when whole: a half-built one is never seen.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table, refuse
from digits_core.data.remote import fetched, is_address
from digits_core.data.source import DataSource, Pixels, draw_by_hash, fingerprint_of, notes_of, open_source
from digits_core.errors import DataError, printable
from digits_core.labels import Categories

ARRAYS = tuple(item.name for item in fields(Table) if item.name != "categories")

MIN_AUGMENTED_PX = 2
"""Blur and warping have no neighbours to take from in a thinner image."""

MIN_CONFIRM_IMAGES = 30
"""Fewer images on either side of a confirmation tell nothing."""


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


def join_splits(name: str, splits: list[Split]) -> Split:
    """The images of several splits of one data set as one; ids that would meet are counted on."""
    tables = [split.table for split in splits]
    ids, above = [], 0
    for table in tables:
        shifted = table.image_ids + max(above - int(table.image_ids.min()) + 1, 0)
        ids.append(shifted)
        above = int(shifted.max())
    starts = np.cumsum([0, *(table.box_start[-1] for table in tables)])
    joined = Table(
        image_ids=np.concatenate(ids),
        sizes=np.concatenate([table.sizes for table in tables]),
        box_start=np.concatenate(
            [[0], *(table.box_start[1:] + start for table, start in zip(tables, starts, strict=False))]
        ).astype(np.int64),
        boxes=np.concatenate([table.boxes for table in tables]),
        labels=np.concatenate([table.labels for table in tables]),
        crowds=np.concatenate([table.crowds for table in tables]),
        categories=tables[0].categories,
    )
    return Split(name, joined, np.concatenate([split.pixel_start for split in splits]), splits[0].pixels)


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

    @property
    def categories(self) -> Categories:
        """The classes."""
        return self.train.table.categories

    def joined(self) -> "DigitData":
        """Everything annotated as training data: train, valid and what was set apart to confirm.

        `valid` stays what it was: scores on it say nothing of a model that trained on it.
        """
        parts = [self.train, self.valid, *([] if self.confirm is None else [self.confirm])]
        return replace(self, train=join_splits("train+valid", parts))

    def check(self, config: TrainConfig) -> None:
        """See that a config can train on this data.

        Raises:
            DataError: an image is too small for what its augmentation does.
        """
        sizes = self.train.table.sizes
        thin = np.flatnonzero(sizes.min(axis=1) < MIN_AUGMENTED_PX)
        pipelines = [one.config.augment for one in config.stages]
        needing = [one.pipeline for one in pipelines if {"color", "geometric"} & set(one.steps)]
        if len(thin) and needing:
            width, height = sizes[thin[0]].tolist()
            raise DataError(
                f"train image {self.train.table.image_ids[thin[0]]} is {width} x {height} px; augment.pipeline="
                f"{needing[0]} needs at least {MIN_AUGMENTED_PX} px on each side: leave the image out, or "
                "train without"
            )


def images_per_epoch(num_images: int, asked: int) -> int:
    """Images of one epoch: all of them when 0 is asked, or more than there are."""
    return min(asked, num_images) if asked else num_images


def cache_root() -> Path:
    """`$DIGIT_SEARCH_CACHE`, or `digit-search` in the user's cache folder."""
    named = os.environ.get("DIGIT_SEARCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "digit-search"


def make_cache_root() -> Path:
    """The cache's folder, made if missing.

    Raises:
        DataError: it cannot be made.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the cache folder {root} cannot be made ({error.strerror}); set DIGIT_SEARCH_CACHE") from None
    return root


def brought_here(source: DataSource) -> DataSource:
    """A data set in a folder of this machine: where its folder is an address, it is fetched, once.

    Raises:
        UserError: nothing can be read at the address, or the cache folder cannot be made.
    """
    if not is_address(source.folder):
        return source
    parts = (source.train_json, source.valid_json, source.train_dir, source.valid_dir)
    return replace(source, folder=str(fetched(source.folder, parts, make_cache_root(), "--data")))


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
    source = brought_here(source)
    found = fingerprint_of(source)
    if known is not None and found != known:
        raise DataError(f"the data at {source.folder} differs from the run's: fingerprint {found}, not {known}")
    make_cache_root()
    if not (root / found).is_dir():
        with FileLock(root / f"{found}.lock"):
            if not (root / found).is_dir():
                _build(source, root, found)
    return _set_confirm_apart(_load(root / found), source.confirm_fraction)


def _set_confirm_apart(data: DigitData, fraction: float) -> DigitData:
    """Take a share of valid out of it, by a hash of the image ids.

    Raises:
        DataError: what is left on either side could tell nothing.
    """
    if not fraction:
        return data
    ids = data.valid.table.image_ids.tolist()
    chosen = draw_by_hash(ids, fraction, "confirm")
    mine = np.array([image_id in chosen for image_id in ids])
    smaller = int(min(mine.sum(), (~mine).sum()))
    if smaller < MIN_CONFIRM_IMAGES:
        raise DataError(
            f"--confirm-fraction {fraction:g}: splits the {len(ids)} validation images into {int((~mine).sum())} to "
            f"choose by and {int(mine.sum())} to confirm on; each needs at least {MIN_CONFIRM_IMAGES} to tell anything"
        )
    return replace(
        data,
        fingerprint=f"{data.fingerprint}-confirm{fraction:g}",
        valid=data.valid.some(np.flatnonzero(~mine), "valid"),
        confirm=data.valid.some(np.flatnonzero(mine), "confirm"),
    )


def _build(source: DataSource, root: Path, fingerprint: str) -> None:
    """Decode into a folder of another name, then rename it."""
    for left_over in root.glob(f"{fingerprint}.half-*"):  # we hold the lock: its builder is dead
        shutil.rmtree(left_over, ignore_errors=True)
    half = root / f"{fingerprint}.half-{os.getpid()}"
    half.mkdir()
    try:
        parts, images = open_source(source)
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
            for item in ARRAYS:
                arrays[f"{part.name}.{item}"] = getattr(table, item)
            arrays[f"{part.name}.pixel_start"] = np.array(
                [starts[part.name][int(number)] for number in table.image_ids], dtype=np.int64
            )
        np.savez(half / "tables.npz", allow_pickle=False, **arrays)
        known = {"notes": notes_of(parts), "categories": asdict(parts[0].categories)}
        (half / "about.json").write_text(json.dumps(known), encoding="utf-8")
        half.rename(root / fingerprint)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def _load(folder: Path) -> DigitData:
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
    known = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    categories = Categories(*(tuple(known["categories"][item.name]) for item in fields(Categories)))
    splits = {}
    with np.load(folder / "tables.npz", allow_pickle=False) as arrays:
        for name in ("train", "valid"):
            table = Table(**{item: arrays[f"{name}.{item}"] for item in ARRAYS}, categories=categories)
            splits[name] = Split(name, table, arrays[f"{name}.pixel_start"], pixels)
    return DigitData(folder.name, splits["train"], splits["valid"], known["notes"])
