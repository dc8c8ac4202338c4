"""The detections of a run's best trials beside the annotations, as COCO files, from the stored match tables."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table, new_folder, write_annotations
from digits_core.data.remote import is_address
from digits_core.data.source import DRAWN, DataSource, valid_folder, valid_part
from digits_core.errors import DataError, RunError, printable
from digits_core.evaluation.metrics import MatchTable, Truth
from digits_core.labels import DIGITS, Categories
from results.record.trial import TrialRecord
from results.tables.matches import StoredMatches, matches_path, read_matches
from results.views.opened_run import OpenedRun

TRUTH_FILE, DETECTIONS_FILE = "truth.json", "detections.json"

NUM_MODELS = 2
"""The winner and the runner-up."""

ImageFiles = Mapping[int, tuple[str, int, int]]
"""Image id to file name, width and height."""


class Written(NamedTuple):
    """What `write_detections` wrote.

    Attributes:
        images, annotations: their numbers in truth.json.
        detections: the number of detections of each trial, best trial first.
        note: what the user should know; None if there is nothing.
    """

    images: int
    annotations: int
    detections: dict[str, int]
    note: str | None


def write_detections(run: OpenedRun, out: Path, data: str | None = None) -> Written:
    """Write `truth.json`, and `TRIAL/detections.json` of the two best configurations; runs no model.

    The detections are those that the leaderboard's scores are computed from: of the trial's best epoch on the
    validation images, after NMS, above Task 1's score threshold and within its limit per image.

    Args:
        run: the run.
        out: a new or empty folder.
        data: where the run's data is now; None takes the place in `run.json`.

    Raises:
        RunError: no trial has a score, or a match table is missing, damaged or without annotated boxes.
        DataError: `out` is not empty, or `data` is not the data of the run.
    """
    best = [one for one in run.record.settings() if run.record.value(one) is not None][:NUM_MODELS]
    if not best:
        raise RunError(f"{run.folder}: no trial has a score, so there are no detections to write")
    found = {trial.trial_id: _read(run, trial) for trial in best}
    stored, config = found[best[0].trial_id]
    categories = _categories(run.about)
    files, note = _image_files(run, stored, config, data)
    if len(best) < NUM_MODELS:
        note = "; ".join(["only one configuration has a score", *([] if note is None else [note])])
    counts = {}
    with new_folder(out) as half:
        truth = _annotations(stored.truth, stored.image_ids, categories)
        write_annotations(half / TRUTH_FILE, _images(stored.image_ids, files), truth, _category_rows(categories))
        for trial_id, (matches, own) in found.items():
            task = own.detect.task1
            rows = _results(matches.task1.above(task.score, task.max_detections), matches.image_ids, categories)
            (half / trial_id).mkdir()
            (half / trial_id / DETECTIONS_FILE).write_text(json.dumps(rows), encoding="utf-8")
            counts[trial_id] = len(rows)
    return Written(len(stored.image_ids), len(truth), counts, note)


def _read(run: OpenedRun, trial: TrialRecord) -> tuple[StoredMatches, TrainConfig]:
    path = matches_path(run.folder, trial.trial_id, "val")
    stored = read_matches(path, trial.best_epoch(run.metric))
    if stored.truth.boxes is None:
        raise RunError(f"{path}: an older version wrote it without the annotated boxes, so they cannot be exported")
    return stored, TrainConfig.from_flat(trial.config)


def _categories(about: Mapping[str, Any]) -> Categories:
    """The classes of the run's data, with the category ids of its annotation file."""
    data = about.get("data")
    named = data.get("categories") if isinstance(data, dict) else None
    if not isinstance(named, dict) or not named or not all(str(number).isdecimal() for number in named):
        return DIGITS
    return Categories(tuple(map(int, named)), tuple(map(str, named.values())))


