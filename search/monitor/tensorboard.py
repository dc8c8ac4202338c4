"""Writes TensorBoard files: scalars of every epoch, hyperparameters with their score, predictions."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.parameter import Flat
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from results.record.folder import TENSORBOARD
from results.record.run import RunRecord
from results.record.schema import ENDED, EPOCH_NUMBERS
from results.record.trial import TrialRecord
from results.tables.matches import matches_path, read_matches
from results.tables.samples import SampleImage, read_samples

PICTURE_PX = 160
"""Side of a sample image in the sheet of predictions."""

COLUMNS = 4

TRUTH, FOUND = (43, 131, 198), (213, 94, 0)
"""RGB colours of annotated and of detected boxes."""


class TensorBoard:
    """Writes `tensorboard/TRIAL/` in the run folder."""

    def __init__(self, folder: Path, base: Flat, metric: str) -> None:
        """Write for a run; `base` is the config that configurations change, `metric` the metric to maximise."""
        self._folder, self._base, self._metric = folder, base, metric
        self._writers: dict[str, Any] = {}
        self._done: dict[str, int] = {}
        self._begun = datetime.now(UTC)

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed."""
        trial = record.trials[trial_id]
        done = self._done.get(trial_id)
        if done is None:  # an earlier driver may have written some epochs
            done = self._done[trial_id] = self._written(trial)
        news = [one for epoch, one in sorted(trial.epochs.items()) if epoch > done]
        if not news and not (trial.status in ENDED and trial_id in self._writers):
            return
        writer = self._writer(trial_id)
        for one in news:
            for name in EPOCH_NUMBERS:
                value = one.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    writer.add_scalar(_tag(name), float(value), one["epoch"], walltime=one["reported_at"].timestamp())
        self._done[trial_id] = max(done, trial.num_epochs)
        if trial.status in ENDED:
            self._end(writer, trial)
            writer.close()
            del self._writers[trial_id]
        else:
            writer.flush()

    def close(self, record: RunRecord) -> None:
        """The search has ended."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, trial_id: str) -> Any:
        from tensorboardX import SummaryWriter

        if trial_id not in self._writers:
            self._writers[trial_id] = SummaryWriter(
                str(self._folder / TENSORBOARD / trial_id),
                flush_secs=10,
                filename_suffix=f".{time.time_ns()}",  # else two drivers of the same second share a file
            )
        return self._writers[trial_id]

    def _written(self, trial: TrialRecord) -> int:
        """The last epoch of a trial that an earlier driver has written, or 0."""
        if not any((self._folder / TENSORBOARD / trial.trial_id).glob("events.*")):
            return 0
        return max((epoch for epoch, one in trial.epochs.items() if one["reported_at"] < self._begun), default=0)

    def _end(self, writer: Any, trial: TrialRecord) -> None:
        from tensorboardX.summary import hparams

        best = trial.best(self._metric)
        changed = {
            name: "none" if value is None else value
            for name, value in trial.config.items()
            if name in self._base and not name.startswith("runtime.")
        }
        varied = {name: value for name, value in changed.items() if value != self._base[name]} or {"setting": "default"}
        if best is not None:
            for summary in hparams({**varied, "status": trial.status}, {f"best/{self._metric}": 0.0}):
                writer.file_writer.add_summary(summary)
            writer.add_scalar(f"best/{self._metric}", float(best[self._metric]), best["epoch"])
            sheet = predictions_sheet(self._folder, trial, best["epoch"])
            if sheet is not None:
                writer.add_image("predictions", sheet, best["epoch"], dataformats="HWC")


def predictions_sheet(folder: Path, trial: TrialRecord, epoch: int | None = None) -> NDArray[np.uint8] | None:
    """The run's sample images with annotated boxes (blue) and the boxes that a trial detects (orange).

    Returns:
        uint8 [height, width, 3]; None if the trial has no match table or the run no sample images.
    """
    from PIL import Image

    try:
        stored = read_matches(matches_path(folder, trial.trial_id, "val"), epoch)
        samples = read_samples(folder)
    except RunError:
        return None
    task2 = TrainConfig.from_flat(trial.config).detect.task2
    kept = stored.task2.above(task2.score, task2.max_detections)
    places = {int(image_id): number for number, image_id in enumerate(stored.image_ids)}
    shown = [one for one in samples if one.image_id in places]
    if not shown:
        return None
    sheet = Image.new("RGB", (COLUMNS * PICTURE_PX, -(-len(shown) // COLUMNS) * PICTURE_PX))
    for number, sample in enumerate(shown):
        mine = kept.select(kept.image == places[sample.image_id])
        place = (number % COLUMNS * PICTURE_PX, number // COLUMNS * PICTURE_PX)
        sheet.paste(_picture(sample, mine.boxes, mine.labels), place)
    return np.asarray(sheet)


def _picture(sample: SampleImage, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> Any:
    """One scaled image; annotated labels are in the upper left corners of their boxes, detected ones in the lower."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(sample.pixels)
    scale = PICTURE_PX / max(sample.size)
    picture = picture.resize([max(round(side * scale), 1) for side in sample.size])
    draw = ImageDraw.Draw(picture)
    for some, names, color, low in ((sample.boxes, sample.labels, TRUTH, False), (boxes, labels, FOUND, True)):
        for (x_min, y_min, x_max, y_max), label in zip((some * scale).tolist(), names.tolist(), strict=True):
            draw.rectangle((x_min, y_min, max(x_min, x_max), max(y_min, y_max)), outline=color, width=2)
            draw.text((x_min + 3, y_max - 12 if low else y_min + 2), str(label - 1), fill=color)
    return picture


def _tag(name: str) -> str:
    """The tag of a number; TensorBoard groups tags by the part before the slash."""
    for group in ("val", "train", "loss"):
        if name.startswith(f"{group}_"):
            return f"{group}/{name.removeprefix(f'{group}_')}"
    return f"speed/{name}" if name.endswith(("_seconds", "_second", "_bytes")) else f"optim/{name}"
