"""The leaderboard of a report page: cells, values to sort by, and the details of each row."""

import math
import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from digits_core.errors import printable
from results.record.schema import FAILED
from results.record.trial import TrialRecord
from results.tables.formats import csv_text
from results.verdicts.equal_models import differing_parameters
from results.verdicts.several_runs import joint_name
from results.views.costs import COST_WORDS, TIMES
from results.views.leaderboard import SHOWN, parameter_columns
from results.views.opened_run import OpenedRun
from results.views.parameters import changed_by, value_words
from results.views.reasons import reason_words
from results.views.several_runs import ComparedRuns


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes:
        key: column of the leaderboard, or the name of a cell that is computed from several columns.
        label: the heading.
        number: whether it is aligned and sorted as a number.
        hidden: whether it is hidden until the user selects it.
        help: the meaning, shown as a tooltip.
    """

    key: str
    label: str
    number: bool
    hidden: bool
    help: str


FEW_PARAMETERS = 6
"""Up to this many searched parameters, all of them are before the names of baselines."""

_RANK = Column("rank", "#", True, False, "rank of the configuration; = is statistically tied with the best")
_TRIAL = Column("trial_id", "trial", False, False, "name of the trial; opens its parameters, curve and warnings")
_BASELINE = Column("baseline", "baseline", False, False, "name of the published or default configuration")
_SCORES = {
    "val_map": "COCO AP averaged over IoU .50:.95, at the best epoch",
    "val_map_50": "AP at IoU .50",
    "val_digit_accuracy": "share of digits read correctly; false detections count as errors",
    "val_number_accuracy": "share of images whose complete number is read correctly",
}
_LATER = (
    Column("epochs", "best/trained epochs", True, False, "best epoch / number of trained epochs"),
    Column("status", "status", False, False, "finished, stopped by the scheduler, failed, ..."),
    Column("trial_seconds", "minutes", True, False, "training and evaluation time"),
)
_COSTS = (
    Column("on_front", "front", False, False, "on the Pareto front: no other trial is better in all aims"),
    *(Column(name, COST_WORDS[name].heading, True, False, COST_WORDS[name].meaning) for name in TIMES),
)
_HIDDEN = (
    ("val_map_75", "mAP@.75", "AP at IoU .75"),
    ("task1_map", "Task 1 mAP", "at the best thresholds of the sweep, selected on these images"),
    ("task2_number_accuracy", "Task 2 numbers", "at the best thresholds of the sweep, selected on these images"),
    ("train_map", "train mAP", "on a sample of training images"),
    ("train_loss", "train loss", "at the best epoch"),
    ("val_loss", "validation loss", "at the best epoch"),
    ("images_per_second", "images/s", "training speed"),
    ("peak_memory_bytes", "memory MB", "peak memory of the process"),
    ("num_parameters", "parameters", "number of model parameters"),
    ("megabytes", "megabytes", "size of the weights"),
    ("anchor_mean_iou", "anchor IoU", "mean IoU of each training box with its best anchor"),
    ("seed", "seed", "random seed of the training"),
    ("faults", "restarts", "number of restarts after a failure"),
)
_ROUNDED = (*_SCORES, *(key for key, _, _ in _HIDDEN if key.startswith(("val_", "train_", "task", "anchor_"))))
"""Columns with a fixed number of decimals."""


def decimals(board: pd.DataFrame, name: str) -> int:
    """Number of decimals for a column of scores: 2, 3 or 4.

    With intervals, half of the median interval is at least one unit of the last decimal. If two decimals print two
    different scores alike, there are at least three, because the table would not show their order.
    """
    typical = 0.0
    if f"{name}_high" in board:
        widths = (board[f"{name}_high"] - board[f"{name}_low"]).dropna()
        typical = float(widths.median()) if len(widths) else 0.0
    values = {float(value) for value in board[name].dropna()}
    least = 2 if len({f"{value:.2f}" for value in values}) == len(values) else 3
    return min(max(math.ceil(-math.log10(typical / 2)), least), 4) if typical > 0 else least


def board_of(run: OpenedRun | ComparedRuns) -> dict[str, Any]:
    """The table of a page: `columns`, `rows` (cells, values to sort by, ties) and the leaderboard as `csv`.

    Of several runs, the table has a column with the name of the run, and rows are named RUN:TRIAL.
    """
    board, several = run.leaderboard, isinstance(run, ComparedRuns)
    whole = board[board["role"] != "retrain"]
    metric, rows = run.metric, whole.to_dict("records")
    for row in rows:
        row["reason"] = reason_words(row["status"], None if pd.isna(row["stop_reason"]) else row["stop_reason"])
    columns = _columns(whole, metric, rows, several=several)
    places = {column.key: decimals(whole, column.key) for column in columns if column.key in _ROUNDED}
    leads = {(row["run"], row["config_hash"]): row for row in rows if row["role"] == "search"}
    ties = [row["ties_with_best"] for row in rows]
    tied = [pd.notna(one) and bool(one) for one in ties]
    tied = tied if sum(tied) > 1 else [False] * len(rows)
    first = {row["config_hash"] for row, one in zip(rows, tied, strict=True) if one}
    for row in rows:
        lead = leads.get((row["run"], row["config_hash"]))
        if row["role"] != "search" and lead is not None:
            row["baseline"] = f"replicate of {lead['trial_id']}"
    names = [joint_name(row["run"], row["trial_id"]) if several else row["trial_id"] for row in rows]
    order = sorted(range(len(rows)), key=lambda index: rows[index]["config_hash"] not in first)
    leading = [row for row in (rows[index] for index in order) if row["role"] == "search" and pd.notna(row[metric])]
    for rank, row in enumerate((row for row in leading if row["status"] not in FAILED), start=1):
        row["rank"] = rank
    return {
        "columns": columns,
        "num_first": sum(row["config_hash"] in first for row in rows),
        "rows": [
            {
                "trial": names[index],
                "tied": tied[index],
                "first": rows[index]["config_hash"] in first,
                "status": rows[index]["status"],
                "cells": [_cell(rows[index], column, metric, places) for column in columns],
                "values": [_value(rows[index], column, metric) for column in columns],
            }
            for index in order
        ],
        "csv": csv_text(board.drop(columns=["config", "model"])),
    }


def _columns(whole: pd.DataFrame, metric: str, rows: list[dict[Any, Any]], *, several: bool) -> list[Column]:
    """The columns of the table: without those that would be empty, and without parameters that do not vary."""
    parameters = [name for name in parameter_columns(whole) if whole[name].astype(str).nunique() > 1]
    measured = [name for name in _SCORES if name != metric and whole[name].notna().any()]
    scores = [metric, *measured]
    searched = [Column(name, name.rpartition(".")[2], _is_number(whole[name]), False, name) for name in parameters]
    named = [*searched, _BASELINE] if len(searched) <= FEW_PARAMETERS else [_BASELINE, *searched]
    return [
        _RANK,
        _TRIAL,
        *(Column("run", "run", False, False, "name of the run") for _ in range(int(several))),
        *(Column(name, SHOWN.get(name, name), True, False, _SCORES.get(name, "")) for name in scores[:1]),
        Column("interval", "95 %", True, False, "interval over images of the score to the left"),
        *(Column("seeds", "mean of replicates", True, False, "mean over the replicates (number of replicates)")
          for _ in range(int(whole["num_seeds"].notna().any()))),
        *named,
        *(Column(name, SHOWN.get(name, name), True, False, _SCORES.get(name, "")) for name in scores[1:]),
        *(column for column in _COSTS if whole[column.key].notna().any()),
        *_LATER,
        Column("role", "role", False, True, "search (first training), replicate, or confirm"),
        *(Column(key, label, True, True, words) for key, label, words in _HIDDEN if whole[key].notna().any()),
        *(Column("reason", "reason", False, False, "why the trial was stopped, failed or was not trained")
          for _ in range(int(any(row["reason"] for row in rows)))),
    ]  # fmt: skip


def details_of(run: OpenedRun, trial: TrialRecord, twin: str | None) -> dict[str, Any]:
    """The details of a row: parameters that differ from the default, curve, warnings, the command to train it again.

    Args:
        run: the opened run.
        trial: the trial of the row.
        twin: another trial that trained to the same weights with other parameters, if any.
    """
    changed = [
        [one.name, f"{value_words(one.value)}{' (no effect)' if one.idle else ''}", value_words(one.default)]
        for one in changed_by(trial, run.base.to_flat())
        if not one.name.startswith("runtime.")
    ]
    warnings = [f"{one['fault']}: {one['reason']} (after epoch {one['epoch']})" for one in trial.faults]
    if trial.stop_reason:
        warnings.append(reason_words(trial.status, trial.stop_reason))
    if twin is not None:
        parameters = ", ".join(differing_parameters(run.record.trials[twin], trial))
        warnings.append(f"trained to the same weights as {twin}: {parameters} had no effect here")
    return {
        "settings": changed,
        "seed": trial.seed,
        "curve": [
            [epoch, one.get(run.metric), one.get("train_loss"), one.get("val_loss")]
            for epoch, one in sorted(trial.epochs.items())
        ],
        "warnings": [printable(words) for words in warnings],
        "command": f"digit-search retrain {shlex.quote(str(run.folder))} --trial {shlex.quote(trial.trial_id)}",
    }


def _cell(row: dict[Any, Any], column: Column, metric: str, places: dict[str, int]) -> str:
    key = column.key
    if key == "interval":
        low, high = number(row.get(f"{metric}_low")), number(row.get(f"{metric}_high"))
        return "" if low is None or high is None else f"{low:.{places[metric]}f} – {high:.{places[metric]}f}"
    if key == "seeds":
        value = number(row.get("seeds_mean"))
        return "" if value is None else f"{value:.3f} ({row['num_seeds']:.0f})"
    if key == "epochs":
        return f"{'–' if pd.isna(row['best_epoch']) else int(row['best_epoch'])}/{row['epochs']}"
    value = row.get(key)
    if value is None or pd.isna(value):
        return "–" if column.number and key != "rank" else ""
    if key in places:
        return f"{value:.{places[key]}f}"
    if key == "on_front":
        return "yes" if value else ""
    if key == "trial_seconds":
        return "" if not value and row["status"] == "running" else f"{value / 60:.1f}"
    if key == "peak_memory_bytes":
        return f"{value / 1e6:,.0f}"
    if key == "images_per_second":
        return f"{value:.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if key == "num_parameters" else str(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return printable(str(value))


def _value(row: dict[Any, Any], column: Column, metric: str) -> float | str | None:
    """The value by which a cell is sorted."""
    key = {"interval": f"{metric}_low", "seeds": "seeds_mean"}.get(column.key, column.key)
    value = row.get(key)
    if value is None or pd.isna(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    return float(value) if column.number and isinstance(value, int | float) else printable(str(value))


def _is_number(series: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


def number(value: Any) -> float | None:
    """A cell of a table as a number; None for null."""
    return None if value is None or pd.isna(value) else float(value)
