"""Draws predictions beside the annotations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from digits_core.data.coco import Table
    from digits_core.submission.inference import Detector, Predictions


def draw_sheet(
    path: Path,
    found: "Predictions",
    detector: "Detector",
    images: dict[int, Path],
    count: int,
    truth: "Table | None",
) -> None:
    """Write some images with their predictions into one image file; with truth, images with most errors first."""
    from digits_core.data.preview import Shown, write_predictions
    from digits_core.data.source import decode_image
    from digits_core.evaluation.metrics import wrong_labels
    from digits_core.submission.inference import kept_at

    read = kept_at(found.found, detector.config.detect.task2)
    boxes, image = read.original_boxes, read.image
    place = {image_id: index for index, image_id in enumerate(found.image_ids)}
    chosen = [image_id for image_id in found.image_ids if image_id not in found.damaged]
    known: dict[int, tuple[Any, Any]] = {}
    wrong: dict[int, int] = {}
    if truth is not None:
        for index, image_id in enumerate(truth.image_ids.tolist()):
            mine = slice(int(truth.box_start[index]), int(truth.box_start[index + 1]))
            known[image_id] = truth.boxes[mine], truth.labels[mine]
        chosen = [image_id for image_id in chosen if image_id in known]

        inside = [place[image_id] for image_id in truth.image_ids.tolist()]
        counts = wrong_labels(image, read.labels, np.repeat(inside, np.diff(truth.box_start)), truth.labels, len(place))
        wrong = {image_id: int(counts[place[image_id]]) for image_id in chosen}
        chosen.sort(key=lambda image_id: (-wrong[image_id], image_id))
    shown = []
    for image_id in chosen[:count]:
        pixels, _ = decode_image(images[image_id])
        if pixels is None:  # deleted in the meantime
            continue
        rows = np.flatnonzero(image == place[image_id])
        labels = [detector.categories.name_of(int(label)) for label in read.labels[rows]]
        theirs = known.get(image_id)
        shown.append(
            Shown(
                f"image {image_id}"
                + (f": {found.numbers[image_id]}" if found.numbers is not None else "")
                + (f", {wrong[image_id]} wrong" if wrong.get(image_id) else ""),
                pixels,
                boxes[rows],
                labels,
                None if theirs is None else theirs[0],
                None if theirs is None else [detector.categories.name_of(int(label)) for label in theirs[1]],
            )
        )
    write_predictions(shown, path)