def _image_files(
    run: OpenedRun, stored: StoredMatches, config: TrainConfig, data: str | None
) -> tuple[ImageFiles, str | None]:
    """Names and sizes of the image files, and a note: where they are, or why they are not known.

    Raises:
        DataError: `data` cannot be read, or is not the data of the run.
    """
    try:
        source = _source(run.about, data)
        files = _files_of(source, stored, config)
    except DataError as error:
        if data is not None:
            raise
        return {}, (
            f"{TRUTH_FILE} has no names and sizes of images, because the data of the run cannot be read ({error}); "
            "--data FOLDER says where it is now"
        )
    if source.folder == DRAWN:
        return files, "digit-search data draw -o drawn writes the images to drawn/valid"
    return files, f"the images are in {printable(str(valid_folder(source)))}"


def _source(about: Mapping[str, Any], data: str | None) -> DataSource:
    """Where the data of the run is.

    Raises:
        DataError: run.json does not say it, or it is not a local folder.
    """
    settings = about.get("settings")
    tree = settings.get("data") if isinstance(settings, dict) else None
    if not isinstance(tree, dict) and data is None:
        raise DataError("run.json does not name it")
    try:
        source = DataSource(**tree) if isinstance(tree, dict) else DataSource()
    except TypeError:
        raise DataError("run.json is of another version") from None
    source = source if data is None else replace(source, folder=data)
    if is_address(source.folder):
        raise DataError(f"{printable(source.folder)} is not a folder of this machine")
    return source


def _files_of(source: DataSource, stored: StoredMatches, config: TrainConfig) -> ImageFiles:
    """The image files of the scored images.

    Raises:
        DataError: the data cannot be read, or has other images or boxes than the run.
    """
    part = valid_part(source)
    table = Table.from_part(part)
    rows = np.searchsorted(table.image_ids, stored.image_ids)
    same = bool((rows < len(table.image_ids)).all() and (table.image_ids[rows] == stored.image_ids).all())
    if same:
        truth = Truth.from_table(table.some(rows), config.detect.reading)
        assert truth.boxes is not None  # a table has boxes
        assert stored.truth.boxes is not None  # checked when it was read
        same = np.array_equal(truth.labels, stored.truth.labels) and np.array_equal(truth.boxes, stored.truth.boxes)
    if not same:
        raise DataError(f"{printable(source.folder)}: its validation images are not those of the run")
    return part.images


def _images(image_ids: NDArray[np.int64], files: ImageFiles) -> list[dict[str, Any]]:
    """COCO's rows of images."""
    rows = []
    for image_id in image_ids.tolist():
        row: dict[str, Any] = {"id": image_id}
        if image_id in files:
            row["file_name"], row["width"], row["height"] = files[image_id]
        rows.append(row)
    return rows


def _category_rows(categories: Categories) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in zip(categories.ids, categories.names, strict=True)]


def _annotations(truth: Truth, image_ids: NDArray[np.int64], categories: Categories) -> list[dict[str, Any]]:
    """COCO's rows of annotations, as the scores used them: clipped to the images, crowds marked."""
    assert truth.boxes is not None  # checked when it was read
    parts = [(0, truth.image, truth.labels, truth.boxes)]
    if truth.crowds is not None:
        parts.append((1, truth.crowds.image, truth.crowds.labels, truth.crowds.boxes))
    rows: list[dict[str, Any]] = []
    for crowd, image, labels, boxes in parts:
        for image_id, label, box in zip(image_ids[image].tolist(), labels.tolist(), _xywh(boxes), strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image_id,
                    "category_id": categories.ids[label - 1],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
            )
    return rows


def _results(table: MatchTable, image_ids: NDArray[np.int64], categories: Categories) -> list[dict[str, Any]]:
    """COCO's rows of results, best score of an image first."""
    ids = image_ids[table.image].tolist()
    return [
        {"image_id": image_id, "category_id": categories.ids[label - 1], "bbox": box, "score": score}
        for image_id, label, box, score in zip(
            ids, table.labels.tolist(), _xywh(table.boxes), table.scores.tolist(), strict=True
        )
    ]


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    """COCO's form of boxes: x_min, y_min, width, height."""
    exact = boxes.astype(np.float64)
    corners: list[list[float]] = np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist()
    return corners
