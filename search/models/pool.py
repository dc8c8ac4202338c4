"""The raw detections of several models on the validation images, and the scores of every ensemble of them."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig, TrainConfig
from digits_core.data.cache import DigitData, Split
from digits_core.data.source import draw_by_hash
from digits_core.errors import RunError, WeightsError, printable
from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
from digits_core.evaluation.detect import SCORE_FLOOR
from digits_core.evaluation.evaluate import match_tasks, refined
from digits_core.evaluation.fusion import Fusion, fuse
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import Truth, score
from digits_core.evaluation.selection import Counts
from digits_core.evaluation.sweep import sweep
from digits_core.submission.inference import detect_single, load_detector, match_as_predicted
from results.tables.matches import RESAMPLES
from search.defaults import DEFAULT_IOU
from search.models.folder import with_optima
from search.models.kept import Kept
from search.tune.trainable import optima

FEWEST_IMAGES = 7
"""Images with digits that each half needs: with fewer, no difference is significant."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of an ensemble, or of a single model, on images that did not choose it.

    Attributes:
        counts: how often each model is in it.
        points: each of SCORE_NAMES that could be measured.
        resampled: float64 [resamples] by name, for the same resamples of the images in each half.
    """

    counts: Counts
    points: dict[str, float]
    resampled: dict[str, NDArray[np.float64]]


@dataclass(slots=True)
class Pool:
    """Models whose raw detections on the validation images are known.

    Attributes:
        models: their names and folders.
        configs: their configurations.
        raw: the raw detections of each.
        valid: the validation images.
        halves: the images of the two halves.
        fusion: how ensembles fuse the detections.
        metric: the metric of the run, which chooses.
    """

    models: list[Kept]
    configs: list[TrainConfig]
    raw: list[Candidates]
    valid: Split
    halves: tuple[Indices, Indices]
    fusion: Fusion
    metric: str
    _chosen_by: dict[Counts, list[float]] = field(default_factory=dict)
    _scored: dict[tuple[Counts, int, bool], Scored] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What several models together are called."""
        return "ensemble"

    @property
    def fuses(self) -> bool:
        """Whether detections are fused, which also changes those of a single model."""
        return True

    def lead(self, counts: Counts) -> int:
        """The model that counts most, the first of equals: an ensemble has its configuration."""
        return counts.index(max(counts))

    def names(self, counts: Counts) -> dict[str, int]:
        """The models of an ensemble, those that count most first."""
        inside = [(one.name, count) for one, count in zip(self.models, counts, strict=True) if count]
        return dict(sorted(inside, key=lambda pair: -pair[1]))

    def choosing_score(self, half: int | None) -> Callable[[Counts], float]:
        """The metric of ensembles on a half (0 or 1) or on all images (None), at the thresholds of the configuration.

        A single model is scored as in the search: its detections are not fused.
        """
        return lambda counts: self._scores(reduced(counts))[2 if half is None else half]

    def _scores(self, counts: Counts) -> list[float]:
        """The metric on the first half, the second half and all images."""
        if counts not in self._chosen_by:
            detect, name = self.configs[self.lead(counts)].detect, self.metric.removeprefix("val_")
            tables = match_tasks(self.found(counts), self.valid, detect)
            weights = np.zeros((3, len(self.valid)), np.int16)  # a half is a resample with each of its images once
            for row, images in enumerate((*self.halves, np.arange(len(self.valid)))):
                weights[row, images] = 1
            truth = Truth.from_table(self.valid.table, detect.reading)
            found = bootstrap_scores(*tables, truth, detect, weights)
            if name not in found:
                raise RunError(f"{self.metric} cannot be measured on the validation images")
            self._chosen_by[counts] = found[name].tolist()
        return self._chosen_by[counts]

    def found(self, counts: Counts, *, fused: bool = False) -> Candidates:
        """The detections of an ensemble before NMS; those of a single model are only fused if `fused` is true."""
        inside = [index for index, count in enumerate(counts) if count]
        raw = self.raw[inside[0]]
        if fused or len(inside) > 1:
            raw = fuse([self.raw[index] for index in inside], [counts[index] for index in inside], self.fusion.iou)
            raw = raw.above(self.fusion.floor)
        return refined(raw, self.configs[self.lead(counts)].detect)

    def score_other(self, counts: Counts, half: int, *, fused: bool = False) -> Scored:
        """The scores on the other half, at the thresholds that are best on the half that chose.

        Args:
            counts: the ensemble.
            half: the half that chose, 0 or 1.
            fused: fuse the boxes of a single model, too.
        """
        key = (reduced(counts), half, fused)
        if key not in self._scored:
            found, table = self.found(key[0], fused=fused), self.valid.table
            mine, other = self.halves[half], self.halves[1 - half]
            config = self.configs[self.lead(counts)].detect
            detect = tuned(found.some(mine), self.valid.some(mine, "half"), config)
            truth = Truth.from_table(table.some(other), detect.reading)
            tables = match_as_predicted(found.some(other), table.some(other), detect)
            points = dataclasses.asdict(score(*tables, truth, detect))
            weights = resample_weights(len(other), RESAMPLES, seed=half)
            resampled = bootstrap_scores(*tables, truth, detect, weights)
            known = {name: points[name] for name in resampled if points[name] is not None}
            self._scored[key] = Scored(counts, known, resampled)
        return dataclasses.replace(self._scored[key], counts=counts)


