"""Parts of the data in a run folder: sample images, the worst images of the winner, sizes of training boxes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table
from digits_core.errors import RunError
from digits_core.evaluation.metrics import wrong_labels
from results.record.run import RunRecord
from results.record.schema import BOXES, SAMPLES
from results.tables.matches import StoredMatches, matches_path, read_matches
from results.tables.parquet import WITHOUT, read_arrow, write_table

SAMPLES_FILE = "samples.parquet"

MISSES_FILE = "misses.parquet"
"""The images with the most errors of the winner, in the same format."""

BOXES_FILE = "boxes.parquet"

NUM_SAMPLES = 12

NUM_BOXES = 3000
"""Number of training boxes whose sizes are stored."""

_OF = b"of"
"""Metadata key: the trial and its epoch."""

MAX_SIDE_PX = 384
"""Larger images are downscaled."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SampleImage:
    """One image with its annotations.

    Attributes:
        image_id: its id in the annotation file.
        size: width and height of the original, pixels.
        pixels: uint8 [height, width, 3], RGB, possibly downscaled.
        boxes: float32 [num, 4], xyxy, pixels of the original.
        labels: int64 [num], labels as in `coco.Table`.
    """

    image_id: int
    size: tuple[int, int]
    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def write_samples(folder: Path, table: Table, image: Any) -> None:
    """Write evenly spaced images of a split.

    Args:
        folder: the run folder.
        table: annotations of the split.
        image: function that returns the pixels of image number i, uint8 [height, width, 3], RGB.
    """
    chosen = np.unique(np.linspace(0, len(table.image_ids) - 1, NUM_SAMPLES).round().astype(int))
    _write_images(folder / SAMPLES_FILE, table, image, chosen.tolist())


