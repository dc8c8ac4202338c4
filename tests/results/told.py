"""Run folders as a search leaves them, with all that a report page shows, made without any training."""

import json

import numpy as np
import pyarrow as pa

from digits_core.config.train_config import TrainConfig
from results.record.log import read_record
from results.record.schema import THRESHOLDS
from results.tables.matches import matches_path, read_matches
from results.tables.parquet import write_table
from results.tables.samples import MissesKeeper, write_boxes, write_samples
from searched import Searched, annotations

HOSTILE = '<img src=x onerror="document.title=\'owned\'">&amp;"\'`</script><script>document.title="owned"</script>'
"""A name that a page must show as text."""


def pixels(index):
    """An image of 64 x 64 px whose colour tells its number."""
    return np.full((64, 64, 3), (index * 37) % 255, np.uint8)


def told_run(folder, *, trials=14, baseline="default"):
    """A search over anchors and learning rates with a winner, ties, stopped and failed trials."""
    made = Searched(folder, table=annotations(40))
    generator = np.random.default_rng(5)
    for number in range(trials):
        size = 10 + number
        made.trial(
            f"t{number:04d}",
            0.95 - 0.04 * number,
            epochs=3 if number % 3 < 2 else 1,
            status="finished" if number % 3 < 2 else "stopped",
            baseline=baseline if number == 0 else None,
            **{
                "optim.lr": float(10 ** generator.uniform(-4, -2)),
                "model.anchor_sizes": f"{size},{size + 8},{size + 20},{size + 40},{size + 70}",
            },
        )
    made.trial("t0900", 0.2, status="diverged", **{"optim.lr": 0.02})
    made.trial("t0901", 0.94, seed=7, role="replicate", **made_parameters(made, "t0000"))
    made.done()
    about = {
        "name": folder.name,
        "settings": {"space": "anchors,lr_schedules"},
        "data": {"folder": "drawn", "num_train": 80, "num_valid": 40, "fingerprint": "f" * 32},
        "rungs": [1],
        "started_at": "2026-01-31T12:00:00Z",
    }
    (folder / "run.json").write_text(json.dumps(about))
    write_samples(folder, made.table, pixels)
    write_boxes(folder, made.table)
    record = read_record(folder, folder.name)
    winner = record.winner().trial_id
    write_thresholds(folder, winner)
    MissesKeeper(folder, made.table, pixels).follow(record)
    assert read_matches(matches_path(folder, winner, "val")).truth.num_images == 40
    return folder


def made_parameters(made, trial_id):
    """The parameters by which a trial differs from the default."""
    default = TrainConfig().to_flat()
    config = made.events.record.trials[trial_id].config
    return {name: value for name, value in config.items() if value != default[name] and name != "runtime.seed"}


def write_thresholds(folder, trial_id):
    """A small sweep whose best settings are known: NMS .5 and score .1 for boxes, across classes and .6 for numbers."""
    rows = [
        {
            "class_agnostic": agnostic, "nms": nms, "score": score, "max_detections": 100,
            "val_map": 0.8 - abs(nms - 0.5) - abs(score - 0.1) - 0.1 * agnostic, "val_map_50": 0.9,
            "val_digit_accuracy": 0.5, "val_number_accuracy": 0.7 - abs(nms - 0.3) - abs(score - 0.6) + 0.1 * agnostic,
        }
        for agnostic in (False, True)
        for nms in (0.1, 0.3, 0.5, 0.7)
        for score in (0.1, 0.3, 0.6, 0.9)
    ]  # fmt: skip
    (folder / "thresholds").mkdir(exist_ok=True)
    rows = [{**row, "trial_id": trial_id} for row in rows]
    names = set(THRESHOLDS.names)
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k in names} for row in rows], schema=THRESHOLDS)
    write_table(folder / "thresholds" / f"{trial_id}.parquet", table)
