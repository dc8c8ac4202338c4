"""The images of each batch, which depend only on seed and epoch; and their tensors."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from digits_core.data.augment import Sample
from digits_core.data.cache import Split, images_per_epoch
from digits_core.data.source import Pixels
from digits_core.seeds import derived_seed

Target = dict[str, Tensor]

SORTED_BATCHES = 16
"""Images of this many batches are sorted by aspect ratio together: little padding, but still random batches."""


def to_tensor(pixels: Pixels) -> Tensor:
    """float32 [3, height, width] in [0, 1] from uint8 [height, width, 3]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


def steps_per_epoch(num_images: int, asked: int, batch_size: int) -> int:
    """Optimiser steps of one epoch."""
    return math.ceil(images_per_epoch(num_images, asked) / batch_size)


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


def load_batch(
    split: Split, indices: list[int], device: torch.device, change: Callable[[Sample, int], Sample] | None = None
) -> tuple[list[Tensor], list[Target]]:
    """Images and torchvision targets of one batch, without crowds and empty boxes.

    Args:
        split: contains the images.
        indices: of the images in the split.
        device: of the returned tensors.
        change: augmentation, called with a sample and its image id; None does not change the images.

    Returns:
        Images float32 [3, height, width] in [0, 1]; targets with `boxes` float32 [num, 4] xyxy in
        pixels and `labels` int64 [num].
    """
    images, targets = [], []
    for index in indices:
        table = split.table
        mine = slice(int(table.box_start[index]), int(table.box_start[index + 1]))
        boxes, labels = table.boxes[mine], table.labels[mine]
        solid = ~table.crowds[mine] & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        sample = Sample(split.image(index), boxes[solid], labels[solid])
        if change is not None:
            sample = change(sample, int(table.image_ids[index]))
        images.append(to_tensor(sample.pixels).to(device))
        targets.append(
            {
                "boxes": torch.from_numpy(sample.boxes).to(device),
                "labels": torch.from_numpy(sample.labels).to(device),
            }
        )
    return images, targets
