"""The optimiser."""

from collections.abc import Iterable

import torch
from torch import nn

from digits_core.config.train_config import OptimConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW or SGD over the trainable parameters, in the fused implementation."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    lr, decay = config.peak_lr, config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(trained, lr=lr, momentum=config.momentum, weight_decay=decay, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
