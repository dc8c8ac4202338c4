"""Writes the model folder of an ensemble, and measures what it costs compared with a single model."""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from digits_core.data.cache import DigitData, Split
from digits_core.evaluation.selection import Counts
from digits_core.files import CLASSES_FILE, CONFIG_FILE, MODEL_FILE
from digits_core.model.checkpoint import save_model
from digits_core.submission.ensemble import EnsembleFile, write_ensemble
from digits_core.submission.inference import Detector, detect_batches, load_detector, prepare, read_tasks
from results.record.folder import MODELS
from search.models.card import average_card, ensemble_card
from search.models.folder import CARD_FILE, METRICS_FILE, measure
from search.models.pool import Pool, reduced
from search.models.soup import Soup
from search.storage.new_folder import new_folder

WARM_UP = 5
"""Images before the time is measured."""

TIMED = 32
"""Images whose time is measured, one at a time."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a detector costs.

    Attributes:
        milliseconds: median time of an image, one at a time, without reading its file.
        megabytes: the size of the weights on disk.
    """

    milliseconds: float
    megabytes: float


def write_folder(
    run: Path, pool: Pool, counts: Counts, alone: Counts, data: DigitData, device: torch.device, known: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Write `models/ensemble-N` with the next free number; returns it and the content of its metrics.json.

    Args:
        run: the run folder.
        pool: the models.
        counts: how often each is in the ensemble.
        alone: the single model whose cost is compared.
        data: the data of the run; the thresholds are chosen on its validation images.
        device: where the models run.
        known: further content of metrics.json.
    """
    counts, target = reduced(counts), next_folder(run)
    inside = pool.names(counts)
    lead = pool.models[pool.lead(counts)].folder
    with new_folder(target) as half:
        for one in pool.models:
            if one.name in inside:
                (half / one.name).mkdir()
                for name in (MODEL_FILE, CONFIG_FILE, CLASSES_FILE):
                    if (one.folder / name).is_file():
                        shutil.copyfile(one.folder / name, half / one.name / name)
        write_ensemble(half, EnsembleFile(inside, pool.fusion))
        for name in (CONFIG_FILE, CLASSES_FILE):
            if (lead / name).is_file():
                shutil.copyfile(lead / name, half / name)
        detector = load_detector(half, device)
        claim = measure(detector, data)
        config = replace(detector.config, detect=claim.detect)
        single = pool.models[pool.lead(alone)]
        costs = compare_costs([detector, load_detector(single.folder, device)], data.valid)
        sizes = [sum((half / name / MODEL_FILE).stat().st_size for name in inside)]
        sizes.append((single.folder / MODEL_FILE).stat().st_size)
        two = [Cost(time_ms, size / 1e6) for time_ms, size in zip(costs, sizes, strict=True)]
        metrics = {
            **known,
            "run": run.name,
            "members": [{"trial": name, "count": count} for name, count in inside.items()],
            "fusion": asdict(pool.fusion),
            "fingerprint": data.fingerprint,
            "categories": data.categories.words,
            "num_valid": len(data.valid),
            "scores": {f"val_{key}": list(value) for key, value in claim.scores.items()},
            "cost": {
                "device": device.type,
                "ensemble": asdict(two[0]),
                "single": {"trial": single.name, **asdict(two[1])},
            },
        }
        (half / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        (half / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (half / CARD_FILE).write_text(ensemble_card(target.name, config, metrics), encoding="utf-8")
    return target, metrics


def write_average(
    run: Path, pool: Soup, counts: Counts, data: DigitData, device: torch.device, known: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Write the averaged model as `models/average-N`; returns it and the content of its metrics.json.

    Args:
        run: the run folder.
        pool: the models.
        counts: how often each counts in the average.
        data: the data of the run; the thresholds are chosen on its validation images.
        device: where the model runs.
        known: further content of metrics.json.
    """
    counts, target = reduced(counts), next_folder(run, "average")
    config = pool.configs[pool.lead(counts)]
    with new_folder(target) as half:
        averaged: Any = pool.averaged(counts).model
        save_model(half, averaged, config, categories=data.categories)
        claim = measure(load_detector(half, device), data)
        config = replace(config, detect=claim.detect)
        metrics = {
            **known,
            "run": run.name,
            "members": [{"trial": name, "count": count} for name, count in pool.names(counts).items()],
            "fingerprint": data.fingerprint,
            "categories": data.categories.words,
            "num_valid": len(data.valid),
            "scores": {f"val_{key}": list(value) for key, value in claim.scores.items()},
        }
        (half / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        (half / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (half / CARD_FILE).write_text(average_card(target.name, config, metrics), encoding="utf-8")
    return target, metrics


def next_folder(run: Path, kind: str = "ensemble") -> Path:
    """The folder `models/KIND-N` with the first free number."""
    number = 1
    while (run / MODELS / f"{kind}-{number}").exists():
        number += 1
    return run / MODELS / f"{kind}-{number}"


def compare_costs(detectors: list[Detector], images: Split) -> list[float]:
    """Milliseconds an image of each detector, one image at a time, after a warm-up; median over the images.

    For each image the detectors take turns, so that other work on the machine slows down all of them.
    """
    times: list[list[float]] = [[] for _ in detectors]
    for index in range(min(WARM_UP + TIMED, len(images))):
        for one, spent in zip(detectors, times, strict=True):
            spent.append(_seconds(lambda one=one, index=index: _read(one, images, index)))  # type: ignore[misc]
    return [1000 * statistics.median(spent[WARM_UP:] or spent) for spent in times]


def _read(detector: Detector, images: Split, index: int) -> None:
    batches = prepare(detector, {int(images.table.image_ids[index]): images.image(index)})
    read_tasks(detect_batches(detector, batches), detector.config.detect)


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
