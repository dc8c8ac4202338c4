"""A sheet of pictures with boxes, for people to look at."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from digits_core.augment import Sample
from digits_core.cache import Split
from digits_core.labels import Categories

CELL_PX = 200
MOST_LETTERS = 10
GAP_PX = 8
BACKGROUND = (245, 245, 245)
BOX_COLOR = (0, 114, 178)
"""Blue of the palette of Okabe and Ito, which the colour-blind can tell from the digits."""


def write_sheet(split: Split, change: Callable[[Sample, int], Sample], count: int, path: Path) -> int:
    """Draw the first `count` images of a split as `change` leaves them, each with its boxes and digits.

    Returns:
        How many boxes `change` dropped.
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


def short(name: str) -> str:
    """A category's name, cut to what a picture has room for."""
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def _cell(sample: Sample, categories: Categories) -> Image.Image:
    """One picture in its cell, as large as fits."""
    height, width = sample.pixels.shape[:2]
    scale = CELL_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(np.ascontiguousarray(sample.pixels)).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    for box, label in zip(sample.boxes * scale, sample.labels, strict=True):
        draw.rectangle([float(side) for side in box], outline=BOX_COLOR, width=2)
        text = short(categories.name_of(int(label)))
        left, top = max(0.0, float(box[0])), float(box[1]) - 15
        if top < 0:  # above the box where there is room, else under it, else inside
            top = float(box[3]) if float(box[3]) + 15 <= size[1] else float(box[1])
        draw.rectangle([left, top, left + draw.textlength(text, font_size=13) + 6, top + 15], fill=BOX_COLOR)
        draw.text((left + 3, top + 1), text, fill=(255, 255, 255), font_size=13)
    cell = Image.new("RGB", (CELL_PX, CELL_PX), BACKGROUND)
    cell.paste(picture, ((CELL_PX - size[0]) // 2, (CELL_PX - size[1]) // 2))
    return cell
