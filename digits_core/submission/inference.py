"""Runs a trained model on image files: threads decode the images in advance, and one pass serves both tasks."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from digits_core.config.train_config import AugmentConfig, DetectConfig, TaskConfig, TrainConfig
from digits_core.data.augment import Processing, Sample
from digits_core.data.batches import Batch, pack
from digits_core.data.cache import Split
from digits_core.data.coco import Table, starts_of
from digits_core.data.source import Pixels, decode_image
from digits_core.errors import WeightsError, printable
from digits_core.evaluation.detect import SCORE_FLOOR, batches_by_shape, detect_raw
from digits_core.evaluation.evaluate import detect_split, refined
from digits_core.evaluation.fusion import Fusion, fuse
from digits_core.evaluation.matching import Candidates, NmsSetting, keep, match
from digits_core.evaluation.metrics import MatchTable, rank_within
from digits_core.evaluation.transcribe import numbers_of, reading_order
from digits_core.files import ENSEMBLE_FILE
from digits_core.labels import Categories
from digits_core.model.build import build_model
from digits_core.model.checkpoint import load_categories, load_config, load_model
from digits_core.model.detector import BatchDetector
from digits_core.submission.ensemble import read_ensemble

AHEAD = 3
"""Batches that are decoded in advance."""


@dataclass(frozen=True, slots=True)
class Detector:
    """A trained model, ready to detect.

    Attributes:
        model: in evaluation mode, on `device`; None for an ensemble.
        config: includes the thresholds of both tasks.
        categories: the classes of the model's labels.
        device: of the model.
        dtype: of the forward pass.
        ensemble: the models of an ensemble, and how their raw detections are fused.
    """

    model: BatchDetector | None
    config: TrainConfig
    categories: Categories
    device: torch.device
    dtype: torch.dtype
    ensemble: "Ensemble | None" = None

    @property
    def singles(self) -> "tuple[Detector, ...]":
        """The models of an ensemble, or the one model."""
        return (self,) if self.ensemble is None else self.ensemble.detectors


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The models of an ensemble.

    Attributes:
        detectors: each with one model.
        weights: how often each of them is in the ensemble.
        fusion: how their raw detections are fused.
    """

    detectors: tuple[Detector, ...]
    weights: tuple[int, ...]
    fusion: Fusion


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of a model for some images.

    Attributes:
        image_ids: the numbers of the images, ascending.
        found: the detections of Task 1, in the order of `image_ids`.
        numbers: the number in each image, `-1` if it has no digits. None if the classes are not digits.
        sizes: width and height of each image in pixels; None if it could not be read.
        damaged: images that could not be read, and the reason.
        seconds: the whole time.
        model_seconds: the time of the model only.
        raw: all detections above the floor, before NMS.
    """

    image_ids: list[int]
    found: Candidates
    numbers: dict[int, str] | None
    sizes: dict[int, tuple[int, int] | None]
    damaged: dict[int, str]
    seconds: float
    model_seconds: float
    raw: Candidates


def load_detector(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> Detector:
    """Load a model folder or checkpoint, also that of an ensemble; this runs no code from it.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its configuration.
        ConfigError: its configuration is not valid.
    """
    from digits_core.training.device import choose_dtype

    if (folder / ENSEMBLE_FILE).is_file():
        return _load_ensemble(folder, device, dtype)
    config, categories = load_config(folder), load_categories(folder)
    bare = replace(config, model=replace(config.model, weights="none"))
    model, _ = build_model(bare, num_classes=categories.num_classes)
    load_model(folder, model)
    chosen = choose_dtype(config.runtime.precision, device) if dtype is None else dtype
    return Detector(model.to(device).eval(), config, categories, device, chosen)


def _load_ensemble(folder: Path, device: torch.device, dtype: torch.dtype | None) -> Detector:
    """Load the folder of an ensemble; errors as of `load_detector`."""
    known = read_ensemble(folder)
    for name in known.counts:
        if (folder / name / ENSEMBLE_FILE).is_file():
            raise WeightsError(
                f"{printable(str(folder / name))}: is an ensemble; an ensemble consists of single models"
            )
    config, categories = load_config(folder), load_categories(folder)
    detectors = tuple(load_detector(folder / name, device, dtype) for name in known.counts)
    for name, one in zip(known.counts, detectors, strict=True):
        if one.categories != categories:
            raise WeightsError(
                f"{printable(str(folder / name))} detects {printable(one.categories.words)}, the ensemble "
                f"{printable(categories.words)}; all models of an ensemble must have the same categories"
            )
    ensemble = Ensemble(detectors, tuple(known.counts.values()), known.fusion)
    return Detector(None, config, categories, device, detectors[0].dtype, ensemble)


def predict_images(
    detector: Detector,
    images: dict[int, Path],
    *,
    batch_size: int,
    floor: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Predict both tasks for image files.

    A damaged image does not affect the others.

    Args:
        detector: from `load_detector`; its configuration contains the thresholds.
        images: files by number, ascending.
        batch_size: images per forward pass.
        floor: score above which raw detections are returned, at most the threshold of Task 1; None is that threshold,
            or less if the configuration merges boxes before NMS.
        progress: called with the number of finished images.
    """
    started = time.perf_counter()
    ids = list(images)
    sizes = image_sizes(images)
    damaged = {image_id: decode_image(images[image_id])[1] for image_id, size in sizes.items() if size is None}
    found: dict[int, Candidates] = {}
    model_seconds = 0.0
    usable = [image_id for image_id in ids if image_id not in damaged]
    shapes = np.array([sizes[image_id] for image_id in usable], dtype=np.int32).reshape(-1, 2)
    batches = [[usable[index] for index in some] for some in batches_by_shape(shapes, batch_size)]
    done = len(damaged)
    with decoded_ahead(batches, images) as stream:
        for batch, results in stream:
            pixels = {image_id: one for image_id, (one, _) in zip(batch, results, strict=True) if one is not None}
            damaged |= {image_id: fault for image_id, (one, fault) in zip(batch, results, strict=True) if one is None}
            if pixels:
                ready = prepare(detector, pixels)
                begun = time.perf_counter()
                raw = detect_batches(detector, ready, floor)
                model_seconds += time.perf_counter() - begun
                found |= dict(zip(pixels, raw.split(), strict=True))
            done += len(batch)
            progress(done)
    nothing = Candidates.of_images(
        [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.ones(4, np.float32))]
    )
    raw = Candidates.join([found.get(image_id, nothing) for image_id in ids])
    task1, numbers = read_tasks(raw, detector.config.detect)
    return Predictions(
        ids,
        task1,
        dict(zip(ids, numbers, strict=True)) if detector.categories.are_digits else None,
        sizes | dict.fromkeys(damaged),
        dict(sorted(damaged.items())),
        time.perf_counter() - started,
        model_seconds,
        raw,
    )


