"""One trial: a few lines between Ray Tune and digits_core.train."""

# The driver imports this module to hand run_trial to Ray: torch and what needs it is imported by trials alone.
import dataclasses
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from digits_core.cache import DataSource, DigitData, open_data
from digits_core.config import DetectConfig, TrainConfig
from digits_core.errors import UserError
from digits_core.files import BEST_FOLDER

if TYPE_CHECKING:
    from digits_core.sweep import SweepRow
    from digits_core.train import EpochReport

THRESHOLDS_FILE = "thresholds.parquet"
"""Lies beside the model of the best epoch and travels with its checkpoint."""


class RefusedError(Exception):
    """A UserError inside a trial, as a plain exception that Ray can carry home."""


def run_trial(params: dict[str, Any]) -> None:
    """Train one setting under Ray Tune.

    Args:
        params: `config` (flat knobs), `data` (a DataSource as a dict), `fingerprint`, `metric`, `device`,
            `resume_from` (a checkpoint folder or None) and `sweep` (flat `detect.*` settings to score after
            training, may be empty).

    Raises:
        DivergedError: a loss was not finite.
        RefusedError: data, weights or device cannot be used; the message says what to do.
    """
    from digits_core.detect import SCORE_FLOOR
    from digits_core.train import train

    config = TrainConfig.from_flat(params["config"])
    settings = [TrainConfig.from_flat(overrides, config).detect for overrides in params["sweep"]]
    checkpoint = tune.get_checkpoint()
    resume_from = params["resume_from"]
    with tempfile.TemporaryDirectory(prefix="digit-search-") as scratch:
        if checkpoint is not None:  # Ray started the trial again after a fault
            resume_from = checkpoint.to_directory(str(Path(scratch) / "resume"))
        try:
            data = _data(params["fingerprint"], json.dumps(params["data"]))
            workdir = Path(scratch) / "work"
            train(
                config,
                data,
                lambda report: _report(report, data, settings, workdir),
                metric=params["metric"],
                score_floor=min([SCORE_FLOOR, *(task.score for one in settings for task in (one.task1, one.task2))]),
                workdir=workdir,
                resume_from=None if resume_from is None else Path(resume_from),
                device=params["device"],
            )
        except UserError as error:
            raise RefusedError(str(error)) from None


@cache
def _data(fingerprint: str, source: str) -> DigitData:
    """One mapping of the data per process, shared by all the trials that it runs."""
    return open_data(DataSource(**json.loads(source)), fingerprint=fingerprint)


def _report(report: "EpochReport", data: DigitData, settings: list[DetectConfig], workdir: Path) -> None:
    """Hand one epoch to Ray, after the sweep where the epoch is the best so far. May not return."""
    from digits_core.sweep import sweep

    values: dict[str, Any] = dataclasses.asdict(report.metrics)
    if report.metrics.epoch == 1 or report.improved:
        values["model"] = json.dumps(report.model)
        values["device"] = report.device
    if report.improved and settings and report.checkpoint is not None:
        rows = sweep(report.raw, data.valid, settings)
        values["optima"] = json.dumps(_optima(rows))
        for folder in (workdir, report.checkpoint):  # the next checkpoints copy it from the first
            _write_sweep(rows, folder / BEST_FOLDER / THRESHOLDS_FILE)
    saved = None if report.checkpoint is None else tune.Checkpoint.from_directory(str(report.checkpoint))
    tune.report(values, checkpoint=saved)
    if report.checkpoint is not None:  # Ray has stored it; the next one carries all that is needed
        shutil.rmtree(report.checkpoint, ignore_errors=True)


def _optima(rows: "list[SweepRow]") -> dict[str, float]:
    """The best thresholds of each task, chosen on these images."""
    from digits_core.sweep import best_of

    optima: dict[str, float] = {}
    for task, score, column in (("task1", "map", "task1_map"), ("task2", "number_accuracy", "task2_number_accuracy")):
        row = best_of(rows, score)
        if row is not None:
            setting = getattr(row.detect, task)
            optima |= {column: getattr(row, score), f"{task}_nms": setting.nms, f"{task}_score": setting.score}
    return optima


def _write_sweep(rows: "list[SweepRow]", path: Path) -> None:
    import pyarrow as pa

    from results.schema import THRESHOLDS
    from results.store import write_table

    columns = [
        {
            "task1_nms": row.detect.task1.nms,
            "task1_score": row.detect.task1.score,
            "task2_nms": row.detect.task2.nms,
            "task2_score": row.detect.task2.score,
            "val_map": row.map,
            "val_map_50": row.map_50,
            "val_number_accuracy": row.number_accuracy,
        }
        for row in rows
    ]
    write_table(path, pa.Table.from_pylist(columns, schema=THRESHOLDS))