def write_boxes(folder: Path, table: Table) -> None:
    """Write the sizes of evenly spaced training boxes."""
    solid = np.flatnonzero(~table.crowds)
    chosen = solid[np.unique(np.linspace(0, max(len(solid) - 1, 0), NUM_BOXES).round().astype(int))[: len(solid)]]
    images = np.searchsorted(table.box_start, chosen, side="right") - 1
    boxes = table.boxes[chosen]
    columns = (table.sizes[images, 0], table.sizes[images, 1], boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    arrays = [pa.array(values, field.type) for values, field in zip(columns, BOXES, strict=True)]
    write_table(folder / BOXES_FILE, pa.table(arrays, schema=BOXES))


def worst_images(stored: StoredMatches, config: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images with label errors at a trial's Task 2 thresholds, worst first; and the number of errors per image.

    Args:
        stored: the match tables of the trial.
        config: the flat config of the trial.

    Returns:
        int64 [num_wrong], indices in `stored.image_ids`; int64 [num_images].
    """
    task2 = TrainConfig.from_flat(config).detect.task2
    kept, truth = stored.task2.above(task2.score, task2.max_detections), stored.truth
    wrong = wrong_labels(kept.image, kept.labels, truth.image, truth.labels, truth.num_images)
    order = np.argsort(-wrong, kind="stable")
    return order[wrong[order] > 0], wrong


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a trial predicts on one sample image, at its thresholds for Task 2.

    Attributes:
        sample: the image.
        place: its index in the match tables.
        boxes: float32 [num, 4], xyxy, pixels of the original image.
        labels: int64 [num], labels as in `coco.Table`.
        scores: float32 [num].
    """

    sample: SampleImage
    place: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def predictions_on(samples: Sequence[SampleImage], stored: StoredMatches, config: dict[str, Any]) -> list[Prediction]:
    """The predictions on each sample image that the match tables contain.

    Args:
        samples: the images.
        stored: the match tables of a trial.
        config: the flat config of the trial.
    """
    task2 = TrainConfig.from_flat(config).detect.task2
    kept = stored.task2.above(task2.score, task2.max_detections)
    places = {int(image_id): number for number, image_id in enumerate(stored.image_ids)}
    found = []
    for sample in (one for one in samples if one.image_id in places):
        mine = kept.select(kept.image == places[sample.image_id])
        found.append(Prediction(sample, places[sample.image_id], mine.boxes, mine.labels, mine.scores))
    return found


class MissesKeeper:
    """Writes the images with the most errors of the current winner."""

    def __init__(self, folder: Path, table: Table, image: Any) -> None:
        """Prepare for a run; `table` and `image` as in `write_samples`, for the validation split."""
        self._folder, self._table, self._image = folder, table, image
        self._kept: str | None = None

    def follow(self, record: RunRecord) -> None:
        """Write the images again if another trial or epoch is the best now and has a match table."""
        winner = record.winner()
        best = None if winner is None else winner.best(record.metric)
        if winner is None or best is None or winner.status == "running":
            return
        mark = f"{winner.trial_id} {best['epoch']}"
        if mark == self._kept:
            return
        try:
            stored = read_matches(matches_path(self._folder, winner.trial_id, "val"), best["epoch"])
        except RunError:  # not written yet, or damaged: results.compare names it
            return
        if len(stored.image_ids) != len(self._table.image_ids):
            return
        worst, _ = worst_images(stored, winner.config)
        _write_images(self._folder / MISSES_FILE, self._table, self._image, worst[:NUM_SAMPLES].tolist(), mark)
        self._kept = mark


def _write_images(path: Path, table: Table, image: Any, chosen: list[int], mark: str = "") -> None:
    from PIL import Image

    rows = []
    for index in chosen:
        picture = Image.fromarray(np.ascontiguousarray(image(index)))
        picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
        out = io.BytesIO()
        picture.save(out, "PNG")
        mine = slice(int(table.box_start[index]), int(table.box_start[index + 1]))
        solid = ~table.crowds[mine]
        rows.append(
            {
                "image_id": int(table.image_ids[index]),
                "width": int(table.sizes[index, 0]),
                "height": int(table.sizes[index, 1]),
                "png": out.getvalue(),
                "boxes": table.boxes[mine][solid].ravel().tolist(),
                "labels": table.labels[mine][solid].tolist(),
            }
        )
    schema = SAMPLES.with_metadata({**(SAMPLES.metadata or {}), _OF: mark.encode()})
    write_table(path, pa.Table.from_pylist(rows, schema=schema))


def read_samples(folder: Path) -> list[SampleImage]:
    """The sample images of a run folder.

    Raises:
        RunError: the file is missing, damaged or of another version.
    """
    images, _ = _read_images(folder / SAMPLES_FILE)
    return images


def read_misses(folder: Path) -> tuple[list[SampleImage], str]:
    """The images with the most errors of a trial, worst first, and the id of the trial; empty without a file.

    Raises:
        RunError: the file is damaged or of another version.
    """
    path = folder / MISSES_FILE
    return _read_images(path) if path.is_file() else ([], "")


def read_boxes(folder: Path) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Sizes of a sample of training boxes.

    Returns:
        int32 [num, 2], width and height of the image; float32 [num, 2], of the box; pixels of the original.

    Raises:
        RunError: the file is missing, damaged or of another version.
    """
    table = read_arrow(folder / BOXES_FILE, WITHOUT)
    if table.schema.names != BOXES.names:
        raise RunError(f"{folder / BOXES_FILE} has no sizes of boxes; {WITHOUT}")
    columns = [table.column(name).to_numpy() for name in BOXES.names]
    return np.stack(columns[:2], axis=1), np.stack(columns[2:], axis=1)


def _read_images(path: Path) -> tuple[list[SampleImage], str]:
    from PIL import Image

    table = read_arrow(path, WITHOUT)
    if table.schema.names != SAMPLES.names:
        raise RunError(f"{path} has no sample images; {WITHOUT}")
    images = [
        SampleImage(
            row["image_id"],
            (row["width"], row["height"]),
            np.asarray(Image.open(io.BytesIO(row["png"])).convert("RGB")),
            np.asarray(row["boxes"], dtype=np.float32).reshape(-1, 4),
            np.asarray(row["labels"], dtype=np.int64),
        )
        for row in table.to_pylist()
    ]
    return images, (table.schema.metadata or {}).get(_OF, b"").decode(errors="replace").partition(" ")[0]