def tuned(found: Candidates, split: Split, detect: DetectConfig) -> DetectConfig:
    """The thresholds of both tasks that are best on some images."""
    return with_optima(detect, optima(sweep(found, split.table, detect, [detect.task1, detect.task2])))


def reduced(counts: Counts) -> Counts:
    """The smallest counts with the same proportions: copies of all models change nothing."""
    divisor = math.gcd(*counts)
    return tuple(count // divisor for count in counts)


def split_in_halves(valid: Split) -> tuple[Indices, Indices]:
    """Two halves of the validation images, by a hash of their ids.

    Raises:
        RunError: a half would have too few images with digits.
    """
    ids = valid.table.image_ids.tolist()
    chosen = draw_by_hash(ids, 0.5, "ensemble")
    mine = np.array([image_id in chosen for image_id in ids])
    halves = np.flatnonzero(mine), np.flatnonzero(~mine)
    digits = Truth.from_table(valid.table).digits > 0
    if min(int(digits[half].sum()) for half in halves) < FEWEST_IMAGES:
        raise RunError(
            f"the {len(ids)} validation images are too few for an ensemble: each half needs at least {FEWEST_IMAGES} "
            "with annotated boxes"
        )
    return halves


def make_pool(
    models: Sequence[Kept],
    data: DigitData,
    *,
    iou: float | None,
    metric: str,
    device: torch.device,
    average: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Pool:
    """Run each model once on the validation images.

    Args:
        models: the models.
        data: the data of the run.
        iou: of the fusion; None is `detect.box_fusion` of the first model, or DEFAULT_IOU if that is off.
        metric: of the run.
        device: where the models run.
        average: average the weights of the models instead of fusing their detections.
        progress: called with the number of models that have run.

    Raises:
        UserError: a model cannot be loaded or detects other classes, or there are too few images.
    """
    halves = split_in_halves(data.valid)
    configs, raw = [], []
    detectors = [load_detector(one.folder, device) for one in models]
    for one, detector in zip(models, detectors, strict=True):
        if detector.categories != data.categories:
            raise WeightsError(
                f"{one.folder}: detects {printable(detector.categories.words)}, the data of the run has "
                f"{printable(data.categories.words)}; leave it out with --trials"
            )
    tasks = [task for one in detectors for task in (one.config.detect.task1, one.config.detect.task2)]
    if average:
        from search.models.soup import check_alike

        check_alike(models, detectors)
    own = detectors[0].config.detect.box_fusion or DEFAULT_IOU
    fusion = Fusion(iou=own if iou is None else iou, floor=min([SCORE_FLOOR, *(task.score for task in tasks)]))
    for detector in detectors:
        configs.append(detector.config)
        raw.append(detect_single(detector, data.valid, fusion.floor)[0])
        progress(len(raw))
    if average:
        from search.models.soup import Soup

        return Soup(
            list(models), configs, raw, data.valid, halves, fusion, metric, detectors=detectors, train=data.train
        )
    return Pool(list(models), configs, raw, data.valid, halves, fusion, metric)
