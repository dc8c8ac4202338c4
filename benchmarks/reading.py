"""Compares two reading orders: digits from left to right, or along the main axis of their boxes.

    python benchmarks/reading.py --data FOLDER [--checkpoint FOLDER]

First on the annotated boxes, compared with the annotated order; then, with a checkpoint, on its detections at the
best thresholds for each rule.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from digits_core.config.train_config import READINGS
from digits_core.data.cache import Split, open_data
from digits_core.data.source import DataSource
from digits_core.evaluation.evaluate import evaluate
from digits_core.evaluation.sweep import sweep
from digits_core.evaluation.transcribe import reading_order
from digits_core.model.build import build_model
from digits_core.model.checkpoint import load_config, load_model


def annotated(split: Split, reading: str) -> tuple[int, int]:
    """Images of two digits or more whose annotated order a rule gives back, and how many there are."""
    table = split.table
    image = np.repeat(np.arange(len(split)), np.diff(table.box_start))
    order = reading_order(image, table.boxes, reading)
    wrong = np.unique(image[table.labels[order] != table.labels])
    several = np.flatnonzero(np.diff(table.box_start) > 1)
    return int((~np.isin(several, wrong)).sum()), len(several)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FOLDER")
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    data = open_data(DataSource(folder=args.data))
    for split in (data.train, data.valid):
        for reading in READINGS:
            right, of = annotated(split, reading)
            print(f"{split.name}: {reading:14} gives the annotated order in {right} of {of} images with several digits")
    if args.checkpoint:
        config = load_config(args.checkpoint)
        model, _ = build_model(config)
        load_model(args.checkpoint, model)
        one = evaluate(model, data.valid, config.detect, 0.01, batch_size=32, dtype=torch.float32)
        for reading in READINGS:
            swept = sweep(one.found, data.valid.table, dataclasses.replace(config.detect, reading=reading))
            row = swept.best("number_accuracy")
            print(
                f"detections: {reading:14} reads {swept.number_accuracy[row]:.4f} of the numbers at {swept.task(row)}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
