"""What differs between a CPU and a GPU: a CPU that waits for a GPU leaves both idle."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def must_not_wait(device: torch.device) -> bool:
    """Whether the number of rows of a result should not depend on values on this device.

    The CPU would have to wait for a GPU to know this number. On a CPU, computing only the rows that count is faster.
    """
    return device.type != "cpu"


@lru_cache(maxsize=512)
def constant(values: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of (nested) tuples of numbers, which must not be changed.

    Making a tensor from numbers makes the CPU wait for a GPU; a repeated call returns the same tensor.
    """
    with torch.inference_mode(False):  # otherwise a training could not use what an evaluation made
        return torch.tensor(values, dtype=dtype, device=device)
