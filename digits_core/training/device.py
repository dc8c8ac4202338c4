"""The device of a training: which one, with which dtype, and its memory."""

import gc
import sys
import time

import torch

from digits_core.errors import DeviceError, printable, reason_of

FREEING_S = 20.0
"""The longest wait, in seconds, for the GPU memory of a process that died."""


def choose_device(device: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceError: the text is no device, or the GPU cannot be used.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen: torch.device | None
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N, got '{printable(device)}'")
    if chosen.type == "cuda":
        try:
            torch.zeros(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"device {device} cannot be used: {reason_of(error)}") from None
    return chosen


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of forward passes: bfloat16 if requested, or if `precision` is `auto` and the hardware computes it."""
    native = computes_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.bfloat16 if native else torch.float32


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware, which is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # missing in older versions of torch
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def free_memory(device: str) -> None:
    """Free the memory of an earlier training in this process, and on a GPU wait while free memory still grows.

    The driver needs a moment to free the GPU memory of a process that was killed.
    """
    gc.collect()
    if device == "cpu" or not torch.cuda.is_available():
        return
    torch.cuda.empty_cache()
    end, before = time.monotonic() + FREEING_S, -1
    while time.monotonic() < end:
        free, _ = torch.cuda.mem_get_info()
        if free <= before:
            return
        before = free
        time.sleep(0.1)


def device_name(device: torch.device) -> str:
    """The name of a GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory(device: torch.device) -> int | None:
    """The largest memory use so far in bytes, of the GPU or of this process; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
