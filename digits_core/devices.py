"""What differs between a CPU and a GPU: a CPU that waits for a GPU leaves both idle."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def must_not_wait(device: torch.device) -> bool:
    """Whether the number of rows of a result should not depend on values on this device.

    The CPU would have to wait for a GPU to know this number. On a CPU, computing only the rows that count is faster.
    """
    return device.type != "cpu"


def on(device: torch.device, values: NDArray[np.generic]) -> Tensor:
    """An array as a tensor on a device; a GPU copies it while the CPU continues."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if must_not_wait(device) else tensor


@lru_cache(maxsize=512)
def constant(values: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of (nested) tuples of numbers, which must not be changed.

    Making a tensor from numbers makes the CPU wait for a GPU; a repeated call returns the same tensor.
    """
    with torch.inference_mode(False):  # otherwise a training could not use what an evaluation made
        return torch.tensor(values, dtype=dtype, device=device)
