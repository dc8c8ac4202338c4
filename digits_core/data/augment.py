"""The named augmentation pipelines: what is done to a training image and its boxes before the model's own resize.

Every draw follows from the training's seed, the epoch and the image alone, whoever loads it and in whatever
order; torch's global generator is left as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from digits_core.config.train_config import PROCESSING, AugmentConfig
from digits_core.data.source import Pixels
from digits_core.seeds import derived_seed

MIN_SIDE_PX = 1.0
"""A box that a pipeline leaves narrower or lower than this is dropped."""

MIN_VISIBILITY = 0.5
"""A box of which less than this share is left inside the image is dropped."""

BINARIZE_BLOCK, BINARIZE_C = 11, 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its boxes.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        boxes: float32 [num, 4], xyxy, pixels of this image.
        labels: int64 [num], labels as in `coco.Table`.
    """

    pixels: Pixels
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


Step = Callable[[Sample, int], Sample]
"""A step takes a sample and a seed."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What a config does to the images of one epoch of one training."""

    config: AugmentConfig
    seed: int
    epoch: int

    def __call__(self, sample: Sample, image_id: int) -> Sample:
        """Augment one image; boxes that nothing is left of are dropped."""
        if not self.config.steps:
            return sample
        for number, name in enumerate(self.config.steps):
            sample = STEPS[name](sample, derived_seed("augment", self.seed, self.epoch, image_id, number, name))
        return _solid(sample)


@dataclass(frozen=True, slots=True)
class Processing:
    """The part of a config that is no chance but belongs to the data: done to every image, evaluated ones too."""

    config: AugmentConfig

    def __call__(self, sample: Sample, image_id: int) -> Sample:
        """Process one image; its boxes stay as they are."""
        for name in self.config.steps:
            if name in PROCESSING:
                sample = STEPS[name](sample, 0)
        return sample


def _solid(sample: Sample) -> Sample:
    """Without boxes that are degenerate or lie outside."""
    height, width = sample.pixels.shape[:2]
    boxes = np.clip(sample.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE_PX).all(axis=1)
    return Sample(sample.pixels, boxes[kept], sample.labels[kept])


def _torchvision(build: Callable[[], v2.Transform]) -> Step:
    """A step of torchvision transforms that leave the boxes where they are."""
    transform = cache(build)

    def step(sample: Sample, seed: int) -> Sample:
        image = torch.from_numpy(np.ascontiguousarray(sample.pixels.transpose(2, 0, 1)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels = transform()(image)
        return Sample(np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0)), sample.boxes, sample.labels)

    return step


def _color() -> v2.Transform:
    """Course report A's easy list."""
    return v2.Compose(
        [
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.3),
            v2.RandomGrayscale(p=0.1),
            v2.RandomAdjustSharpness(sharpness_factor=2, p=0.3),
            v2.GaussianBlur(kernel_size=3, sigma=(0.1, 2.0)),
            v2.RandomAutocontrast(p=0.3),
            v2.RandomEqualize(p=0.1),
            v2.RandomErasing(),
        ]
    )


def _color_b() -> v2.Transform:
    """Course report B's color jitter."""
    return v2.Compose(
        [v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1), v2.RandomGrayscale(p=0.1)]
    )


@cache
def _albumentations() -> Any:
    """Course report A's hard list, boxes carried along; its mirroring is a step of its own."""
    import albumentations as alb

    return alb.Compose(
        [
            alb.Affine(
                scale=(0.8, 1.2),
                translate_percent=(-0.1, 0.1),
                rotate=(-15, 15),
                shear=(-10, 10),
                rotate_method="ellipse",
                p=0.5,
            ),
            alb.RandomFog(p=0.4),
            alb.MotionBlur(blur_limit=3, p=0.1),
            alb.OneOf([alb.ToGray(), alb.ChannelDropout()], p=0.2),
            alb.CoarseDropout(),
        ],
        bbox_params=alb.BboxParams(
            format="pascal_voc",
            label_fields=["labels"],
            min_visibility=MIN_VISIBILITY,
            min_width=MIN_SIDE_PX,
            min_height=MIN_SIDE_PX,
            clip=True,
        ),
    )


def _seed(part: Any, seed: int) -> None:
    """Seed a pipeline and each of its parts apart: albumentations would give all parts one seed, and so one chance."""
    part.set_random_seed(seed % 2**32)
    for number, inner in enumerate(getattr(part, "transforms", ())):
        _seed(inner, derived_seed(seed, number))


def _geometric(sample: Sample, seed: int) -> Sample:
    pipeline = _albumentations()
    _seed(pipeline, seed)
    done = pipeline(image=sample.pixels, bboxes=sample.boxes, labels=sample.labels)
    boxes = np.asarray(done["bboxes"], dtype=np.float32).reshape(-1, 4)
    return Sample(np.ascontiguousarray(done["image"]), boxes, np.asarray(done["labels"], dtype=np.int64).reshape(-1))


def _binarize(sample: Sample, seed: int) -> Sample:
    """Course report B's adaptive threshold: white where a pixel is darker than its surroundings."""
    gray = cv2.cvtColor(np.ascontiguousarray(sample.pixels), cv2.COLOR_RGB2GRAY)
    black_and_white = cv2.adaptiveThreshold(
        gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, BINARIZE_BLOCK, BINARIZE_C
    )
    return Sample(np.repeat(black_and_white[:, :, None], 3, axis=2).astype(np.uint8), sample.boxes, sample.labels)


def _mirror(sample: Sample, seed: int) -> Sample:
    """Left becomes right, in every other image."""
    if np.random.default_rng(seed).random() < 0.5:
        return sample
    width = sample.pixels.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return Sample(np.ascontiguousarray(sample.pixels[:, ::-1]), boxes, sample.labels)


STEPS: dict[str, Step] = {
    "color": _torchvision(_color),
    "color_b": _torchvision(_color_b),
    "geometric": _geometric,
    "binarize": _binarize,
    "mirror": _mirror,
}
