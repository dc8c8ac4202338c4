"""The time of a sweep over 3,400 threshold combinations, compared with torchmetrics.

    python benchmarks/thresholds.py --checkpoint FOLDER [--data FOLDER] [--drawn 3340] [--repeats 3]

One trained model, one process, one core, the same raw detections: the plain evaluation, our sweep of all combinations,
and some combinations with torchmetrics (both backends), from which the time of all is extrapolated. Our bootstrap is
also measured.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import batched_nms, nms

from digits_core.data.cache import Split, open_data
from digits_core.data.source import DataSource
from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
from digits_core.evaluation.evaluate import detect_split, evaluate
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import Truth
from digits_core.evaluation.sweep import NUM_SWEPT, sweep
from digits_core.model.build import build_model
from digits_core.model.checkpoint import load_config, load_model

SAMPLED = ((0.5, False, 0.01), (0.5, False, 0.5), (0.9, False, 0.01), (0.3, True, 0.05), (0.7, True, 0.3))
"""NMS, its kind and score threshold of the settings that torchmetrics evaluates: easy and hard ones."""


def one_by_one(found: Candidates, split: Split, setting: tuple[float, bool, float], backend: str) -> float:
    """COCO AP at one setting as a user would write it: torchvision's NMS per image, torchmetrics for the score."""
    iou, class_agnostic, score = setting
    # Its default thresholds are float32, which moves mAP in the third decimal where there are few boxes.
    thresholds = {
        "iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(),
        "rec_thresholds": np.linspace(0, 1, 101).tolist(),
    }
    metric = MeanAveragePrecision(backend=backend, **thresholds)
    metric.warn_on_many_detections = False
    boxes, table = found.original_boxes, split.table
    predictions, targets = [], []
    for image, (begin, end) in enumerate(zip(found.start[:-1], found.start[1:], strict=True)):
        above = found.scores[begin:end] > score
        raw = torch.from_numpy(found.boxes[begin:end][above])
        scores, labels = (
            torch.from_numpy(found.scores[begin:end][above]),
            torch.from_numpy(found.labels[begin:end][above]),
        )
        kept = (nms(raw, scores, iou) if class_agnostic else batched_nms(raw, scores, labels, iou))[:100]
        mine = slice(table.box_start[image], table.box_start[image + 1])
        original = torch.from_numpy(boxes[begin:end][above])
        predictions.append({"boxes": original[kept], "scores": scores[kept], "labels": labels[kept]})
        targets.append({"boxes": torch.from_numpy(table.boxes[mine]), "labels": torch.from_numpy(table.labels[mine])})
    metric.update(predictions, targets)
    return float(metric.compute()["map"])


def median(repeats: int, call: Callable[[], Any]) -> tuple[float, Any]:
    """Median seconds of a few calls, and what the last one gave."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def measure(name: str, model: Any, config: Any, split: Split, repeats: int) -> None:
    named = {"batch_size": 32, "dtype": torch.float32}
    plain, whole = median(repeats, lambda: evaluate(model, split, config.detect, 0.01, **named))
    detecting, _ = median(1, lambda: detect_split(model, split, 0.01, **named))
    sweeping, swept = median(repeats, lambda: sweep(whole.found, split.table, config.detect))
    print(f"\n{name}: {len(split)} images, {len(whole.found.scores)} raw detections above .01")
    print(f"  plain evaluation (model and losses {detecting:.2f} s)        {plain:9.2f} s")
    print(
        f"  our sweep of {NUM_SWEPT} settings                  {sweeping:9.2f} s   {sweeping / plain:.2f} evaluations"
    )
    for backend in ("faster_coco_eval", "pycocotools"):
        each, worst = [], 0.0
        for setting in SAMPLED:
            took, value = median(1, lambda at=setting, by=backend: one_by_one(whole.found, split, at, by))
            mine = (swept.nms == setting[0]) & (swept.class_agnostic == setting[1]) & (swept.score == setting[2])
            worst = max(worst, abs(float(swept.map[mine][0]) - value))
            each.append(took)
        total = statistics.mean(each) * NUM_SWEPT
        print(
            f"  torchmetrics ({backend}): {statistics.mean(each):.2f} s a setting ({len(each)} measured), all of them "
            f"one by one {total:,.0f} s (extrapolated): {total / sweeping:,.0f} times ours; mAP differs by {worst:.0e}"
        )
    weights = resample_weights(len(split), 1000)
    truth = Truth.from_table(split.table)
    took, resampled = median(repeats, lambda: bootstrap_scores(whole.task1, whole.task2, truth, config.detect, weights))
    low, high = np.quantile(resampled["map"], [0.025, 0.975])
    print(f"  bootstrap of every score, 1000 resamples            {took:9.2f} s   mAP {low:.3f} to {high:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="trained model (default: the shipped weights)")
    parser.add_argument("--data", metavar="FOLDER", help="COCO folder with the validation images")
    parser.add_argument("--drawn", type=int, default=3340, help="size of an additional drawn set; 0 for none")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    from digits_core.model.build import DRAWN_WEIGHTS

    folder = args.checkpoint or DRAWN_WEIGHTS
    config = load_config(folder)
    model, _ = build_model(config)
    load_model(folder, model)
    if args.data:
        measure(args.data, model, config, open_data(DataSource(folder=args.data)).valid, args.repeats)
    if args.drawn:
        data = open_data(DataSource(drawn_train=1, drawn_valid=args.drawn))
        measure("drawn house numbers", model, config, data.valid, args.repeats)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
