"""Draws house numbers: images of 1 to 5 digits with a box around each, from a seed alone.

Every glyph is warped as a mask of its own, so that its box is the extent of the very pixels drawn.
Sizes follow those of street-view house numbers: images 30 to 200 px wide, digits taller than wide.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from digits_core.labels import NUM_DIGITS, category_of

Pixels = NDArray[np.uint8]
Mask = NDArray[np.float32]

BUILT_IN_SEED, PRETRAIN_SEED = 0, 1
"""Seeds of the built-in data and of the images behind the shipped weights."""

STREAMS = {"train": 1, "valid": 2}

NUM_DIGITS_SHARES = (0.16, 0.55, 0.23, 0.05, 0.01)
"""How many digits a house number has, 1 to 5; about as in SVHN."""

SUPERSAMPLING = 2
GLYPH_PX = 64
MIN_SIDE_PX = 3.0
"""A digit narrower or lower than this in the final image is drawn again, elsewhere."""

_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
    "cmb10",
)


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """One drawn house number.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        boxes: float32 [num_digits, 4], xyxy, pixels; digits from left to right.
        digits: int64 [num_digits], 0..9.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    digits: NDArray[np.int64]


def draw_number(seed: int, index: int) -> DrawnImage:
    """Draw image `index` of the stream `seed`; the same two numbers give the same image."""
    rng = np.random.default_rng([seed, index])
    while True:
        width, height = _image_size(rng)
        digits = rng.integers(0, NUM_DIGITS, 1 + rng.choice(len(NUM_DIGITS_SHARES), p=NUM_DIGITS_SHARES))
        masks = _glyph_masks(rng, digits, width, height)
        boxes = np.array([_extent(mask) for mask in masks], dtype=np.float32)
        sides = boxes[:, 2:] - boxes[:, :2]
        if sides.min() >= MIN_SIDE_PX and _hardly_overlap(boxes):
            break
    canvas = _background(rng, width * SUPERSAMPLING, height * SUPERSAMPLING)
    canvas = _paint(rng, canvas, masks, boxes)
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    pixels = np.clip(small, 0, 255).astype(np.uint8)
    return DrawnImage(_degrade(rng, pixels), boxes, digits.astype(np.int64))


def draw_numbers(seed: int, count: int, start: int = 0) -> Iterator[DrawnImage]:
    """Images `start` to `start + count - 1` of the stream `seed`."""
    return (draw_number(seed, index) for index in range(start, start + count))


def write_drawn_folder(folder: Path, num_train: int, num_valid: int, seed: int = BUILT_IN_SEED) -> None:
    """Write drawn images as a COCO folder (`train.json valid.json train/ valid/`).

    Args:
        folder: made if missing; must be empty.
        num_train: training images.
        num_valid: validation images.
        seed: 0 gives the very images of the built-in data, other seeds give others.

    Raises:
        DataError: the folder holds something already.
    """
    from digits_core.data.coco import new_folder, write_annotations

    with new_folder(folder) as half:
        for split, count in (("train", num_train), ("valid", num_valid)):
            (half / split).mkdir()
            images, annotations = _write_images(half / split, draw_numbers(stream_seed(split, seed), count))
            write_annotations(half / f"{split}.json", images, annotations)


def _write_images(
    folder: Path, drawn_images: Iterator[DrawnImage]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Save images as numbered PNGs; returns COCO's rows of images and of annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, drawn in enumerate(drawn_images, start=1):
        name = f"{image_id}.png"
        Image.fromarray(drawn.pixels).save(folder / name)
        height, width = drawn.pixels.shape[:2]
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for (x_min, y_min, x_max, y_max), digit in zip(drawn.boxes.tolist(), drawn.digits.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_of(digit),
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "area": (x_max - x_min) * (y_max - y_min),
                    "iscrowd": 0,
                }
            )
    return images, annotations


def stream_seed(split: str, seed: int) -> int:
    """The seed behind the images of one split; splits of any two seeds never share one."""
    return STREAMS[split] + 8 * seed


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), GLYPH_PX)


@cache
def _glyph(font: str, text: str, stroke: int) -> Pixels:
    """One character as a tight mask, 0..255."""
    left, top, right, bottom = (int(side) for side in _font(font).getbbox(text, stroke_width=stroke))
    image = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), text, fill=255, font=_font(font), stroke_width=stroke)
    mask = np.asarray(image)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.ascontiguousarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _image_size(rng: np.random.Generator) -> tuple[int, int]:
    width = int(np.clip(rng.lognormal(np.log(105), 0.45), 30, 200))
    aspect = float(np.clip(rng.normal(2.25, 0.4), 1.3, 3.6))
    return width, max(round(width / aspect), 14)


