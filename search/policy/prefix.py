"""Which trainings begin alike: the epochs after which two configurations still have the same model, bit for bit."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import steps_per_epoch
from digits_core.training.schedule import lr_at

ONLY_RATE = (
    *("lr", "lr_scaling", "schedule", "step_epochs", "step_gamma", "eta_min", "t_max", "onecycle_peak"),
    *("warmup_epochs", "epochs", "stages", "early_stop_epochs"),
)
"""Parameters of `optim` that act only through the learning rate of each step, or through the end of a stage."""


def shared_epochs(first: TrainConfig, second: TrainConfig, num_images: int) -> int:
    """How many of the first epochs of two trainings are the same: the same data, steps and scores.

    Args:
        first: a configuration.
        second: another one.
        num_images: training images of the data.
    """
    if _same_always(first) != _same_always(second):
        return 0
    epochs = min(first.optim.epochs, second.optim.epochs)
    for epoch in range(1, epochs + 1):
        if _epoch_key(first, epoch, num_images) != _epoch_key(second, epoch, num_images):
            return epoch - 1
    return epochs


def repeated_epochs(configs: Sequence[TrainConfig], num_images: int) -> int:
    """Epochs that are trained again although an earlier configuration of the list has trained the same ones."""
    groups: dict[str, list[TrainConfig]] = {}
    for one in configs:
        groups.setdefault(_same_always(one), []).append(one)
    return sum(
        max((shared_epochs(one, earlier, num_images) for earlier in group[:number]), default=0)
        for group in groups.values()
        for number, one in enumerate(group)
    )


@lru_cache(maxsize=4096)
def _same_always(config: TrainConfig) -> str:
    """What must be equal in trainings that begin alike."""
    averaged = any(stage.config.optim.ema for stage in config.stages)
    parts = [asdict(part) for part in (config.data, config.model, config.detect, config.runtime)]
    return json.dumps([parts, averaged])


@lru_cache(maxsize=65536)
def _epoch_key(config: TrainConfig, epoch: int, num_images: int) -> str:
    """A digest of everything that determines an epoch, given the epochs before it."""
    stage = config.stage_at(epoch)
    optim = asdict(stage.config.optim)
    kept = {name: value for name, value in optim.items() if name not in ONLY_RATE}
    steps = steps_per_epoch(num_images, config.data.images_per_epoch, stage.config.optim.batch_size)
    begun = (epoch - stage.span.first) * steps
    rates = [lr_at(stage.config.optim, step, steps) for step in range(begun, begun + steps)]
    text = json.dumps([stage.span.first, kept, asdict(stage.config.augment), rates])
    return hashlib.sha256(text.encode()).hexdigest()
