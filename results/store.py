"""Run folders: where things lie, atomic writes, and reads that check the version."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from digits_core.config import knob_named
from digits_core.errors import ConfigError, RunError, printable
from results.record import EVENTS_FILE, RunRecord, TrialRecord, read_record
from results.schema import EPOCHS, LEADERBOARD, SCHEMA_VERSION

RUN_FILE = "run.json"
LEADERBOARD_FILE = "leaderboard.parquet"
EPOCHS_FILE = "epochs.parquet"
BEST_FILE = "best.toml"

_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def find_runs(paths: list[Path]) -> list[Path]:
    """The run folders that are named, or that lie directly in a named folder.

    Raises:
        RunError: a path holds no run.
    """
    found = []
    for path in paths:
        if (path / EVENTS_FILE).is_file():
            found.append(path)
            continue
        inside = sorted(child.parent for child in path.glob(f"*/{EVENTS_FILE}")) if path.is_dir() else []
        if not inside:
            what = "holds no run" if path.is_dir() else "no such run folder"
            raise RunError(f"{printable(str(path))}: {what}; a run is a folder with {EVENTS_FILE}, like runs/NAME")
        found += inside
    return found


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when it is whole: readers see the old or the new one."""
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file, on disk before it takes its name."""
    with replacing(path) as half, half.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file that a reader never sees half of."""
    with replacing(path) as half:
        pq.write_table(table, half)


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of ours with Arrow's own types: null stays apart from NaN, integers stay integers.

    Raises:
        RunError: no such file, no Parquet, or another schema version.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is damaged or no Parquet file: {printable(str(error))}") from None
    version = (table.schema.metadata or {}).get(b"schema_version", b"none").decode(errors="replace")
    if version != SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {printable(version)}, this program reads {SCHEMA_VERSION}; rebuild it with "
            "python -m results.leaderboard RUN --rebuild"
        )
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def write_views(folder: Path, record: RunRecord) -> None:
    """Write both Parquet views of a record."""
    write_table(folder / LEADERBOARD_FILE, leaderboard_table(record))
    write_table(folder / EPOCHS_FILE, epochs_table(record))


def rebuild(folder: Path) -> RunRecord:
    """Write the views anew from the events.

    Raises:
        RunError: the folder is no run, or its record is damaged.
    """
    record = read_record_of(folder)
    write_views(folder, record)
    return record


def leaderboard_table(record: RunRecord) -> pa.Table:
    """One row per trial, best first, with a typed column per knob that varies."""
    ranked = record.ranked()
    varying = varying_knobs(ranked)
    schema = LEADERBOARD
    for name in varying:
        schema = schema.append(pa.field(name, _arrow_type(name)))
    rows = [_row(record, trial) | {name: trial.config.get(name) for name in varying} for trial in ranked]
    return pa.Table.from_pylist(rows, schema=schema)


def epochs_table(record: RunRecord) -> pa.Table:
    """One row per trial and epoch, in the order of trials."""
    rows = [
        {"run": record.run, "trial_id": trial.trial_id, **epoch}
        for trial in record.trials.values()
        for _, epoch in sorted(trial.epochs.items())
    ]
    return pa.Table.from_pylist(rows, schema=EPOCHS)


def varying_knobs(trials: list[TrialRecord]) -> list[str]:
    """Knobs that are not the same in all trials; the seed has a column of its own."""
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    return [
        name
        for name in names
        if name != "runtime.seed" and len({json.dumps(trial.config.get(name)) for trial in trials}) > 1
    ]


def read_run_file(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / RUN_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path} is damaged: it must hold one JSON object")
    return tree


def _arrow_type(name: str) -> pa.DataType:
    try:
        return _ARROW_TYPES[knob_named(name).kind]
    except ConfigError:  # a knob of another version
        return pa.string()


def _row(record: RunRecord, trial: TrialRecord) -> dict[str, Any]:
    best = trial.best(record.metric) or {}
    epochs = list(trial.epochs.values())
    return {
        "run": record.run,
        "trial_id": trial.trial_id,
        "space": trial.space,
        "baseline": trial.baseline,
        "status": trial.status,
        "stop_reason": trial.stop_reason,
        "config": json.dumps(trial.config),
        "config_hash": trial.config_hash,
        "seed": trial.seed,
        "epochs": trial.num_epochs,
        "best_epoch": best.get("epoch"),
        **{
            name: best.get(name)
            for name in ("val_map", "val_map_50", "val_map_75", "val_number_accuracy", "train_loss")
        },
        **{
            name: trial.optima.get(name)
            for name in ("task1_map", "task1_nms", "task1_score", "task2_number_accuracy", "task2_nms", "task2_score")
        },
        "train_seconds": sum(float(epoch["train_seconds"] or 0) for epoch in epochs),
        "trial_seconds": trial.slot_seconds,
        "images_per_second": best.get("images_per_second"),
        "peak_memory_bytes": max((epoch["peak_memory_bytes"] or 0 for epoch in epochs), default=None),
        "device": trial.device,
        "num_parameters": (trial.model or {}).get("num_parameters"),
        "model": None if trial.model is None else json.dumps(trial.model),
        "checkpoint": trial.checkpoint,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }


def read_record_of(folder: Path) -> RunRecord:
    """The record of a run folder, named after it."""
    return read_record(folder, folder.resolve().name)
