"""One trial: connects Ray Tune with digits_core.training.train."""

# The driver imports this module to pass run_trial to Ray: only trials import torch and what needs it.
import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from digits_core.config.train_config import TaskConfig, TrainConfig
from digits_core.data.cache import DigitData, open_data
from digits_core.data.remote import StoreError
from digits_core.data.source import DataSource
from digits_core.errors import DeviceError, DivergedError, UserError
from digits_core.files import (
    BEST_FOLDER,
    CONFIRM_FILE,
    MATCHES_FILE,
    MODEL_FILE,
    THRESHOLDS_FILE,
    file_digest,
)
from search.monitor.epoch_progress import Pulse
from search.policy.faults import DIVERGED
from search.storage.storage import SAVED, StorageError, fetch_checkpoint, store_checkpoint
from search.tune.progress import sender

if TYPE_CHECKING:
    from digits_core.config.train_config import DetectConfig
    from digits_core.data.cache import Split
    from digits_core.evaluation.evaluate import Evaluation
    from digits_core.evaluation.sweep import Sweep
    from digits_core.training.reports import EpochReport
    from spaces.registry import Overrides


MOST_NOISE = 0.5
"""The largest `Latency.noise` of a measured time that is an aim."""

LATENCY_ATTEMPTS = 3


class RefusedError(Exception):
    """A UserError inside a trial, as a plain exception that Ray can send to the driver."""


def run_trial(params: dict[str, Any]) -> None:
    """Train one configuration under Ray Tune.

    Args:
        params: `config` (flat parameters), `data` (a DataSource as a dict), `fingerprint`, `metric`, `device`,
            `resume_from` (a checkpoint's `Storage.reference`, or None), `sweep` (flat `detect.*` settings to score in
            addition to the standard grid), `role` (`confirm` also scores the held-out images), `storage`
            (`Storage.reference` of a folder for checkpoints, or None if Ray stores them), `trial_id`, `starts` (number
            of earlier starts) and `progress` (where the driver looks for the progress inside an epoch).

    Raises:
        RefusedError: data, weights or device cannot be used; the message says what to do.
        StorageError: the data or the checkpoint cannot be read now; it may work later.
    """
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.model.checkpoint_state import is_whole
    from digits_core.training.device import free_memory
    from digits_core.training.parallel import World
    from digits_core.training.train import Checkpoints, Selection, train

    _set_process_title()
    free_memory(params["device"])
    config = TrainConfig.from_flat(params["config"])
    tasks = tasks_of(config, params["sweep"])
    resume_from = params["resume_from"]
    pulse = Pulse(sender(params["progress"], params["trial_id"]), start=params["starts"])
    with tempfile.TemporaryDirectory(prefix="digit-search-") as scratch, pulse:
        checkpoint = None if resume_from is None else fetch_checkpoint(resume_from, Path(scratch) / "resume")
        if checkpoint is not None and not is_whole(checkpoint):  # damaged by a power cut
            checkpoint = None
        try:
            data = _data(params["fingerprint"], json.dumps(params["data"]))
            workdir = Path(scratch) / "work"
            train(
                config,
                data,
                lambda report: _report(report, data, config, tasks, workdir, params),
                selection=Selection(
                    metric=params["metric"],
                    score_floor=min([SCORE_FLOOR, *(task.score for task in tasks)]),
                    confirm=params["role"] == "confirm",
                ),
                checkpoints=Checkpoints(workdir, checkpoint),
                device=params["device"],
                world=World(progress=lambda one: pulse.put(one.epoch, one.share)),
            )
        except DivergedError as error:
            # A normal end for Ray: after an error it would kill the process, which can train other trials.
            tune.report({DIVERGED: str(error), params["metric"]: None})
        except StoreError as error:
            raise StorageError(str(error)) from None
        except UserError as error:
            raise RefusedError(str(error)) from None


def _set_process_title() -> None:
    """Name this process after its trial, for Ray's dashboard, `top` and `nvidia-smi`; Ray resets it at every report."""
    with contextlib.suppress(ImportError):
        from ray._raylet import setproctitle  # type: ignore[attr-defined]

        setproctitle(f"ray::digit-search {tune.get_context().get_trial_name()}")


def tasks_of(config: TrainConfig, sweep: "list[Overrides]") -> list[TaskConfig]:
    """The settings of both tasks for each of the `detect.*` overrides of a sweep."""
    swept = [TrainConfig.from_flat(overrides, config).detect for overrides in sweep]
    return [task for one in swept for task in (one.task1, one.task2)]


@cache
def _data(fingerprint: str, source: str) -> DigitData:
    """The memory-mapped data, shared by all trials of this process."""
    return open_data(DataSource(**json.loads(source)), fingerprint=fingerprint)


