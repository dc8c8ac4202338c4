"""Match tables on disk, and the scores of their bootstrap: matches/TRIAL.parquet, bootstrap/TRIAL.parquet.

The trial writes its match tables. The bootstrap is computed from them on first use. All trials of a run have the same
resamples of the images, so that differences are paired.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from digits_core.config.train_config import DetectConfig, TaskConfig, TrainConfig
from digits_core.errors import RunError, reason_of
from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
from digits_core.evaluation.metrics import (
    SCORE_NAMES,
    SHARES_OF_IMAGES,
    Boxes,
    MatchTable,
    Scores,
    Truth,
    images_behind,
    rank_within,
    score,
)
from digits_core.evaluation.transcribe import numbers_of
from results.record.schema import BOOTSTRAP, MATCHES
from results.statistics import interval
from results.tables.parquet import WITHOUT, check_epoch, epoch_of, of_epoch, read_arrow, write_table

MATCHES_FOLDER, BOOTSTRAP_FOLDER = "matches", "bootstrap"

RESAMPLES = 1000
"""Number of bootstrap resamples of the images."""

MAX_PER_IMAGE = 100
"""Most detections per image in a match table on disk, unless a task needs more."""

_WITH_BOXES = ("truth_boxes", "crowds", "crowd_boxes")
"""Columns that older versions did not write."""

_COLUMNS = ("labels", "scores", "iou", "matched", "ignored", "digits")


@dataclass(frozen=True, slots=True)
class StoredMatches:
    """The detections of a trial's best epoch on one split, matched with the annotations.

    Attributes:
        image_ids: int64 [num_images].
        truth: the annotations.
        task1, task2: match tables at the NMS of each task, with all detections above the score floor.
        epoch: the evaluated epoch; None if unknown.
    """

    image_ids: NDArray[np.int64]
    truth: Truth
    task1: MatchTable
    task2: MatchTable
    epoch: int | None = None


def write_matches(path: Path, stored: StoredMatches, detect: DetectConfig) -> None:
    """Write match tables: one row per image with lists of detections, best score first."""
    images = len(stored.image_ids)
    digits = np.searchsorted(stored.truth.image, np.arange(images + 1))
    columns: dict[str, Any] = {
        "image_id": pa.array(stored.image_ids),
        "number": pa.array(
            numbers_of(images, stored.truth.image, stored.truth.labels) if stored.truth.numbers else [None] * images,
            pa.string(),
        ),
        "truth": _lists(digits, stored.truth.labels, "truth"),
    }
    if stored.truth.boxes is not None and stored.truth.crowds is not None:
        crowds = stored.truth.crowds
        ends = np.searchsorted(crowds.image, np.arange(images + 1))
        columns["truth_boxes"] = _lists(digits * 4, stored.truth.boxes.ravel(), "truth_boxes")
        columns["crowds"] = _lists(ends, crowds.labels, "crowds")
        columns["crowd_boxes"] = _lists(ends * 4, crowds.boxes.ravel(), "crowd_boxes")
    for name, task in (("task1", detect.task1), ("task2", detect.task2)):
        table: MatchTable = getattr(stored, name)
        table = table.select(table.rank < max(MAX_PER_IMAGE, task.max_detections))
        ends = np.searchsorted(table.image, np.arange(images + 1))
        for column in _COLUMNS:
            columns[f"{name}_{column}"] = _lists(ends, getattr(table, column), f"{name}_{column}")
        columns[f"{name}_boxes"] = _lists(ends * 4, table.boxes.ravel(), f"{name}_boxes")
    schema = pa.schema([field for field in MATCHES if field.name in columns], metadata=MATCHES.metadata)
    table = pa.table([columns[name] for name in schema.names], schema=schema)
    write_table(path, of_epoch(table, stored.epoch))


def read_matches(path: Path, epoch: int | None = None) -> StoredMatches:
    """Read match tables.

    Args:
        path: the file.
        epoch: the expected epoch; None accepts any.

    Raises:
        RunError: the file is missing, damaged, of another schema version, or of another epoch.
    """
    table = _read(path)
    check_epoch(path, epoch_of(table), epoch)
    known = [field for field in MATCHES if field.name in table.schema.names or field.name not in _WITH_BOXES]
    if table.schema.names != [field.name for field in known] or table.schema.types != [field.type for field in known]:
        raise RunError(f"{path} is not a match table; {WITHOUT}")
    image_ids = table.column("image_id").to_numpy()
    truth_image, labels = _flat(table, "truth", np.int64)
    tasks = []
    for name in ("task1", "task2"):
        image, first = _flat(table, f"{name}_labels", np.int64)
        columns = {column: _flat(table, f"{name}_{column}", None) for column in _COLUMNS[1:]}
        corners, sides = _flat(table, f"{name}_boxes", np.float32)
        whose = [(np.repeat(image, 4), corners), *((image, other) for other, _ in columns.values())]
        if not all(np.array_equal(one, other) for one, other in whose):
            raise RunError(f"{path} is damaged: its lists of {name} have different lengths; {WITHOUT}")
        values, boxes = {column: found for column, (_, found) in columns.items()}, sides.reshape(-1, 4)
        tasks.append(MatchTable(image=image, rank=rank_within(image), labels=first, boxes=boxes, **values))
    numbers = table.column("number").null_count < max(len(image_ids), 1)
    truth = Truth(len(image_ids), truth_image, labels, numbers, *_boxes(path, table, truth_image))
    return StoredMatches(image_ids, truth, tasks[0], tasks[1], epoch_of(table))


def _boxes(
    path: Path, table: pa.Table, truth_image: NDArray[np.int64]
) -> tuple[NDArray[np.float32] | None, Boxes | None]:
    """The annotated boxes and the crowds; None where an older version wrote the table without them."""
    if not set(table.schema.names) >= set(_WITH_BOXES):
        return None, None
    image, sides = _flat(table, "truth_boxes", np.float32)
    crowd_image, crowd_labels = _flat(table, "crowds", np.int64)
    corner_image, corners = _flat(table, "crowd_boxes", np.float32)
    if not np.array_equal(image, np.repeat(truth_image, 4)) or not np.array_equal(
        corner_image, np.repeat(crowd_image, 4)
    ):
        raise RunError(f"{path} is damaged: its annotated boxes and labels are not of one length; {WITHOUT}")
    return sides.reshape(-1, 4), Boxes(crowd_image, crowd_labels, corners.reshape(-1, 4))


def count_images(path: Path) -> int:
    """The number of images in a match table.

    Raises:
        RunError: the file is damaged.
    """
    return _counts(path)[0]


def sample_size(path: Path, name: str) -> int:
    """The number of images in a match table that count for a score.

    Raises:
        RunError: the file is damaged.
    """
    return images_behind(name, *_counts(path))


def matches_path(folder: Path, trial_id: str, part: str) -> Path:
    """The path of the match tables of a trial; `part` is `val` or `confirm`."""
    return folder / MATCHES_FOLDER / f"{trial_id}{'' if part == 'val' else '.' + part}.parquet"


def read_at(
    folder: Path, trial_id: str, config: Mapping[str, Any], thresholds: Mapping[str, Any], part: str = "val"
) -> tuple[Scores, dict[str, NDArray[np.float64]]]:
    """The scores of a trial at given thresholds, and those of each bootstrap resample of the images.

    Args:
        folder: the run folder.
        trial_id: the trial.
        config: its flat config.
        thresholds: parameters of `detect` to change; NMS must be equal to that of one of the two tables on disk.
        part: `val` or `confirm`.

    Raises:
        RunError: there are no match tables, or none with that NMS.
    """
    stored = read_matches(matches_path(folder, trial_id, part))
    own = TrainConfig.from_flat(config)
    detect = TrainConfig.from_flat(thresholds, own).detect
    kept = [(own.detect.task1, stored.task1), (own.detect.task2, stored.task2)]

    def at(task: TaskConfig) -> MatchTable:
        for one, table in kept:
            if (one.nms, one.class_agnostic) == (task.nms, task.class_agnostic):
                return table
        kind = "class-agnostic NMS" if task.class_agnostic else "NMS within classes"
        raise RunError(f"{matches_path(folder, trial_id, part)} has no table for {kind} {task.nms:g}")

    task1, task2 = at(detect.task1), at(detect.task2)
    weights = resample_weights(len(stored.image_ids), RESAMPLES)
    resampled = bootstrap_scores(task1, task2, stored.truth, detect, weights)
    return score(task1, task2, stored.truth, detect), resampled


def resampled_scores(
    folder: Path,
    trial_id: str,
    config: Mapping[str, Any],
    part: str = "val",
    *,
    epoch: int | None = None,
    make: bool = True,
) -> dict[str, NDArray[np.float64]]:
    """The scores of a trial's best epoch for each resample of the images; empty without match tables.

    They are computed once and stored in the run folder.

    Args:
        folder: the run folder.
        trial_id: the trial.
        config: its flat config, for the thresholds of the tasks.
        part: `val` or `confirm`.
        epoch: the epoch that they must be of; None takes any.
        make: whether to compute missing scores; if False, the result is empty then.

    Raises:
        RunError: the match tables are damaged, of another schema version or of another epoch.
    """
    source = matches_path(folder, trial_id, part)
    target = folder / BOOTSTRAP_FOLDER / source.name
    if not source.is_file():
        return {}
    of = _stored_epoch(source, source.stat().st_mtime_ns)
    check_epoch(source, of, epoch)
    mark = f"{source.stat().st_size} bytes, {RESAMPLES} resamples" + ("" if of is None else f", epoch {of}")
    with contextlib.suppress(RunError):  # missing, made from other match tables, or damaged
        return _read_bootstrap(target, mark)
    if make:
        stored = read_matches(source)
        detect = TrainConfig.from_flat(config).detect
        weights = resample_weights(len(stored.image_ids), RESAMPLES)
        scores = bootstrap_scores(stored.task1, stored.task2, stored.truth, detect, weights)
        nothing = np.full(RESAMPLES, np.nan)
        columns = [pa.array(scores.get(name, nothing), from_pandas=True) for name in SCORE_NAMES]  # NaN is null
        target.parent.mkdir(exist_ok=True)
        made_from = {**(BOOTSTRAP.metadata or {}), b"made_from": mark.encode()}
        write_table(target, pa.table(columns, schema=BOOTSTRAP.with_metadata(made_from)))
        return _read_bootstrap(target, mark)
    return {}


@lru_cache(maxsize=4096)
def _stored_epoch(path: Path, changed_ns: int) -> int | None:
    """The epoch in the metadata of a match table; None if it is missing or the file cannot be read.

    Args:
        path: the file.
        changed_ns: time of the last change; a changed file is read again.
    """
    try:
        return epoch_of(pq.read_schema(path).empty_table())
    except (pa.ArrowException, OSError):
        return None  # reading the table reports the error


def drop_matches(folder: Path, trial_id: str) -> None:
    """Delete the match tables and bootstraps of a trial."""
    for part in ("val", "confirm"):
        path = matches_path(folder, trial_id, part)
        path.unlink(missing_ok=True)
        (folder / BOOTSTRAP_FOLDER / path.name).unlink(missing_ok=True)


def score_intervals(
    folder: Path,
    trial_id: str,
    config: Mapping[str, Any],
    part: str,
    points: Mapping[str, float | None],
    *,
    epoch: int | None = None,
    make: bool = True,
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each score; `points` are the scores, other arguments as in `resampled_scores`.

    Raises:
        RunError: the match tables are damaged, of another schema version or of another epoch.
    """
    found = resampled_scores(folder, trial_id, config, part, epoch=epoch, make=make)
    return intervals_of(points, found, *_counts(matches_path(folder, trial_id, part))) if found else {}