def prepare(detector: Detector, images: Mapping[int, Pixels]) -> list[Batch]:
    """The batch of each model of a detector: the images, processed as in its training.

    Args:
        detector: a model or an ensemble.
        images: uint8 [height, width, 3], RGB, by image id.
    """
    batches: dict[AugmentConfig, Batch] = {}
    for one in detector.singles:
        augment = one.config.augment
        if augment not in batches:
            change = Processing(augment)
            batches[augment] = pack([change(_without_boxes(pixels), key) for key, pixels in images.items()], one.device)
    return [batches[one.config.augment] for one in detector.singles]


def _without_boxes(pixels: Pixels) -> Sample:
    return Sample(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def detect_with(detector: Detector, batch: Batch, floor: float | None = None) -> Candidates:
    """Raw detections of one batch above a score; None is the threshold of Task 1. For a detector of one model."""
    return detect_batches(detector, [batch], floor)


def detect_batches(detector: Detector, batches: list[Batch], floor: float | None = None) -> Candidates:
    """Raw detections above a score; None is the threshold of Task 1, or less if boxes are merged before NMS.

    Args:
        detector: a model or an ensemble.
        batches: the same images for each of its models, from `prepare`.
        floor: the score.
    """
    if floor is None:
        detect = detector.config.detect
        # What merges boxes before NMS needs all that it had when the model was scored.
        floor = scoring_floor(detect) if detect.before_nms else detect.task1.score
    lowest = floor if detector.ensemble is None else detector.ensemble.fusion.floor
    found = [_detect(one, batch, lowest) for one, batch in zip(detector.singles, batches, strict=True)]
    return merged(detector, found, floor)


def _detect(single: Detector, batch: Batch, floor: float) -> Candidates:
    assert single.model is not None  # the models of an ensemble are no ensembles
    with torch.autocast(single.device.type, single.dtype, enabled=single.dtype != torch.float32):
        raw, _ = detect_raw(single.model, batch, floor=floor)
    return raw


def merged(detector: Detector, found: Sequence[Candidates], floor: float) -> Candidates:
    """The raw detections of a detector above a score, from those of each of its models."""
    if detector.ensemble is None:
        [raw] = found
    else:
        raw = fuse(found, detector.ensemble.weights, detector.ensemble.fusion.iou).above(floor)
    return refined(raw, detector.config.detect)


def detect_single(single: Detector, split: Split, floor: float) -> tuple[Candidates, float]:
    """Raw detections of a split above a score, and the mean loss, of a detector that is no ensemble."""
    assert single.model is not None
    size, change = single.config.runtime.eval_batch_size, Processing(single.config.augment)
    return detect_split(single.model, split, floor, batch_size=size, dtype=single.dtype, change=change)


def detect_annotated(detector: Detector, split: Split, floor: float) -> tuple[Candidates, float | None]:
    """Raw detections of a split above a score, and the mean loss, which an ensemble does not have."""
    lowest = floor if detector.ensemble is None else detector.ensemble.fusion.floor
    found, losses = zip(*(detect_single(one, split, lowest) for one in detector.singles), strict=True)
    return merged(detector, found, floor), losses[0] if detector.ensemble is None else None


def read_tasks(raw: Candidates, detect: DetectConfig) -> tuple[Candidates, list[str]]:
    """The detections of Task 1, and the number of each image, which is read from these detections."""
    task1 = kept_at(raw, detect.task1)
    task2 = kept_at(task1, detect.task2)
    image = task2.image
    order = reading_order(image, task2.original_boxes, detect.reading)
    return task1, numbers_of(len(task2.start) - 1, image, task2.labels[order])


def kept_at(found: Candidates, task: TaskConfig) -> Candidates:
    """The detections that remain after NMS, score threshold and limit per image of a task, in torchvision's order."""
    image = found.image
    above = found.scores > np.float32(task.score)
    bits = keep(found, [NmsSetting(task.nms, task.class_agnostic)])
    rows = np.flatnonzero(((bits & np.uint64(1)) != 0) & above)
    rows = rows[rank_within(image[rows]) < task.max_detections]
    counts = np.bincount(image[rows], minlength=len(found.start) - 1)
    return Candidates(
        starts_of(counts),
        found.boxes[rows],
        found.scores[rows],
        found.labels[rows],
        found.scale,
    )


def image_sizes(images: dict[int, Path]) -> dict[int, tuple[int, int] | None]:
    """Width and height of each image from its header; None if the header cannot be read."""
    from PIL import Image

    def size(path: Path) -> tuple[int, int] | None:
        try:
            with Image.open(path) as image:
                return image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None

    with ThreadPoolExecutor() as pool:
        return dict(zip(images, pool.map(size, images.values()), strict=True))


Decoded = tuple[Pixels | None, str]


@contextmanager
def decoded_ahead(
    batches: list[list[int]], images: dict[int, Path]
) -> Iterator[Iterator[tuple[list[int], list[Decoded]]]]:
    """Batches with their decoded images; threads decode the next batches while the model works."""
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        waiting: list[tuple[list[int], list[Future[Decoded]]]] = []

        def stream() -> Iterator[tuple[list[int], list[Decoded]]]:
            for batch in batches:
                waiting.append((batch, [pool.submit(decode_image, images[image_id]) for image_id in batch]))
                if len(waiting) > AHEAD:
                    first, futures = waiting.pop(0)
                    yield first, [future.result() for future in futures]
            while waiting:
                first, futures = waiting.pop(0)
                yield first, [future.result() for future in futures]

        try:
            yield stream()
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def scoring_floor(detect: DetectConfig) -> float:
    """The floor of raw detections from which a prediction is scored: that of a search, or Task 1's threshold."""
    return min(SCORE_FLOOR, detect.task1.score)


def match_as_predicted(found: Candidates, table: Table, detect: DetectConfig) -> tuple[MatchTable, MatchTable]:
    """The match tables of both tasks as a prediction reads them: Task 2 keeps some of Task 1's detections.

    Args:
        found: raw detections.
        table: the annotations of the same images.
        detect: the thresholds.
    """
    tables = []
    for candidates, task in ((found, detect.task1), (kept_at(found, detect.task1), detect.task2)):
        matches = match(candidates, table, [NmsSetting(task.nms, task.class_agnostic)])
        tables.append(MatchTable.of(candidates, matches, 0))
    return tables[0], tables[1]
