"""The learning rate as a function of the step number only; no torch."""

import math

from digits_core.config.train_config import OptimConfig

WARMUP_START = 0.01
"""A warm-up starts at this share of the learning rate."""

ONECYCLE_START, ONECYCLE_END = 1 / 25, 1 / 25e4
"""One-cycle starts and ends at these shares of the peak: torch's div_factor and final_div_factor."""


def lr_at(config: OptimConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one optimiser step.

    It depends only on the step, so a resumed training always follows its schedule. The schedule covers the full
    number of epochs, even if the training stops earlier.

    Args:
        config: schedule, rates and epochs.
        step: number of optimiser steps done before this one.
        steps_per_epoch: optimiser steps of one epoch.

    Source:
        torch.optim.lr_scheduler: StepLR and CosineAnnealingLR (closed forms, stepped once per epoch),
        OneCycleLR (cosine, two phases, stepped once per step), LinearLR for the warm-up.
    """
    epoch, peak_lr = step // steps_per_epoch, config.peak_lr
    match config.schedule:
        case "step":
            lr = peak_lr * config.step_gamma ** (epoch // config.step_epochs)
        case "cosine":
            lr = _cosine(peak_lr, config.eta_min, epoch / (config.t_max or config.epochs))
        case "onecycle":
            total = config.epochs * steps_per_epoch
            peak = config.onecycle_peak * total - 1
            if step <= peak:
                lr = _cosine(peak_lr * ONECYCLE_START, peak_lr, step / peak if peak else 1.0)
            else:
                lr = _cosine(peak_lr, peak_lr * ONECYCLE_END, (step - peak) / (total - 1 - peak))
        case _:
            lr = peak_lr
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        lr *= WARMUP_START + (1 - WARMUP_START) * step / warmup_steps
    return lr


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
