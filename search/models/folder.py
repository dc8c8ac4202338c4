"""The model folder that a retraining leaves: weights, config with thresholds, scores with intervals, a card."""

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

if TYPE_CHECKING:
    from digits_core.submission.inference import Detector

METRICS_FILE, CARD_FILE = "metrics.json", "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a model is said to reach, at the thresholds in its config.

    Attributes:
        detect: both tasks' thresholds.
        scores: score to (value, low, high) on valid; empty where it trained on valid.
        matches: the match tables behind them; None likewise.
        optima: the threshold sweep's best, as a trial's row holds them.
        loss: on valid.
    """

    detect: DetectConfig
    scores: dict[str, tuple[float, float, float]]
    matches: StoredMatches | None
    optima: dict[str, Any]
    loss: float | None


def measure(detector: "Detector", data: DigitData) -> Claim:
    """Choose both tasks' thresholds on valid and score the model at them, exactly as a prediction reads it.

    Task 2 is read from the detections of Task 1 alone, as `digits_core.predict` writes it. The thresholds are chosen
    on the very images that they are scored on.
    """
    from digits_core.data.augment import Processing
    from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.evaluation.matching import NmsSetting, match
    from digits_core.evaluation.metrics import MatchTable, Truth, score
    from digits_core.evaluation.sweep import sweep
    from digits_core.submission.inference import kept_at
    from search.tune.trainable import optima

    config, valid = detector.config, data.valid
    found = evaluate(
        detector.model,
        valid,
        config.detect,
        SCORE_FLOOR,
        batch_size=config.runtime.eval_batch_size,
        dtype=detector.dtype,
        change=Processing(config.augment),
    )
    best = optima(sweep(found.found, valid.table, config.detect, [config.detect.task1, config.detect.task2]))
    detect = with_optima(config.detect, best)
    task1 = kept_at(found.found, detect.task1)
    tables = []
    for candidates, task in ((found.found, detect.task1), (task1, detect.task2)):
        matches = match(candidates, valid.table, [NmsSetting(task.nms, task.class_agnostic)])
        tables.append(MatchTable.of(candidates, matches, 0))
    truth = Truth.from_table(valid.table, detect.reading)
    points = dataclasses.asdict(score(tables[0], tables[1], truth, detect))
    resampled = bootstrap_scores(
        tables[0], tables[1], truth, detect, resample_weights(len(valid.table.image_ids), RESAMPLES)
    )
    ends = intervals_of(points, resampled, truth.num_images, int((truth.digits > 0).sum()))
    scores = {name: (points[name], *found) for name, found in ends.items()}
    return Claim(detect, scores, StoredMatches(valid.table.image_ids, truth, tables[0], tables[1]), best, found.loss)


def with_optima(detect: DetectConfig, best: dict[str, Any]) -> DetectConfig:
    """Both tasks at the best thresholds of a sweep; Task 2's never under Task 1's, whose detections it reads."""
    tasks = {}
    for name in ("task1", "task2"):
        task: TaskConfig = getattr(detect, name)
        if f"{name}_nms" in best:
            values = {key: best[f"{name}_{key}"] for key in ("nms", "score", "class_agnostic", "max_detections")}
            task = replace(task, **values)
        tasks[name] = task
    return in_order(replace(detect, task1=tasks["task1"], task2=tasks["task2"]))


def in_order(detect: DetectConfig) -> DetectConfig:
    """Task 1's score threshold at most Task 2's, which reads its detections."""
    if detect.task2.score >= detect.task1.score:
        return detect
    return replace(detect, task1=replace(detect.task1, score=detect.task2.score))


def write_model(target: Path, weights: Path, config: TrainConfig, metrics: dict[str, Any]) -> None:
    """Write a model folder in one move.

    Args:
        target: the folder, new or replaced.
        weights: a checkpoint of the model.
        config: with both tasks' thresholds.
        metrics: what metrics.json holds.
    """
    half = target.with_name(f".{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for name in (MODEL_FILE, CLASSES_FILE):
        if (weights / name).is_file():
            shutil.copyfile(weights / name, half / name)
    (half / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
    (half / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (half / CARD_FILE).write_text(card(target.name, config, metrics), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    half.rename(target)


def card(name: str, config: TrainConfig, metrics: dict[str, Any]) -> str:
    """The model card, in Markdown."""
    tasks = []
    for number, task in ((1, config.detect.task1), (2, config.detect.task2)):
        kind = "across classes" if task.class_agnostic else "within classes"
        tasks.append(f"| Task {number} | {task.nms:g} {kind} | {task.score:g} | {task.max_detections} |")
    scores = [
        f"| {key.removeprefix('val_')} | {value:.3f} | [{low:.3f}, {high:.3f}] |"
        for key, (value, low, high) in metrics["scores"].items()
    ]
    default = TrainConfig().to_flat()
    changed = [
        f"| `{parameter}` | {value} |"
        for parameter, value in config.to_flat().items()
        if value != default[parameter] and not parameter.startswith("detect.task")
    ]
    measured = (
        [
            f"On {metrics['num_valid']} validation images, which also chose epoch and thresholds (a little flattered):",
            "",
            "| score | value | 95 % over images |",
            "| --- | --- | --- |",
            *scores,
        ]
        if scores
        else [
            f"None: it trained on the validation images too. {metrics['ends_after']} Thresholds come from the search."
        ]
    )
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A Faster R-CNN ({config.model.backbone}), retrained from trial {metrics['parent']} of {metrics['run']}.",
            "",
            f"- trained on: {metrics['trained_on']}, {metrics['num_train']} images, {metrics['epochs']} epochs of "
            f"{metrics['images_per_epoch']} images each, "
            f"seed {metrics['seed']}, {metrics['workers']} process(es) on {metrics['device']}",
            f"- data: {metrics['data']}, fingerprint {metrics['fingerprint']}",
            f"- categories: {metrics['categories']}",
            "",
            "## Scores",
            "",
            *measured,
            "",
            "## Thresholds",
            "",
            "| | NMS | score above | most |",
            "| --- | --- | --- | --- |",
            *tasks,
            "",
            "Task 2 is read from Task 1's detections.",
            "",
            "## Settings that differ from the default",
            "",
            "| parameter | value |",
            "| --- | --- |",
            *changed,
            "",
            "## Use",
            "",
            "```sh",
            f"python -m digits_core.predict {name} IMAGES -o OUT",
            "```",
            "",
            "```python",
            "from pathlib import Path",
            "import torch",
            "from digits_core.submission.inference import load_detector",
            f'detector = load_detector(Path("{name}"), torch.device("cpu"))',
            "```",
            "",
        ]
    )
