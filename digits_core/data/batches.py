"""The images of each batch, which depend only on seed and epoch; and their tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digits_core.data.augment import Sample
from digits_core.data.cache import Split, images_per_epoch
from digits_core.data.coco import starts_of
from digits_core.data.source import Pixels
from digits_core.devices import on
from digits_core.seeds import derived_seed

SORTED_BATCHES = 16
"""Images of this many batches are sorted by aspect ratio together: little padding, but still random batches."""


def to_tensor(pixels: Pixels) -> Tensor:
    """The input of a torchvision detector: float32 [3, height, width] in [0, 1] from uint8 [height, width, 3]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of any sizes and their boxes, each in one tensor, before the resize of the model.

    Attributes:
        pixels: uint8 [pixels of all images, 3], RGB: the rows of the first image, then those of the second, and so on.
        sizes: int64 [images, 2] in the memory of the CPU: width and height of each image.
        boxes: float32 [images, most boxes, 4], xyxy in pixels of the image; zeros where an image has fewer boxes.
        labels: int64 [images, most boxes]; 0 where there is no box.
        factor: multiplies the sizes to which the model resizes the images (`augment.multi_scale`).
    """

    pixels: Tensor
    sizes: NDArray[np.int64]
    boxes: Tensor
    labels: Tensor
    factor: float = 1.0

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def starts(self) -> NDArray[np.int64]:
        """int64 [images + 1]: where the pixels of each image begin, and where the last one ends."""
        return starts_of(self.sizes.prod(axis=1))

    def split(self, count: int) -> list["Batch"]:
        """At most `count` batches of consecutive images, as even as possible."""
        edges = [int(part[0]) for part in np.array_split(np.arange(len(self)), min(count, len(self)))] + [len(self)]
        starts = self.starts
        return [
            Batch(
                self.pixels[starts[first] : starts[end]],
                self.sizes[first:end],
                self.boxes[first:end],
                self.labels[first:end],
                self.factor,
            )
            for first, end in pairwise(edges)
        ]


def pack(samples: Sequence[Sample], device: torch.device, factor: float = 1.0) -> Batch:
    """One batch of images and boxes, copied to a device; `factor` as in `Batch`."""
    sizes = np.array([one.pixels.shape[1::-1] for one in samples], dtype=np.int64).reshape(-1, 2)
    most = max([1, *(len(one.boxes) for one in samples)])
    boxes = np.zeros((len(samples), most, 4), dtype=np.float32)
    labels = np.zeros((len(samples), most), dtype=np.int64)
    for row, one in enumerate(samples):
        boxes[row, : len(one.boxes)] = one.boxes
        labels[row, : len(one.labels)] = one.labels
    pixels = np.concatenate([one.pixels.reshape(-1, 3) for one in samples])
    return Batch(on(device, pixels), sizes, on(device, boxes), on(device, labels), factor)


def epoch_batches(split: Split, *, seed: int, epoch: int, batch_size: int, asked: int) -> list[list[int]]:
    """The batches of one epoch, as image indices.

    If an epoch uses only a part of the data, consecutive epochs take consecutive parts of a shuffle of all images, so
    that each image is used once before any image is used again.

    Args:
        split: the training images.
        seed: the seed of the training.
        epoch: from 1.
        batch_size: images per batch; the last batch may have fewer.
        asked: `data.images_per_epoch`.
    """
    total, count = len(split), images_per_epoch(len(split), asked)
    first = (epoch - 1) * count
    rounds = range(first // total, (first + count - 1) // total + 1)
    shuffles = [np.random.default_rng(derived_seed("order", seed, number)).permutation(total) for number in rounds]
    begin = first - rounds[0] * total
    order = np.concatenate(shuffles)[begin : begin + count]
    aspect = split.table.sizes[:, 0] / split.table.sizes[:, 1]
    batches: list[list[int]] = []
    for start in range(0, count, batch_size * SORTED_BATCHES):
        some = order[start : start + batch_size * SORTED_BATCHES]
        some = some[np.argsort(aspect[some], kind="stable")]
        batches += [some[at : at + batch_size].tolist() for at in range(0, len(some), batch_size)]
    np.random.default_rng(derived_seed("batches", seed, epoch)).shuffle(batches)
    return batches


def size_factor(multi_scale: float, *seeds: int) -> float:
    """A random factor from 1 / multi_scale to multi_scale, as probable below 1 as above, for one batch.

    Args:
        multi_scale: `augment.multi_scale`, at least 1.
        seeds: the factor depends on nothing else.
    """
    if multi_scale == 1:
        return 1.0
    random = np.random.default_rng(derived_seed("multi scale", *seeds))
    return float(multi_scale ** random.uniform(-1, 1))


def load_batch(
    split: Split,
    indices: list[int],
    device: torch.device,
    change: Callable[[Sample, int], Sample] | None = None,
    factor: float = 1.0,
) -> Batch:
    """The images of one batch with their boxes, without crowds and empty boxes.

    Args:
        split: contains the images.
        indices: of the images in the split.
        device: of the returned tensors.
        change: augmentation, called with a sample and its image id; None does not change the images.
        factor: as in `Batch`.
    """
    samples = []
    for index in indices:
        table = split.table
        mine = slice(int(table.box_start[index]), int(table.box_start[index + 1]))
        boxes, labels = table.boxes[mine], table.labels[mine]
        solid = ~table.crowds[mine] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        sample = Sample(split.image(index), boxes[solid], labels[solid])
        samples.append(sample if change is None else change(sample, int(table.image_ids[index])))
    return pack(samples, device, factor)
