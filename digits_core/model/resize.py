"""The resize and normalisation of torchvision's detectors for all images of a batch at once, on the model's device."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digits_core.config.train_config import ModelConfig
from digits_core.data.batches import Batch
from digits_core.devices import constant, must_not_wait, on
from digits_core.model.anchors import SIZE_DIVISIBLE, resized_sizes

MOST_PIXELS = 2**22
"""Resized pixels that are gathered together on a GPU: each needs about 200 bytes while it is gathered."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of a detector.

    Attributes:
        images: [images, 3, height, width], normalised, channels last; 0 outside of an image.
        sizes: int64 [images, 2] in the memory of the CPU: width and height of each resized image.
        sides: [images, 4]: the same as width, height, width, height, on the device.
        boxes: [images, most boxes, 4], xyxy, pixels of the resized image.
        labels: int64 [images, most boxes]; 0 where there is no box.
    """

    images: Tensor
    sizes: NDArray[np.int64]
    sides: Tensor
    boxes: Tensor
    labels: Tensor


def resize(batch: Batch, model: ModelConfig, mean: list[float], std: list[float], dtype: torch.dtype) -> Inputs:
    """Resize and normalise a batch, and move its boxes.

    Args:
        batch: images of any sizes.
        model: the sizes after the resize.
        mean: of each channel, for values in [0, 1].
        std: standard deviation of each channel.
        dtype: of the weights of the model.

    Source:
        torchvision `GeneralizedRCNNTransform`; bilinear interpolation as `torch.nn.functional.interpolate` with
        align_corners=False.
    """
    device = batch.pixels.device
    sizes = resized_sizes(model, batch.sizes, batch.factor)
    width, height = (-(-sizes.max(axis=0) // SIZE_DIVISIBLE) * SIZE_DIVISIBLE).tolist()
    # Values in [0, 255] times factor minus offset.
    factor, offset = [1 / (255 * value) for value in std], [a / b for a, b in zip(mean, std, strict=True)]
    pixels = resized_on_device if must_not_wait(device) else resized_on_cpu
    images = pixels(batch, sizes, (height, width), (tuple(factor), tuple(offset))).to(dtype)
    ratio = (sizes / batch.sizes).astype(np.float32)  # as torchvision, which divides in float32
    sides = on(device, np.tile(sizes, 2).astype(np.float32)).to(dtype)
    boxes = batch.boxes.to(dtype) * on(device, np.tile(ratio, 2))[:, None]
    return Inputs(images.permute(0, 3, 1, 2), sizes, sides, boxes, batch.labels)


def resized_on_cpu(
    batch: Batch, sizes: NDArray[np.int64], shape: tuple[int, int], normal: tuple[tuple[float, ...], ...]
) -> Tensor:
    """The images of a batch on a CPU, one at a time, because OpenCV is several times as fast as gathering pixels.

    Args:
        batch: the images.
        sizes: int64 [images, 2], width and height of each resized image.
        shape: height and width of the padded images.
        normal: factor and offset of each channel: pixels times the factor minus the offset are normalised.

    Returns:
        float32 [images, height, width, 3]; 0 outside of an image.
    """
    images = np.zeros((len(batch), *shape, 3), dtype=np.float32)
    factor, offset = np.array(normal, dtype=np.float32)
    flat, starts = batch.pixels.numpy(), batch.starts.tolist()
    for row, ((before, tall), (width, height)) in enumerate(zip(batch.sizes.tolist(), sizes.tolist(), strict=True)):
        image = flat[starts[row] : starts[row + 1]].reshape(tall, before, 3).astype(np.float32)
        inside = images[row, :height, :width]
        np.multiply(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), factor, out=inside)
        inside -= offset
    return torch.from_numpy(images)


def resized_on_device(
    batch: Batch, sizes: NDArray[np.int64], shape: tuple[int, int], normal: tuple[tuple[float, ...], ...]
) -> Tensor:
    """As `resized_on_cpu`, for many images at once: each pixel is the mean of four pixels, with weights."""
    device, starts = batch.pixels.device, batch.starts[:-1]
    factor = constant(normal[0], device, torch.float32)
    minus_offset = constant(tuple(-one for one in normal[1]), device, torch.float32)
    step = max(1, MOST_PIXELS // (shape[0] * shape[1]))
    parts = []
    for part in (slice(first, first + step) for first in range(0, len(batch), step)):
        columns, x_share, x_inside = _taps(batch.sizes[part, 0], sizes[part, 0], shape[1])
        rows, y_share, y_inside = _taps(batch.sizes[part, 1], sizes[part, 1], shape[0])
        line = starts[part, None, None] + rows * batch.sizes[part, :1, None]
        # [rows above and below, columns left and right, images, height, width]
        taken = on(device, line.transpose(2, 0, 1)[:, None, :, :, None]) + on(
            device, columns.transpose(2, 0, 1)[None, :, :, None, :]
        )
        left, right = batch.pixels[taken].float().unbind(1)
        above, below = torch.lerp(left, right, on(device, x_share)[:, None, :, None]).unbind()
        images = torch.lerp(above, below, on(device, y_share)[:, :, None, None])
        inside = on(device, y_inside[:, :, None, None] & x_inside[:, None, :, None])
        parts.append(torch.addcmul(minus_offset, images, factor) * inside)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _taps(
    before: NDArray[np.int64], after: NDArray[np.int64], padded: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Which two pixels give each pixel of a resized axis, for every image.

    Returns:
        Their indices, int64 [images, padded, 2], the share of the second one float32 [images, padded], and whether the
        pixel is inside of the resized image.
    """
    at = np.arange(padded, dtype=np.float32)[None]
    scale = (before.astype(np.float32) / after.astype(np.float32))[:, None]
    source = np.maximum(scale * (at + np.float32(0.5)) - np.float32(0.5), 0)
    last = before[:, None] - 1
    low = np.minimum(source.astype(np.int64), last)
    share = np.clip(source - low, 0, 1).astype(np.float32)
    return np.stack([low, np.minimum(low + 1, last)], axis=2), share, at < after[:, None]
