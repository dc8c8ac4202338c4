"""Models whose weights are averaged into one model, with batch-norm statistics that are measured again."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from digits_core.data.augment import Processing, Sample
from digits_core.data.batches import load_batch
from digits_core.data.cache import Split
from digits_core.errors import RunError, printable
from digits_core.evaluation.detect import batches_by_shape
from digits_core.evaluation.evaluate import refined
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.selection import Counts
from digits_core.model.build import check_model
from digits_core.seeds import derived_seed
from digits_core.submission.inference import Detector, detect_single
from search.models.kept import Kept
from search.models.pool import Pool, reduced

NORM_IMAGES = 512
"""Training images from which batch-norm statistics are measured."""

_NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(slots=True)
class Soup(Pool):
    """A pool whose ensembles are averages of weights: one model, as fast as each of them.

    Attributes:
        detectors: the models.
        train: the training images, for batch norm.

    Source:
        Wortsman et al. 2022, Model soups; Izmailov et al. 2018, Averaging weights leads to wider optima (batch norm).
    """

    detectors: list[Detector] = field(default_factory=list)
    train: Split | None = None
    _found: dict[Counts, Candidates] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What several models together are called."""
        return "averaged model"

    @property
    def fuses(self) -> bool:
        """Whether detections are fused."""
        return False

    def found(self, counts: Counts, *, fused: bool = False) -> Candidates:
        """The detections of an average before NMS; `fused` has no effect."""
        counts, lead = reduced(counts), self.lead(counts)
        if sum(map(bool, counts)) == 1:
            return refined(self.raw[lead], self.configs[lead].detect)
        if counts not in self._found:
            self._found[counts], _ = detect_single(self.averaged(counts), self.valid, self.fusion.floor)
        return refined(self._found[counts], self.configs[lead].detect)

    def averaged(self, counts: Counts) -> Detector:
        """The model whose weights are the mean of the models' weights, on their device."""
        assert self.train is not None
        lead = self.detectors[self.lead(counts)]
        model: Any = copy.deepcopy(lead.model)
        models: list[Any] = [one.model for one in self.detectors]
        model.load_state_dict(mean_state([one.state_dict() for one in models], counts))
        config = lead.config
        size, change = config.runtime.eval_batch_size, Processing(config.augment)
        renew_batch_norm(model, self.train, batch_size=size, dtype=lead.dtype, change=change)
        return replace(lead, model=model)


def mean_state(states: Sequence[dict[str, Tensor]], counts: Counts) -> dict[str, Tensor]:
    """The mean of tensors, weighted by counts; those that are no floating-point numbers come from the first model."""
    total = sum(counts)
    inside = [(state, count / total) for state, count in zip(states, counts, strict=True) if count]
    first = inside[0][0]
    return {
        name: sum((state[name].double() * share for state, share in inside), torch.zeros(())).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


@torch.no_grad()
def renew_batch_norm(
    model: Any,
    train: Split,
    *,
    batch_size: int,
    dtype: torch.dtype,
    change: Callable[[Sample, int], Sample] | None = None,
) -> None:
    """Measure the batch-norm statistics of a model again, on NORM_IMAGES training images without augmentation.

    A norm in the box head sees the proposals of an evaluation, which are more than those that a training samples.

    Args:
        model: in evaluation mode; it is in evaluation mode afterwards.
        train: the training images.
        batch_size: images per batch.
        dtype: of the forward pass.
        change: preprocessing of each image.
    """
    norms = [part for part in model.modules() if isinstance(part, _NORMS)]
    if not norms:
        return
    chosen = np.random.default_rng(derived_seed("batch norm")).permutation(len(train))[:NORM_IMAGES]
    split, device = train.some(np.sort(chosen), "train"), next(model.parameters()).device
    known = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    batches = list(batches_by_shape(split.table.sizes, batch_size))
    whole = [one for one in batches if len(one) == batch_size] or batches  # each batch counts equally
    try:
        for indices in whole:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                model.detect(model.inputs(load_batch(split, indices, device, change)))
    finally:
        for norm, momentum in zip(norms, known, strict=True):
            norm.momentum = momentum
        model.eval()


def check_alike(models: Sequence[Kept], detectors: Sequence[Detector]) -> None:
    """Check that models can be averaged: the same tensors, and trainings that began with the same weights.

    Raises:
        RunError: they cannot.
    """
    parts: list[Any] = [one.model for one in detectors]
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in parts]
    first = detectors[0].config
    for one, detector, shape in zip(models, detectors, shapes, strict=True):
        if shape != shapes[0] or detector.config.model.weights != first.model.weights:
            raise RunError(
                f"--average: {models[0].name} and {one.name} differ in their architecture or initial weights, so their "
                "mean is no useful model; name models that differ only in training with --trials"
            )
    seeds = {one.config.runtime.seed for one in detectors}
    random = check_model(first, num_classes=detectors[0].categories.num_classes).random
    if random and len(seeds) > 1:
        raise RunError(
            f"--average: with model.weights={printable(first.model.weights)} each seed begins with other random "
            f"weights ({', '.join(random[:3])}), so the mean of {', '.join(one.name for one in models)} is no useful "
            "model; name trials with the same seed with --trials"
        )
