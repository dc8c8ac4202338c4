"""Draws images with boxes on one sheet."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from digits_core.data.augment import Sample
from digits_core.data.cache import Split
from digits_core.data.source import Pixels
from digits_core.labels import Categories

CELL_PX = 200
MOST_LETTERS = 10
GAP_PX = 8
BACKGROUND = (245, 245, 245)
BOX_COLOR = (0, 114, 178)
PREDICTED_COLOR = (213, 94, 0)
"""Blue and vermilion of the palette of Okabe and Ito, which colour-blind people can distinguish."""

TITLE_PX = 18


def write_sheet(split: Split, change: Callable[[Sample, int], Sample], count: int, path: Path) -> int:
    """Draw the first `count` images of a split after `change`, each with its boxes and digits.

    Returns:
        The number of boxes that `change` dropped.
    """
    columns = max(1, round(count**0.5 * 1.2))
    rows = -(-count // columns)
    step = CELL_PX + GAP_PX
    sheet = Image.new("RGB", (columns * step + GAP_PX, rows * step + GAP_PX), BACKGROUND)
    dropped = 0
    for index in range(count):
        mine = slice(int(split.table.box_start[index]), int(split.table.box_start[index + 1]))
        solid = ~split.table.crowds[mine]
        before = Sample(split.image(index), split.table.boxes[mine][solid], split.table.labels[mine][solid])
        after = change(before, int(split.table.image_ids[index]))
        dropped += len(before.boxes) - len(after.boxes)
        place = GAP_PX + index % columns * step, GAP_PX + index // columns * step
        sheet.paste(_cell(after, split.table.categories), place)
    sheet.save(path)
    return dropped


@dataclass(frozen=True, slots=True)
class Shown:
    """One image with the predictions of a model.

    Attributes:
        title: printed above the image.
        pixels: uint8 [height, width, 3], RGB.
        boxes: float32 [num, 4], xyxy, predicted.
        labels: the names of the predicted boxes.
        truth: float32 [num, 4], xyxy, annotated; None without annotations.
        truth_labels: the names of the annotated boxes.
    """

    title: str
    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: list[str]
    truth: NDArray[np.float32] | None = None
    truth_labels: list[str] | None = None


LEGEND = "orange: predictions at the thresholds of Task 2"


def write_predictions(shown: list[Shown], path: Path) -> None:
    """Draw images with predicted boxes (orange), and next to them with annotated boxes (blue) if these are known."""
    both = any(one.truth is not None for one in shown)
    columns = max(1, round(len(shown) ** 0.5 * (0.8 if both else 1.2)))
    cells = []
    for one in shown:
        pictures = [_drawn(one.pixels, one.boxes, one.labels, PREDICTED_COLOR)]
        if one.truth is not None:
            pictures.append(_drawn(one.pixels, one.truth, one.truth_labels or [], BOX_COLOR))
        cells.append((one.title, pictures))
    rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
    heights = [max(picture.height for _, pictures in row for picture in pictures) for row in rows]
    wide = (2 if both else 1) * CELL_PX + (GAP_PX if both else 0)
    size = (
        columns * (wide + 2 * GAP_PX) + GAP_PX,
        2 * GAP_PX + TITLE_PX + sum(height + TITLE_PX + GAP_PX for height in heights),
    )
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    legend = LEGEND + ("; blue: annotations; images with most errors first" if both else "")
    draw.text((GAP_PX, GAP_PX), legend, fill=(30, 30, 30), font_size=13)
    top = 2 * GAP_PX + TITLE_PX
    for row, height in zip(rows, heights, strict=True):
        for column, (title, pictures) in enumerate(row):
            left = GAP_PX + column * (wide + 2 * GAP_PX)
            draw.text((left, top), title, fill=(30, 30, 30), font_size=13)
            for place, picture in enumerate(pictures):
                sheet.paste(picture, (left + place * (CELL_PX + GAP_PX), top + TITLE_PX))
        top += TITLE_PX + height + GAP_PX
    sheet.save(path)


def short(name: str) -> str:
    """The name of a category, shortened to fit into an image."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def _cell(sample: Sample, categories: Categories) -> Image.Image:
    """A cell of the sheet with one image and its boxes."""
    names = [categories.name_of(int(label)) for label in sample.labels]
    return _picture(sample.pixels, sample.boxes, names, BOX_COLOR)


def _picture(pixels: Pixels, boxes: NDArray[np.float32], names: list[str], color: tuple[int, int, int]) -> Image.Image:
    """A cell of the sheet with one image and boxes in the middle."""
    picture = _drawn(pixels, boxes, names, color)
    cell = Image.new("RGB", (CELL_PX, CELL_PX), BACKGROUND)
    cell.paste(picture, ((CELL_PX - picture.width) // 2, (CELL_PX - picture.height) // 2))
    return cell


def _drawn(pixels: Pixels, boxes: NDArray[np.float32], names: list[str], color: tuple[int, int, int]) -> Image.Image:
    """One image with boxes, resized to fit into a cell."""
    height, width = pixels.shape[:2]
    scale = CELL_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for box, name in zip(boxes * scale, names, strict=True):
        draw.rectangle([float(side) for side in box], outline=color, width=2)
        text = short(name)
        left, top = max(0.0, float(box[0])), float(box[1]) - 15
        if top < 0:  # above the box if there is space, else below it, else inside
            top = float(box[3]) if float(box[3]) + 15 <= size[1] else float(box[1])
        draw.rectangle([left, top, left + draw.textlength(text, font_size=13) + 6, top + 15], fill=color)
        draw.text((left + 3, top + 1), text, fill=(255, 255, 255), font_size=13)
    return picture
