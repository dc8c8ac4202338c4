"""Predictions and annotations of the winner: the worst images and a sample."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from digits_core.evaluation.transcribe import read_number
from results.page.panels import NO_SCORE, no_table_words
from results.tables.matches import StoredMatches, matches_path, read_matches
from results.tables.samples import SampleImage, predictions_on, read_misses, read_samples, worst_images
from results.views.opened_run import OpenedRun

MAX_SIDE_PX = 280
"""Longest side of an image on the page."""

JPEG_QUALITY = 80


def gallery_of(run: OpenedRun) -> dict[str, Any]:
    """Images in two groups, `misses` and `samples`; or `why_not`, a sentence."""
    nothing: dict[str, Any] = {"misses": [], "samples": [], "trial": None, "num_wrong": 0, "num_images": 0}
    winner = run.record.winner()
    if winner is None:
        return {"why_not": NO_SCORE, **nothing}
    path = matches_path(run.folder, winner.trial_id, "val")
    if not path.is_file():
        return {"why_not": no_table_words(winner.trial_id), **nothing}
    try:
        stored = read_matches(path, winner.best_epoch(run.record.metric))
        samples = read_samples(run.folder)
        misses, whose = read_misses(run.folder)
    except RunError as error:  # not written yet, or by an older version
        return {"why_not": f"{error}.", **nothing}
    worst, wrong = worst_images(stored, winner.config)
    return {
        "why_not": "",
        "misses": _pictures(run, misses, stored, wrong) if whose == winner.trial_id else [],
        "samples": _pictures(run, samples, stored, wrong),
        "trial": winner.trial_id,
        "num_wrong": len(worst),
        "num_images": stored.truth.num_images,
        "score": TrainConfig.from_flat(winner.config).detect.task2.score,
    }


def _pictures(
    run: OpenedRun, samples: Sequence[SampleImage], stored: StoredMatches, wrong: NDArray[np.int64]
) -> list[dict[str, Any]]:
    winner = run.record.winner()
    detect = TrainConfig.from_flat({} if winner is None else winner.config).detect
    found = []
    for one in predictions_on(samples, stored, {} if winner is None else winner.config):
        sample = one.sample
        found.append(
            {
                "image_id": sample.image_id,
                "width": sample.size[0],
                "height": sample.size[1],
                "jpeg": _jpeg(sample.pixels),
                "truth": _boxes(run, sample.boxes, sample.labels),
                "found": _boxes(run, one.boxes, one.labels, one.scores),
                "wrong": int(wrong[one.place]),
                "annotated": read_number(sample.boxes, sample.labels, detect.reading) if stored.truth.numbers else None,
                "read": read_number(one.boxes, one.labels, detect.reading) if stored.truth.numbers else None,
                "line": max(sample.size) / 140,
            }
        )
    return found


def _boxes(
    run: OpenedRun,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    scores: NDArray[np.float32] | None = None,
) -> list[dict[str, Any]]:
    found = []
    for number, (x_min, y_min, x_max, y_max) in enumerate(boxes.astype(float).tolist()):
        found.append(
            {
                "x": round(x_min, 1),
                "y": round(y_min, 1),
                "width": round(x_max - x_min, 1),
                "height": round(y_max - y_min, 1),
                "label": run.category_name(int(labels[number])),
                "score": None if scores is None else f"{float(scores[number]):.2f}",
            }
        )
    return found


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(out.getvalue()).decode()
