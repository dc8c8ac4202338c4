"""Several processes that train one model: each takes its share of every batch, gradients are averaged."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one training; torch.distributed's default group, once there are several.

    Attributes:
        rank: which this one is, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that evaluates, saves and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as training steps call it: averaging gradients over the processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share(self, indices: list[int]) -> list[int]:
        """What this process takes of a batch."""
        return indices[self.rank :: self.size]

    def weight(self, mine: int, all_of_it: int) -> float:
        """What a mean over `mine` images counts in a batch of `all_of_it`, when gradients are averaged evenly."""
        return mine * self.size / all_of_it

    def apart(self, forward: nn.Module) -> AbstractContextManager[None]:
        """Gradients of steps inside stay with this process; the next step outside averages them too."""
        if isinstance(forward, DistributedDataParallel):
            return forward.no_sync()
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: bool) -> bool:
        """What the leading process says."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]


ALONE = World()
