"""The named augmentation pipelines: changes to a training image and its boxes before the model's resize.

All random numbers depend only on the seed of the training, the epoch and the image, not on the process that loads the
image or the order of images. The state of torch's global generator does not change.
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
"""A box with a shorter side than this after a pipeline is dropped."""

MIN_VISIBILITY = 0.5
"""A box with less than this share of its area inside the image is dropped."""

BINARIZE_BLOCK, BINARIZE_C = 11, 2

GREY = (124, 116, 104)
"""The colour around an image that was made smaller: about 0 after the normalisation of torchvision's detectors."""


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
"""A step takes a sample and a seed, and returns the changed sample."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The augmentation of a configuration, for the images of one epoch of one training."""

    config: AugmentConfig
    seed: int
    epoch: int

    def __call__(self, sample: Sample, image_id: int) -> Sample:
        """Augment one image; boxes that become empty or leave the image are dropped."""
        if not self.config.steps:
            return sample
        for number, name in enumerate(self.config.steps):
            seed = derived_seed("augment", self.seed, self.epoch, image_id, number, name)
            step = scale_jitter(self.config.scale_jitter) if name == "scale_jitter" else STEPS[name]
            sample = step(sample, seed)
        return _solid(sample)


@dataclass(frozen=True, slots=True)
class Processing:
    """The augmentation steps without randomness (PROCESSING), for every image, including those of an evaluation."""

    config: AugmentConfig

    def __call__(self, sample: Sample, image_id: int) -> Sample:
        """Process one image; its boxes do not change."""
        for name in self.config.steps:
            if name in PROCESSING:
                sample = STEPS[name](sample, 0)
        return sample


def _solid(sample: Sample) -> Sample:
    """The sample without empty boxes and boxes outside the image."""
    boxes = _inside(sample)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE_PX).all(axis=1)
    return Sample(sample.pixels, boxes[kept], sample.labels[kept])


def _inside(sample: Sample) -> NDArray[np.float32]:
    """The part of each box that is inside the image."""
    height, width = sample.pixels.shape[:2]
    return np.clip(sample.boxes, 0, np.array([width, height, width, height], dtype=np.float32))


def _torchvision(build: Callable[[], v2.Transform]) -> Step:
    """A step of torchvision transforms that do not move the boxes."""
    transform = cache(build)

    def step(sample: Sample, seed: int) -> Sample:
        image = torch.from_numpy(np.ascontiguousarray(sample.pixels.transpose(2, 0, 1)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels = transform()(image)
        return Sample(np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0)), sample.boxes, sample.labels)

    return step


def _color() -> v2.Transform:
    """The weak augmentation of course report A."""
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
    """The color jitter of course report B."""
    return v2.Compose(
        [v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1), v2.RandomGrayscale(p=0.1)]
    )


@cache
def _albumentations() -> Any:
    """The strong augmentation of course report A, which also moves the boxes; mirroring is a separate step."""
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
    """Seed each part of a pipeline separately; albumentations would give all parts the same seed."""
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
    """The adaptive threshold of course report B: a pixel becomes white if it is darker than its surroundings."""
    gray = cv2.cvtColor(np.ascontiguousarray(sample.pixels), cv2.COLOR_RGB2GRAY)
    black_and_white = cv2.adaptiveThreshold(
        gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, BINARIZE_BLOCK, BINARIZE_C
    )
    return Sample(np.repeat(black_and_white[:, :, None], 3, axis=2).astype(np.uint8), sample.boxes, sample.labels)


def _mirror(sample: Sample, seed: int) -> Sample:
    """Mirror the image horizontally, with a probability of one half."""
    if np.random.default_rng(seed).random() < 0.5:
        return sample
    width = sample.pixels.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return Sample(np.ascontiguousarray(sample.pixels[:, ::-1]), boxes, sample.labels)


def scale_jitter(most: float) -> Step:
    """The step that makes the content of an image up to `most` times as large or as small after the resize.

    A larger one is a random part of the image with the same aspect ratio. A smaller one is the image at a random
    place of a larger grey image. No pixel is resized here; the model resizes every image to its own size.

    Source:
        Ghiasi et al. 2021, Simple copy-paste (large-scale jittering), with factors of the same probability on a
        logarithmic scale.
    """

    def step(sample: Sample, seed: int) -> Sample:
        random = np.random.default_rng(seed)
        factor = most ** random.uniform(-1, 1)
        place = random.random(2)
        before = np.array(sample.pixels.shape[1::-1])
        after = np.maximum(np.rint(before / factor).astype(np.int64), 1)
        corner = np.floor(place * (abs(after - before) + 1)).astype(np.int64)
        if factor > 1:
            (left, top), (right, bottom) = corner, corner + after
            pixels = np.ascontiguousarray(sample.pixels[top:bottom, left:right])
            return _visible(Sample(pixels, sample.boxes - np.tile(corner, 2).astype(np.float32), sample.labels))
        (left, top), (right, bottom) = corner, corner + before
        pixels = np.empty((*after[::-1], 3), dtype=np.uint8)
        pixels[:] = GREY
        pixels[top:bottom, left:right] = sample.pixels
        return Sample(pixels, sample.boxes + np.tile(corner, 2).astype(np.float32), sample.labels)

    return step


def _visible(sample: Sample) -> Sample:
    """The sample without boxes of which less than MIN_VISIBILITY is inside the image."""
    areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (_inside(sample), sample.boxes)]
    kept = areas[0] >= MIN_VISIBILITY * areas[1]
    return Sample(sample.pixels, sample.boxes[kept], sample.labels[kept])


STEPS: dict[str, Step] = {
    "color": _torchvision(_color),
    "color_b": _torchvision(_color_b),
    "geometric": _geometric,
    "binarize": _binarize,
    "mirror": _mirror,
}