def intervals_of(
    points: Mapping[str, float | None],
    resampled: Mapping[str, NDArray[np.float64]],
    num_images: int,
    with_digits: int,
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each score over images.

    Args:
        points: scores by name; None for a missing score.
        resampled: float64 [resamples] by name.
        num_images: number of images of the split.
        with_digits: number of images with digits.
    """
    return {
        name: interval(
            point, resampled[name], images_behind(name, num_images, with_digits), share=name in SHARES_OF_IMAGES
        )
        for name, point in points.items()
        if point is not None and name in resampled
    }


def _counts(path: Path) -> tuple[int, int]:
    """The number of images in a match table, and the number of those with digits.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return _read_counts(path, path.stat().st_size)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RunError(f"{path} is damaged or no Parquet file ({reason_of(error)}); {WITHOUT}") from None


@lru_cache(maxsize=4096)
def _read_counts(path: Path, _size: int) -> tuple[int, int]:
    """As `_counts`; cached, but errors are not."""
    with path.open("rb") as file:
        digits = pc.list_value_length(pq.ParquetFile(file).read(columns=["truth"]).column("truth"))
    return len(digits), int(pc.sum(pc.greater(digits, 0)).as_py() or 0)


@lru_cache(maxsize=4096)
def _read_bootstrap(path: Path, mark: str) -> dict[str, NDArray[np.float64]]:
    """The scores of a bootstrap file; cached, but errors are not.

    Raises:
        RunError: the file is missing, damaged, or made from other match tables.
    """
    table = _read(path)
    if table.schema.names != BOOTSTRAP.names or (table.schema.metadata or {}).get(b"made_from") != mark.encode():
        raise RunError(f"{path} was made from other match tables")
    found = {name: table.column(name).to_numpy().astype(np.float64) for name in SCORE_NAMES}
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def _read(path: Path) -> pa.Table:
    return read_arrow(path, WITHOUT)


def _lists(ends: NDArray[np.int64], values: NDArray[Any], column: str) -> pa.Array:
    kind = MATCHES.field(column).type
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values).cast(kind.value_type), type=kind)


def _flat(table: pa.Table, column: str, kind: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The image index of each value of a list column, and the values."""
    array = table.column(column).combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    counts = np.diff(array.offsets.to_numpy())
    values = array.flatten().to_numpy(zero_copy_only=False)
    image = np.repeat(np.arange(len(counts)), counts)
    return image, values if kind is None else values.astype(kind)
