"""What one retraining trains."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """One retraining.

    Attributes:
        parent: the trial that is retrained.
        config: the flat config.
        trained_on: `train` or `train+valid`.
        until: the epoch to end after, without shortening the schedule; None trains all epochs.
        workers: processes that train together.
        gpus: whether each process has a GPU.
    """

    parent: str
    config: dict[str, Any]
    trained_on: str
    until: int | None
    workers: int
    gpus: bool