def _report(
    report: "EpochReport",
    data: DigitData,
    config: TrainConfig,
    tasks: list[TaskConfig],
    workdir: Path,
    params: dict[str, Any],
) -> None:
    """Report one epoch to Ray, with match tables and sweep if it is the best so far. Ray may end the trial here."""
    values: dict[str, Any] = dataclasses.asdict(report.metrics)
    if report.metrics.epoch == 1 and report.checkpoint is not None:
        values["cost"] = json.dumps(cost_of(report.checkpoint, data, params))
    if report.metrics.epoch == 1 or report.improved:
        values["model"] = json.dumps(report.model)
        values["device"] = report.device
    if report.checkpoint is not None:
        scored = report.checkpoint / BEST_FOLDER if report.improved else report.checkpoint
        values["weights"] = file_digest(scored / MODEL_FILE)
        if report.improved:
            started = time.perf_counter()
            values |= keep_evaluation(report, data, config, tasks, workdir / BEST_FOLDER)
            for name in ("eval_seconds", "epoch_seconds"):
                values[name] += time.perf_counter() - started
            for file in (THRESHOLDS_FILE, MATCHES_FILE, CONFIRM_FILE):  # later checkpoints copy it from this one
                if (workdir / BEST_FOLDER / file).is_file():
                    shutil.copyfile(workdir / BEST_FOLDER / file, report.checkpoint / BEST_FOLDER / file)
    if report.checkpoint is None:
        tune.report(values)
        _set_process_title()
        return
    storage = params["storage"]
    if storage is None:
        tune.report(values, checkpoint=tune.Checkpoint.from_directory(str(report.checkpoint)))
    else:
        start = start_name(params["trial_id"], params["starts"])
        place = {**storage, "name": f"{storage['name']}/{start}/checkpoint_{report.metrics.epoch:06d}"}
        store_checkpoint(place, report.checkpoint)
        tune.report({**values, SAVED: place["name"]})
    _set_process_title()
    shutil.rmtree(report.checkpoint, ignore_errors=True)  # it is stored, and the next one does not need it


def cost_of(checkpoint: Path, data: DigitData, params: dict[str, Any]) -> dict[str, float]:
    """The size of a model, and how long it needs for an image if the search asks for it (`schema.COSTS`).

    Raises:
        DeviceError: the times vary so much that they say nothing about the model.
    """
    from digits_core.data.augment import Processing
    from digits_core.evaluation.latency import measure_latency
    from digits_core.submission.inference import load_detector
    from digits_core.training.device import choose_device

    found = {"megabytes": (checkpoint / MODEL_FILE).stat().st_size / 1e6}
    sizes = params["latency_of"]
    if not sizes:
        return found
    detector = load_detector(checkpoint, choose_device(params["device"]))
    assert detector.model is not None
    change = Processing(detector.config.augment)
    for batch_size in sizes:
        for _ in range(LATENCY_ATTEMPTS):
            one = measure_latency(detector.model, data.valid, batch_size, dtype=detector.dtype, change=change)
            if one.noise <= MOST_NOISE:
                break
        else:
            raise DeviceError(
                f"--metric: the time of the same images varies by {one.noise:.0%} on {detector.device}, so it cannot "
                "be an aim now; stop other work on this machine, or leave the cost out"
            )
        if batch_size == 1:
            found |= {"latency_ms": one.milliseconds, "latency_ms_low": one.low, "latency_ms_high": one.high}
        else:
            found["latency_ms_32"] = one.milliseconds
    return found


def start_name(trial_id: str, starts: int) -> str:
    """The trial's id, from the second start on with the number of the start."""
    return f"{trial_id}-start{starts + 1}" if starts else trial_id


def keep_evaluation(
    report: "EpochReport", data: DigitData, config: TrainConfig, tasks: list[TaskConfig], folder: Path
) -> dict[str, str]:
    """Write an epoch's match tables and threshold sweep into a folder.

    Returns:
        As JSON text: `optima`, the best thresholds of each task; `confirm`, the scores on the held-out images.
    """
    from digits_core.evaluation.sweep import sweep

    assert report.valid is not None  # trials always validate
    found = sweep(
        report.valid.found, data.valid.table, config.detect, [config.detect.task1, config.detect.task2, *tasks]
    )
    epoch = report.metrics.epoch
    write_sweep(found, folder / THRESHOLDS_FILE, epoch=epoch)
    write_evaluation(report.valid, data.valid, config.detect, folder / MATCHES_FILE, epoch=epoch)
    values = {"optima": json.dumps(optima(found))}
    if report.confirm is not None and data.confirm is not None:
        write_evaluation(report.confirm, data.confirm, config.detect, folder / CONFIRM_FILE, epoch=epoch)
        values["confirm"] = json.dumps(dataclasses.asdict(report.confirm.scores))
    return values


def optima(found: "Sweep") -> dict[str, float | bool]:
    """The best thresholds of each task, chosen on the same images that they are scored on."""
    values: dict[str, float | bool] = {}
    for task, score, column in (("task1", "map", "task1_map"), ("task2", "number_accuracy", "task2_number_accuracy")):
        row = found.best(score)
        if row is not None:
            setting = found.task(row)
            values |= {
                column: float(getattr(found, score)[row]),
                f"{task}_nms": setting.nms,
                f"{task}_score": setting.score,
                f"{task}_class_agnostic": setting.class_agnostic,
                f"{task}_max_detections": setting.max_detections,
            }
    return values


def write_sweep(found: "Sweep", path: Path, *, epoch: int) -> None:
    """Write the threshold sweep of an epoch as Parquet."""
    import pyarrow as pa

    from results.record.schema import THRESHOLDS
    from results.tables.parquet import of_epoch, write_table

    columns = [getattr(found, name.removeprefix("val_")) for name in THRESHOLDS.names]
    arrays = [pa.array(values, field.type, from_pandas=True) for values, field in zip(columns, THRESHOLDS, strict=True)]
    write_table(path, of_epoch(pa.table(arrays, schema=THRESHOLDS), epoch))


def write_evaluation(one: "Evaluation", split: "Split", detect: "DetectConfig", path: Path, *, epoch: int) -> None:
    """Write the match tables of an epoch's evaluation as Parquet."""
    from digits_core.evaluation.metrics import Truth
    from results.tables.matches import StoredMatches, write_matches

    truth = Truth.from_table(split.table, detect.reading)
    write_matches(path, StoredMatches(split.table.image_ids, truth, one.task1, one.task2, epoch), detect)
