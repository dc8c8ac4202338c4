"""An exponential moving average of the weights of a training, which is scored and kept in place of the last weights."""

import copy
from typing import Any

import torch
from torch import nn

WARM_UP = 10.0
"""The average of the first steps is short: after t steps the decay is at most (1 + t) / (10 + t)."""


def decay_at(decay: float, step: int) -> float:
    """The decay after `step` earlier updates.

    Source:
        tf.train.ExponentialMovingAverage with `num_updates`.
    """
    return min(decay, (1 + step) / (WARM_UP + step))


class Average:
    """A second model whose weights are the moving average of a first one's.

    Attributes:
        model: the second model, in the mode of the first one at the start; statistics of batch norm are averaged, too.
    """

    def __init__(self, model: nn.Module) -> None:
        """Begin with the weights of a model."""
        self.model: Any = copy.deepcopy(model).requires_grad_(False)

    def update(self, model: nn.Module, decay: float, step: int) -> None:
        """Move the average towards the weights of the model after a step.

        Args:
            model: the first model.
            decay: `optim.ema`.
            step: number of earlier updates since the average began.
        """
        own, new = self.model.state_dict(), model.state_dict()
        real = [name for name, value in own.items() if value.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([own[name] for name in real], [new[name] for name in real], 1 - decay_at(decay, step))
            for name in own.keys() - set(real):
                own[name].copy_(new[name])

    def restart(self, model: nn.Module) -> None:
        """Begin again with the weights of a model."""
        self.model.load_state_dict(model.state_dict())
