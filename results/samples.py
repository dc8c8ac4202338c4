"""samples.parquet: a few valid images with their annotations, to look at predictions without the data."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from digits_core.coco import Table
from results.schema import SAMPLES
from results.tables import read_arrow, write_table

SAMPLES_FILE = "samples.parquet"

NUM_SAMPLES = 12

MAX_SIDE_PX = 384
"""Larger images are made smaller: they are for looking at."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SampleImage:
    """One image to look at.

    Attributes:
        image_id: of the annotation file.
        size: width and height of the original, pixels.
        pixels: uint8 [height, width, 3], RGB, perhaps smaller than the original.
        boxes: float32 [num, 4], xyxy, pixels of the original.
        labels: int64 [num], labels as in `coco.Table`.
    """

    image_id: int
    size: tuple[int, int]
    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def write_samples(folder: Path, table: Table, image: Any) -> None:
    """Write some images of a split, evenly spread over it.

    Args:
        folder: the run's.
        table: annotations of the split.
        image: gives the pixels of image number i, uint8 [height, width, 3], RGB.
    """
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(table.image_ids) - 1, NUM_SAMPLES).round().astype(int))
    rows = []
    for index in chosen.tolist():
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
    write_table(folder / SAMPLES_FILE, pa.Table.from_pylist(rows, schema=SAMPLES))


def read_samples(folder: Path) -> list[SampleImage]:
    """The images that a run folder holds to look at.

    Raises:
        RunError: it holds none, or the file is damaged or of another version.
    """
    from PIL import Image

    rows = read_arrow(folder / SAMPLES_FILE, "search again, or read with the version that wrote it").to_pylist()
    return [
        SampleImage(
            row["image_id"],
            (row["width"], row["height"]),
            np.asarray(Image.open(io.BytesIO(row["png"])).convert("RGB")),
            np.asarray(row["boxes"], dtype=np.float32).reshape(-1, 4),
            np.asarray(row["labels"], dtype=np.int64),
        )
        for row in rows
    ]
