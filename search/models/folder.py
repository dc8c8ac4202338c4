"""The model folder that a retraining writes: weights, config with thresholds, scores with intervals, a model card."""

import dataclasses
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.config.train_config import DetectConfig, TaskConfig, TrainConfig
from digits_core.data.cache import DigitData
from digits_core.files import CLASSES_FILE, CONFIG_FILE, MODEL_FILE
from results.tables.matches import RESAMPLES, StoredMatches, intervals_of
from search.models.card import card
from search.storage.new_folder import new_folder

if TYPE_CHECKING:
    from digits_core.submission.inference import Detector

METRICS_FILE, CARD_FILE = "metrics.json", "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class Claim:
    """The measured scores of a model at its best thresholds.

    Attributes:
        detect: thresholds of both tasks.
        scores: name to (value, low, high) on the validation images; empty if the model trained on them.
        matches: the match tables of the scores; None if the model trained on the validation images.
        optima: the best thresholds of the sweep, as in a trial's row.
        loss: loss on the validation images; None for an ensemble.
    """

    detect: DetectConfig
    scores: dict[str, tuple[float, float, float]]
    matches: StoredMatches | None
    optima: dict[str, Any]
    loss: float | None


def measure(detector: "Detector", data: DigitData) -> Claim:
    """Choose the thresholds of both tasks on the validation images and score the model with them, as in a prediction.

    Task 2 is read only from the detections of Task 1, as in a prediction. The thresholds are chosen and scored
    on the same images.
    """
    from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.evaluation.metrics import Truth, score
    from digits_core.evaluation.sweep import sweep
    from digits_core.submission.inference import detect_annotated, match_as_predicted
    from search.tune.trainable import optima

    config, valid = detector.config, data.valid
    tasks = [config.detect.task1, config.detect.task2]
    found, loss = detect_annotated(detector, valid, min([SCORE_FLOOR, *(task.score for task in tasks)]))
    best = optima(sweep(found, valid.table, config.detect, tasks))
    detect = with_optima(config.detect, best)
    tables = match_as_predicted(found, valid.table, detect)
    truth = Truth.from_table(valid.table, detect.reading)
    points = dataclasses.asdict(score(tables[0], tables[1], truth, detect))
    resampled = bootstrap_scores(
        tables[0], tables[1], truth, detect, resample_weights(len(valid.table.image_ids), RESAMPLES)
    )
    ends = intervals_of(points, resampled, truth.num_images, int((truth.digits > 0).sum()))
    scores = {name: (points[name], *two) for name, two in ends.items()}
    return Claim(detect, scores, StoredMatches(valid.table.image_ids, truth, tables[0], tables[1]), best, loss)


def with_optima(detect: DetectConfig, best: dict[str, Any]) -> DetectConfig:
    """Both tasks at the best thresholds of a sweep, in order as by `in_order`."""
    tasks = {}
    for name in ("task1", "task2"):
        task: TaskConfig = getattr(detect, name)
        if f"{name}_nms" in best:
            values = {key: best[f"{name}_{key}"] for key in ("nms", "score", "class_agnostic", "max_detections")}
            task = replace(task, **values)
        tasks[name] = task
    return in_order(replace(detect, task1=tasks["task1"], task2=tasks["task2"]))


def in_order(detect: DetectConfig) -> DetectConfig:
    """Lower Task 1's score threshold to Task 2's if it is higher: Task 2 is read from Task 1's detections."""
    if detect.task2.score >= detect.task1.score:
        return detect
    return replace(detect, task1=replace(detect.task1, score=detect.task2.score))


def write_model(target: Path, weights: Path, config: TrainConfig, metrics: dict[str, Any]) -> None:
    """Write a model folder; an existing one is replaced.

    Args:
        target: the model folder.
        weights: a checkpoint of the model.
        config: the config with the thresholds of both tasks.
        metrics: the content of metrics.json.
    """
    with new_folder(target, replace=True) as half:
        for name in (MODEL_FILE, CLASSES_FILE):
            if (weights / name).is_file():
                shutil.copyfile(weights / name, half / name)
        (half / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        (half / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        (half / CARD_FILE).write_text(card(target.name, config, metrics), encoding="utf-8")
