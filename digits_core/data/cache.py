"""The decoded data set: every image is decoded once per node and memory-mapped by every trial.

A data set is in `<cache>/<fingerprint>/`: `pixels.bin` (uint8 RGB, one image after the other) and `tables.npz`. The
fingerprint covers every byte of the source, so changed data has another fingerprint. A cache is built under a file
lock in a temporary folder, which is renamed when it is complete, so no process reads an incomplete cache.
"""

import json
import math
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
"""Blur and warping need neighbouring pixels, so they need at least this width and height."""

MIN_CONFIRM_IMAGES = 30
"""Validation and confirmation images each need at least this number to give useful scores."""


@dataclass(frozen=True, slots=True)
class Split:
    """The images and annotations of one part of the data; pixels are views into the memory-mapped file."""

    name: str
    table: Table
    pixel_start: NDArray[np.int64]
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.table.image_ids)

    def image(self, index: int) -> Pixels:
        """uint8 [height, width, 3], RGB; a read-only view."""
        width, height = self.table.sizes[index]
        start = self.pixel_start[index]
        return self.pixels[start : start + int(width) * int(height) * 3].reshape(int(height), int(width), 3)

    def some(self, images: NDArray[np.int64], name: str) -> "Split":
        """A split of the images with the given indices; pixels are not copied."""
        return Split(name, self.table.some(images), self.pixel_start[images], self.pixels)


def join_splits(name: str, splits: list[Split]) -> Split:
    """One split of the images of several splits of a data set; image ids are shifted if they would collide."""
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
        fingerprint: 32 hex digits for the content of the source and how it was split; after a dash, the fraction of
            confirmation images.
        notes: counts of clipped boxes, skipped items and crowd boxes, for run.json.
        confirm: validation images that are not used for selection; None if there are none.
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
        """The same data with all annotated images as training data: training, validation and confirmation images.

        `valid` does not change, but scores on it are meaningless for a model that was trained on it.
        """
        parts = [self.train, self.valid, *([] if self.confirm is None else [self.confirm])]
        return replace(self, train=join_splits("train+valid", parts))

    def check(self, config: TrainConfig) -> None:
        """Check that a configuration can train on this data.

        Raises:
            DataError: an image is too small for the augmentation.
        """
        sizes = self.train.table.sizes
        thin = np.flatnonzero(sizes.min(axis=1) < MIN_AUGMENTED_PX)
        pipelines = [one.config.augment for one in config.stages]
        needing = [one.pipeline for one in pipelines if {"color", "geometric"} & set(one.steps)]
        if len(thin) and needing:
            width, height = sizes[thin[0]].tolist()
            raise DataError(
                f"train image {self.train.table.image_ids[thin[0]]} is {width} x {height} px; augment.pipeline="
                f"{needing[0]} needs at least {MIN_AUGMENTED_PX} px on each side: remove the image, or train "
                "without this pipeline"
            )


def images_per_epoch(num_images: int, asked: int) -> int:
    """The number of images of one epoch: all images if `asked` is 0 or larger than `num_images`."""
    return min(asked, num_images) if asked else num_images


def steps_per_epoch(num_images: int, asked: int, batch_size: int) -> int:
    """Optimiser steps of one epoch."""
    return math.ceil(images_per_epoch(num_images, asked) / batch_size)


def cache_root() -> Path:
    """`$DIGIT_SEARCH_CACHE`, or `digit-search` in the user's cache folder."""
    named = os.environ.get("DIGIT_SEARCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "digit-search"


def make_cache_root() -> Path:
    """The cache folder, which is created if necessary.

    Raises:
        DataError: it cannot be created.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {root} cannot be created ({error.strerror}); set DIGIT_SEARCH_CACHE"
        ) from None
    return root


def brought_here(source: DataSource) -> DataSource:
    """The data set in a local folder; if its folder is an address, it is downloaded first, once.

    Raises:
        UserError: the address cannot be read, or the cache folder cannot be created.
    """
    if not is_address(source.folder):
        return source
    parts = (source.train_json, source.valid_json, source.train_dir, source.valid_dir)
    return replace(source, folder=str(fetched(source.folder, parts, make_cache_root(), "--data")))


def open_data(source: DataSource, *, fingerprint: str | None = None) -> DigitData:
    """Open a data set; decode it first if this node has not decoded it yet.

    Args:
        source: the data set.
        fingerprint: of the data that the driver opened. If given, an existing cache is used without reading the
            source, and other data is an error.

    Raises:
        DataError: the data has problems, or has another fingerprint than `fingerprint`.
    """
    from filelock import FileLock

    root = cache_root()
    known = None if fingerprint is None else fingerprint.partition("-")[0]
    if known is not None and (root / known).is_dir():
        return _set_confirm_apart(_load(root / known), source.confirm_fraction)
    source = brought_here(source)
    found = fingerprint_of(source)
    if known is not None and found != known:
        raise DataError(f"the data at {source.folder} is not the data of the run: fingerprint {found}, not {known}")
    make_cache_root()
    if not (root / found).is_dir():
        with FileLock(root / f"{found}.lock"):
            if not (root / found).is_dir():
                _build(source, root, found)
    return _set_confirm_apart(_load(root / found), source.confirm_fraction)


def _set_confirm_apart(data: DigitData, fraction: float) -> DigitData:
    """Move a share of the validation images to `confirm`, by a hash of the image ids.

    Raises:
        DataError: one of the two parts would have too few images.
    """
    if not fraction:
        return data
    ids = data.valid.table.image_ids.tolist()
    chosen = draw_by_hash(ids, fraction, "confirm")
    mine = np.array([image_id in chosen for image_id in ids])
    smaller = int(min(mine.sum(), (~mine).sum()))
    if smaller < MIN_CONFIRM_IMAGES:
        raise DataError(
            f"--confirm-fraction {fraction:g}: splits the {len(ids)} validation images into {int((~mine).sum())} for "
            f"selection and {int(mine.sum())} for confirmation; each part needs at least {MIN_CONFIRM_IMAGES}"
        )
    return replace(
        data,
        fingerprint=f"{data.fingerprint}-confirm{fraction:g}",
        valid=data.valid.some(np.flatnonzero(~mine), "valid"),
        confirm=data.valid.some(np.flatnonzero(mine), "confirm"),
    )


def _build(source: DataSource, root: Path, fingerprint: str) -> None:
    """Decode into a temporary folder, then rename it."""
    for left_over in root.glob(
        f"{fingerprint}.half-*"
    ):  # this process has the lock, so no other process is building it
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
            if table.crowds.all():  # also true without any boxes
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
