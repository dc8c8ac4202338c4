"""The leaderboard and the epochs of a run as tables: built from the record, written and read."""

import json
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from digits_core.config.train_config import parameter_named
from digits_core.errors import ConfigError, RunError
from digits_core.evaluation.metrics import SCORE_NAMES
from results.record.folder import EPOCHS_FILE, LEADERBOARD_FILE, find_run, find_runs, read_record_of
from results.record.run import RunRecord
from results.record.schema import EPOCHS, LEADERBOARD
from results.record.trial import TrialRecord
from results.tables.matches import score_intervals
from results.tables.parquet import read_table, rebuild_words, write_table
from results.verdicts.comparison import ties_with_best
from results.verdicts.equal_models import find_twins

SHOWN = {"val_map": "mAP", "val_map_50": "mAP@.5", "val_digit_accuracy": "digits", "val_number_accuracy": "numbers"}
"""Scores on the printed leaderboard with their short names."""

_ARROW_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_views(folder: Path, record: RunRecord, *, make: bool = True) -> None:
    """Write both Parquet views of a record; `make` as in `leaderboard_table`."""
    write_table(folder / LEADERBOARD_FILE, leaderboard_table(record, folder, make=make))
    write_table(folder / EPOCHS_FILE, epochs_table(record))


def rebuild(folder: Path) -> RunRecord:
    """Rebuild both Parquet views from the events.

    Raises:
        RunError: the folder is not a run, or its record is damaged.
    """
    record = read_record_of(folder)
    write_views(folder, record)
    return record