def _glyph_masks(rng: np.random.Generator, digits: NDArray[np.int64], width: int, height: int) -> list[Mask]:
    """Place the digits side by side (now and then on a slant or stacked), each a mask of the canvas."""
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    font = str(rng.choice(_FONTS))
    glyphs = [_glyph(font, str(digit), int(rng.integers(0, 4))) for digit in digits]
    tall = float(np.clip(rng.normal(0.62, 0.15), 0.25, 0.92)) * size[1]
    stretch = float(np.clip(rng.normal(0.78, 0.14), 0.5, 1.3))
    gap = float(rng.uniform(-0.02, 0.22)) * tall
    stacked = len(digits) > 1 and rng.random() < 0.03
    if stacked:
        tall /= len(digits)
    wide = [tall * stretch * glyph.shape[1] / glyph.shape[0] for glyph in glyphs]
    # Fit the row into the image.
    room = 0.94 * size[0] / (sum(wide) + gap * (len(digits) - 1))
    if not stacked and room < 1:
        tall, gap, wide = tall * room, gap * room, [side * room for side in wide]
    length = (tall if stacked else sum(wide) / len(wide)) * len(digits) + gap * (len(digits) - 1)
    free = (size[0] - (max(wide) if stacked else length), size[1] - (length if stacked else tall))
    offset = [max(space, 0.0) * float(np.clip(rng.normal(0.5, 0.18), 0, 1)) for space in free]
    slope = float(rng.normal(0, 0.06)) if rng.random() < 0.85 else float(rng.normal(0, 0.2))
    warp = _camera(rng, size, slope)
    masks: list[Mask] = []
    x, y = offset
    for glyph, side in zip(glyphs, wide, strict=True):
        jitter = rng.normal(0, 0.015, 2) * tall
        place = np.array(
            [[side / glyph.shape[1], 0, x + jitter[0]], [0, tall / glyph.shape[0], y + jitter[1]], [0, 0, 1]]
        )
        mask = cv2.warpPerspective(glyph, warp @ place, size, flags=cv2.INTER_AREA)
        masks.append(np.asarray(mask, dtype=np.float32) / np.float32(255))
        x, y = (x, y + tall + gap) if stacked else (x + side + gap, y)
    return masks


def _camera(rng: np.random.Generator, size: tuple[int, int], slope: float) -> NDArray[np.float64]:
    """A homography: rotation by `slope` radians, shear and a little perspective, about the centre."""
    width, height = size
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    turn = np.array([[np.cos(slope), -np.sin(slope), 0], [np.sin(slope), np.cos(slope), 0], [0, 0, 1]])
    shear = np.array([[1, rng.normal(0, 0.1), 0], [rng.normal(0, 0.04), 1, 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, 1, 0], [rng.normal(0, 0.12) / width, rng.normal(0, 0.06) / height, 1]])
    return np.asarray(centre @ tilt @ turn @ shear @ np.linalg.inv(centre))


def _extent(mask: Mask) -> tuple[float, float, float, float]:
    """The box of a mask's pixels at half cover or more, in final pixels; empty masks give no area."""
    solid = mask >= 0.5
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x_min, y_min, x_max, y_max = (float(edge) / SUPERSAMPLING for edge in edges)
    return x_min, y_min, x_max, y_max


def _hardly_overlap(boxes: NDArray[np.float32]) -> bool:
    """Whether no digit hides a large part of its neighbour."""
    for first, second in itertools.pairwise(boxes):
        sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
        smaller = min(np.prod(first[2:] - first[:2]), np.prod(second[2:] - second[:2]))
        if (sides > 0).all() and np.prod(sides) > 0.35 * smaller:
            return False
    return True


def _colour(rng: np.random.Generator, lightness: float) -> NDArray[np.float32]:
    """A muted RGB colour of about the given lightness, 0..255."""
    cast = rng.normal(0, 1, 3) * rng.choice([4, 14, 40], p=[0.45, 0.4, 0.15])
    return np.asarray(np.clip(lightness + cast - cast.mean(), 0, 255), dtype=np.float32)


