"""Several processes that train one model: each takes a share of every batch, and gradients are averaged."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from digits_core.training.reports import EpochProgress, ignore_progress


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one training; several processes form torch.distributed's default group.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes.
        wait: called after each epoch in the processes that do not lead, while the leading one evaluates.
        progress: called in the leading process after each optimiser step; it must return at once.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = lambda: None
    progress: Callable[[EpochProgress], None] = ignore_progress

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, saves and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model as training steps call it; with several processes it averages gradients over them."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share(self, indices: list[int]) -> list[int]:
        """The images of a batch that this process trains on."""
        return indices[self.rank :: self.size]

    def weight(self, mine: int, batch_size: int) -> float:
        """The weight of a mean over `mine` images of a batch, for gradients that processes average evenly."""
        return mine * self.size / batch_size

    def no_sync(self, forward: nn.Module) -> AbstractContextManager[None]:
        """Inside this context gradients are not exchanged; the next step outside averages them too."""
        if isinstance(forward, DistributedDataParallel):
            return forward.no_sync()
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: bool) -> bool:
        """The `value` of the leading process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = World()
