"""Match tables on disk, and the scores of their bootstrap: matches/TRIAL.parquet, bootstrap/TRIAL.parquet.

The first is written by the trial and never changes. The second follows from it and is made when it is asked
for: the same resamples of the images for every trial of a run, so that differences are paired.
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
"""Resamples of the images behind every interval."""

MAX_PER_IMAGE = 100
"""Detections of an image that a match table on disk holds, unless a task asks for more."""

_WITH_BOXES = ("truth_boxes", "crowds", "crowd_boxes")
"""Columns that older versions did not write."""

_COLUMNS = ("labels", "scores", "iou", "matched", "ignored", "digits")


@dataclass(frozen=True, slots=True)
class StoredMatches:
    """A trial's best epoch on one split.

    Attributes:
        image_ids: int64 [num_images].
        truth: what is annotated.
        task1, task2: the match tables at the two tasks' NMS, all scores above the floor.
        epoch: the epoch that was evaluated; None where it is not known.
    """

    image_ids: NDArray[np.int64]
    truth: Truth
    task1: MatchTable
    task2: MatchTable
    epoch: int | None = None


def write_matches(path: Path, stored: StoredMatches, detect: DetectConfig) -> None:
    """Write match tables: one row per image, its detections as lists, best score first."""
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
    """Read what `write_matches` wrote.

    Args:
        path: the file.
        epoch: the epoch that it must be of; None takes any.

    Raises:
        RunError: no such file, no Parquet, another schema version, or another epoch.
    """
    table = _read(path)
    check_epoch(path, epoch_of(table), epoch)
    known = [field for field in MATCHES if field.name in table.schema.names or field.name not in _WITH_BOXES]
    if table.schema.names != [field.name for field in known] or table.schema.types != [field.type for field in known]:
        raise RunError(f"{path} is no match table; {WITHOUT}")
    image_ids = table.column("image_id").to_numpy()
    truth_image, labels = _flat(table, "truth", np.int64)
    tasks = []
    for name in ("task1", "task2"):
        image, first = _flat(table, f"{name}_labels", np.int64)
        columns = {column: _flat(table, f"{name}_{column}", None) for column in _COLUMNS[1:]}
        corners, sides = _flat(table, f"{name}_boxes", np.float32)
        whose = [(np.repeat(image, 4), corners), *((image, other) for other, _ in columns.values())]
        if not all(np.array_equal(one, other) for one, other in whose):
            raise RunError(f"{path} is damaged: its lists of {name} are not of one length; {WITHOUT}")
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
    """The images of a match table, from the file's footer alone.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is damaged or no Parquet file ({reason_of(error)}); {WITHOUT}") from None


def sample_size(path: Path, name: str) -> int:
    """The images of a match table that bear on a score.

    Raises:
        RunError: the file is damaged.
    """
    return images_behind(name, *_counts(path))


def matches_path(folder: Path, trial_id: str, part: str) -> Path:
    """Where the match tables of a trial lie; `part` is `val` or `confirm`."""
    return folder / MATCHES_FOLDER / f"{trial_id}{'' if part == 'val' else '.' + part}.parquet"


def read_at(
    folder: Path, trial_id: str, config: Mapping[str, Any], thresholds: Mapping[str, Any], part: str = "val"
) -> tuple[Scores, dict[str, NDArray[np.float64]]]:
    """A trial's scores at other thresholds than its own, and under each resample of the images.

    Args:
        folder: the run folder.
        trial_id: the trial.
        config: its flat config.
        thresholds: parameters of `detect` that differ; NMS must be that of one of the two tables on disk.
        part: `val` or `confirm`.

    Raises:
        RunError: there are no match tables, or none at that NMS.
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
        raise RunError(f"{matches_path(folder, trial_id, part)} holds no table at {kind} of {task.nms:g}")

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
    """Every score of a trial's best epoch under each resample of the images; empty without match tables.

    Made once, and kept in the run folder.

    Args:
        folder: the run folder.
        trial_id: the trial.
        config: its flat config, for the tasks' settings.
        part: `val` or `confirm`.
        epoch: the epoch that they must be of; None takes any.
        make: whether to make them where they are not there yet; else that is empty too.

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
    with contextlib.suppress(RunError):  # not there yet, made from other match tables, or damaged
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
    """The epoch of a match table, from the file's footer alone; None where it does not say or cannot be read.

    Args:
        path: the file.
        changed_ns: when it was last changed, so that another file of its name is read again.
    """
    try:
        return epoch_of(pq.read_schema(path).empty_table())
    except (pa.ArrowException, OSError):
        return None  # who reads the table says what is wrong with it


def drop_matches(folder: Path, trial_id: str) -> None:
    """Delete what is on record of a trial's best epoch, image by image."""
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
    """The 95 % interval of each score that has one; `points` are the scores themselves, the rest as above.

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
        points: scores by name; None where there is none.
        resampled: float64 [resamples] of each, by name.
        num_images: of the split.
        with_digits: how many of them have digits.
    """
    return {
        name: interval(
            point, resampled[name], images_behind(name, num_images, with_digits), share=name in SHARES_OF_IMAGES
        )
        for name, point in points.items()
        if point is not None and name in resampled
    }


def _counts(path: Path) -> tuple[int, int]:
    """The images of a match table, and how many of them have digits.

    Raises:
        RunError: the file is damaged.
    """
    try:
        return _read_counts(path, path.stat().st_size)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RunError(f"{path} is damaged or no Parquet file ({reason_of(error)}); {WITHOUT}") from None


@lru_cache(maxsize=4096)
def _read_counts(path: Path, _size: int) -> tuple[int, int]:
    """The same; an error is not remembered."""
    with path.open("rb") as file:
        digits = pc.list_value_length(pq.ParquetFile(file).read(columns=["truth"]).column("truth"))
    return len(digits), int(pc.sum(pc.greater(digits, 0)).as_py() or 0)


@lru_cache(maxsize=4096)
def _read_bootstrap(path: Path, mark: str) -> dict[str, NDArray[np.float64]]:
    """The scores of a bootstrap file; an error is not remembered.

    Raises:
        RunError: it is not there, is damaged, or was made from other match tables.
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
    """The image of each value of a list column, and the values."""
    array = table.column(column).combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    counts = np.diff(array.offsets.to_numpy())
    values = array.flatten().to_numpy(zero_copy_only=False)
    image = np.repeat(np.arange(len(counts)), counts)
    return image, values if kind is None else values.astype(kind)
