"""What one retraining trains."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """One retraining.

    Attributes:
        parent: the trial.
        config: what is trained.
        trained_on: `train` or `train+valid`.
        until: the epoch to end after, the schedule unshortened; None trains all.
        workers: processes that train together.
        gpus: whether each has a GPU.
    """

    parent: str
    config: dict[str, Any]
    trained_on: str
    until: int | None
    workers: int
    gpus: bool