def _texture(rng: np.random.Generator, width: int, height: int, grain: int) -> Mask:
    """Smooth noise of unit spread, its grain in pixels."""
    coarse = rng.normal(0, 1, (max(2, height // grain + 2), max(2, width // grain + 2))).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _background(rng: np.random.Generator, width: int, height: int) -> Mask:
    """A wall: one colour with a gradient, grain, boards or bricks, and clutter. float32 [h, w, 3]."""
    lightness = float(rng.uniform(15, 240))
    canvas = np.empty((height, width, 3), dtype=np.float32)
    canvas[:] = _colour(rng, lightness)
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :, None]
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None, None]
    canvas += across * float(rng.normal(0, 25)) + down * float(rng.normal(0, 25))
    for grain, spread in ((int(rng.integers(2, 6)), 6.0), (int(rng.integers(12, 60)), 14.0)):
        canvas += _texture(rng, width, height, grain)[:, :, None] * float(rng.uniform(0, spread))
    if rng.random() < 0.3:
        _boards(rng, canvas, lightness)
    for _ in range(rng.poisson(0.9)):
        _clutter(rng, canvas)
    return canvas


def _boards(rng: np.random.Generator, canvas: Mask, lightness: float) -> None:
    """Seams of boards or bricks."""
    height, width = canvas.shape[:2]
    step = int(rng.integers(height // 6 + 2, height + 2))
    seam: list[float] = _colour(rng, float(np.clip(lightness + rng.normal(0, 35), 0, 255))).tolist()
    upright = rng.random() < 0.4
    for start in range(int(rng.integers(0, step)), width if upright else height, step):
        first, last = ((start, 0), (start, height)) if upright else ((0, start), (width, start))
        cv2.line(canvas, first, last, seam, int(rng.integers(1, 4)))


def _clutter(rng: np.random.Generator, canvas: Mask) -> None:
    """A line, a spot, a bar or a letter that is no digit."""
    height, width = canvas.shape[:2]
    colour = _colour(rng, float(rng.uniform(0, 255)))
    x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
    kind = rng.integers(0, 4)
    if kind == 0:
        end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.line(canvas, (x, y), end, colour.tolist(), int(rng.integers(1, 7)))
    elif kind == 1:
        axes = (int(rng.integers(2, height // 3 + 3)), int(rng.integers(2, height // 3 + 3)))
        cv2.ellipse(canvas, (x, y), axes, 0, 0, 360, colour.tolist(), int(rng.choice([-1, 2, 4])))
    elif kind == 2:
        if rng.random() < 0.5:
            canvas[y : y + int(rng.integers(2, height // 2 + 3))] = colour
        else:
            canvas[:, x : x + int(rng.integers(2, width // 4 + 3))] = colour
    else:
        glyph = _glyph(str(rng.choice(_FONTS)), str(rng.choice(list("ABCDEFHKLMNPRTUVWXYZaegkmnrt&#-"))), 0)
        scale = float(rng.uniform(0.15, 0.5)) * height / GLYPH_PX
        place = np.array([[scale, 0, x], [0, scale, y]])
        mask = cv2.warpAffine(glyph, place, (width, height)).astype(np.float32)[:, :, None] / 255
        canvas += mask * (colour - canvas)


def _paint(rng: np.random.Generator, canvas: Mask, masks: list[Mask], boxes: NDArray[np.float32]) -> Mask:
    """Lay the digits on the wall, with a plate, a shadow or an outline now and then."""
    if rng.random() < 0.4:
        pad = float(rng.uniform(0.05, 0.4)) * float((boxes[:, 3] - boxes[:, 1]).max())
        low = np.floor((boxes[:, :2].min(axis=0) - pad) * SUPERSAMPLING).astype(int)
        high = np.ceil((boxes[:, 2:].max(axis=0) + pad) * SUPERSAMPLING).astype(int)
        plate = _colour(rng, float(rng.uniform(10, 245))).tolist()
        cv2.rectangle(canvas, low.tolist(), high.tolist(), plate, -1)
    together = np.max(masks, axis=0)
    behind = float(canvas[together > 0.5].mean())
    # Contrast of either sign, now and then faint.
    contrast = float(rng.uniform(22, 60) if rng.random() < 0.25 else rng.uniform(60, 200))
    lighter = rng.random() < (255 - behind) / 255
    colour = _colour(rng, float(np.clip(behind + (contrast if lighter else -contrast), 0, 255)))
    if abs(float(colour.mean()) - behind) < 22:
        colour = _colour(rng, 0.0 if behind > 127 else 255.0)
    effect = rng.random()
    if effect < 0.3:
        shift = rng.normal(0, 1, 2) * 0.06 * float((boxes[:, 3] - boxes[:, 1]).max()) * SUPERSAMPLING
        move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        shadow = cv2.GaussianBlur(
            cv2.warpAffine(together, move, together.shape[::-1]), (0, 0), float(rng.uniform(0.6, 4))
        )[:, :, None]
        canvas = canvas * (1 - shadow * float(rng.uniform(0.3, 0.9)))
    elif effect < 0.42:
        side = int(rng.integers(3, 8))
        outline = cv2.dilate(together, np.ones((side, side), dtype=np.uint8))[:, :, None]
        canvas = canvas + outline * (_colour(rng, float(rng.uniform(0, 255))) - canvas)
    shade = _texture(rng, canvas.shape[1], canvas.shape[0], 24)[:, :, None] * float(rng.uniform(0, 14))
    return np.asarray(canvas + together[:, :, None] * (colour + shade - canvas), dtype=np.float32)


@cache
def _camera_faults() -> Any:
    """Blur, noise, uneven light and compression, as albumentations has them."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations.Compose(
        [
            albumentations.RandomBrightnessContrast(brightness_limit=0.25, contrast_limit=0.35, p=0.6),
            albumentations.RandomGamma(gamma_limit=(70, 140), p=0.3),
            albumentations.OneOf(
                [
                    albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.4, 1.8), p=0.8),
                    albumentations.MotionBlur(blur_limit=(3, 5), p=0.2),
                ],
                p=0.75,
            ),
            albumentations.GaussNoise(std_range=(0.004, 0.03), p=0.5),
            albumentations.ImageCompression(quality_range=(35, 95), p=0.5),
        ],
        seed=0,
    )


def _degrade(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    faults = _camera_faults()
    faults.set_random_seed(int(rng.integers(0, 2**31)))
    return np.asarray(faults(image=pixels)["image"], dtype=np.uint8)