def leaderboard_table(record: RunRecord, folder: Path, *, make: bool = True) -> pa.Table:
    """One row per trial, best configuration first, with a typed column per parameter that varies.

    Args:
        record: the run's.
        folder: the run folder; intervals are computed from its match tables and are null if those are damaged.
        make: whether to compute missing bootstraps; if False, trials without one have no interval.
    """
    ranked = record.ranked()
    varying = varying_parameters(ranked)
    schema = LEADERBOARD
    for name in varying:
        schema = schema.append(pa.field(name, arrow_type(name)))
    try:
        ties = ties_with_best(record, folder, make=make)
    except RunError:  # a damaged match table; results.compare names it
        ties = {}
    twins = find_twins(record)
    seeds, front = record.fresh_seeds(), record.on_front()
    rows = [
        {
            **_row(record, trial),
            **_intervals(record, folder, trial, make=make),
            "ties_with_best": ties.get(trial.trial_id),
            **_seeds(record, trial, seeds),
            "same_as": twins.get(trial.trial_id),
            "on_front": front.get(trial.trial_id),
            **{name: trial.config.get(name) for name in varying},
        }
        for trial in ranked
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def epochs_table(record: RunRecord) -> pa.Table:
    """One row per trial and epoch, in the order of trials."""
    rows = [
        {"run": record.run, "trial_id": trial.trial_id, **epoch}
        for trial in record.trials.values()
        for _, epoch in sorted(trial.epochs.items())
    ]
    return pa.Table.from_pylist(rows, schema=EPOCHS)


def varying_parameters(trials: list[TrialRecord]) -> list[str]:
    """Parameters that differ between the trials of a search, without the seed, which has its own column.

    Retrainings are left out: their thresholds and changed parameters are not searched.
    """
    trials = [trial for trial in trials if trial.role != "retrain"]
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    return [
        name
        for name in names
        if name != "runtime.seed" and len({json.dumps(trial.config.get(name)) for trial in trials}) > 1
    ]


def arrow_type(name: str) -> pa.DataType:
    """The type of a parameter's column."""
    try:
        return _ARROW_TYPES[parameter_named(name).kind]
    except ConfigError:  # a parameter of another version
        return pa.string()


def _row(record: RunRecord, trial: TrialRecord) -> dict[str, Any]:
    best = trial.best(record.metric) or {}
    epochs = list(trial.epochs.values())
    return {
        "run": record.run,
        "trial_id": trial.trial_id,
        "space": trial.space,
        "role": trial.role,
        "parent": trial.parent,
        "trained_on": trial.trained_on,
        "baseline": trial.baseline,
        "status": trial.status,
        "stop_reason": trial.stop_reason,
        "config": json.dumps(trial.config),
        "config_hash": trial.config_hash,
        "seed": trial.seed,
        "epochs": trial.num_epochs,
        "faults": len(trial.faults),
        "best_epoch": best.get("epoch"),
        **{f"val_{name}": best.get(f"val_{name}") for name in SCORE_NAMES},
        **{f"confirm_{name}": trial.confirm.get(name) for name in SCORE_NAMES},
        **{name: value for name, value in trial.optima.items() if name in LEADERBOARD.names},
        "train_loss": best.get("train_loss"),
        "val_loss": best.get("val_loss"),
        "train_map": best.get("train_map"),
        "train_map_50": best.get("train_map_50"),
        **{f"anchor_{name}": value for name, value in (trial.coverage or {}).items()},
        "train_seconds": trial.train_seconds,
        "trial_seconds": trial.seconds,
        "images_per_second": best.get("images_per_second"),
        "peak_memory_bytes": max((epoch["peak_memory_bytes"] or 0 for epoch in epochs), default=None),
        "device": trial.device,
        "num_parameters": (trial.model or {}).get("num_parameters"),
        **trial.cost,
        "model": None if trial.model is None else json.dumps(trial.model),
        "checkpoint": trial.checkpoint,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }


def _seeds(record: RunRecord, trial: TrialRecord, seeds: dict[str, list[TrialRecord]]) -> dict[str, Any]:
    """The mean over replicates, by which a configuration is ranked, for the row of its first training."""
    mine = [one for one in seeds.get(trial.config_hash, []) if one.role != "confirm"]
    if trial.role != "search" or not mine:
        return {}
    return {"seeds_mean": record.standing(trial), "num_seeds": len(mine)}


def _intervals(record: RunRecord, folder: Path, trial: TrialRecord, *, make: bool) -> dict[str, float]:
    """The ends of the interval of every score that has match tables."""
    found: dict[str, float] = {}
    best = trial.best(record.metric) or {}
    for part, points in (("val", {name: best.get(f"val_{name}") for name in SCORE_NAMES}), ("confirm", trial.confirm)):
        try:
            epoch = trial.best_epoch(record.metric)
            ends = score_intervals(folder, trial.trial_id, trial.config, part, points, epoch=epoch, make=make)
        except RunError:
            continue
        for name, (low, high) in ends.items():
            found |= {f"{part}_{name}_low": low, f"{part}_{name}_high": high}
    return found


def read_leaderboard(run: str | PathLike[str]) -> pd.DataFrame:
    """The leaderboard of a run, best first.

    Args:
        run: the name of a run in `runs/`, the path of a run folder, or an opened run.

    Raises:
        RunError: it is not a run, or its table is damaged or of another version.
    """
    folder = find_run(run)
    path = folder / LEADERBOARD_FILE
    if not path.exists():  # the run has not written its first view
        rebuild(folder)
    board = read_table(path)
    missing = [field for field in LEADERBOARD if field.name not in board.columns]
    if all(field.nullable for field in missing):  # of a version that did not measure it
        for field in missing:
            board[field.name] = None
    else:
        raise RunError(f"{path} is not a leaderboard; {rebuild_words(folder)}")
    return board


def read_leaderboards(runs: str | PathLike[str] | Iterable[str | PathLike[str]]) -> pd.DataFrame:
    """Several leaderboards as one table, best first within each run; missing parameters are null.

    Args:
        runs: names of runs in `runs/`, paths of run folders or of folders of runs, or opened runs; also only one.

    Raises:
        RunError: one of them is not a run, none is named, or a table is damaged or of another version.
    """
    names = [runs] if isinstance(runs, str | PathLike) else list(runs)
    if not names:
        raise RunError("no run is named; give at least one name or path")
    return pd.concat([read_leaderboard(folder) for folder in find_runs(names)], ignore_index=True)


def parameter_columns(board: pd.DataFrame) -> list[str]:
    """The columns of parameters that vary."""
    return [name for name in board.columns if "." in name]
