"""Run folders with real match tables, made from drawn-up detections of any quality."""

import dataclasses
import json
import zlib

import numpy as np

from conftest import report
from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table
from digits_core.evaluation.evaluate import match_tasks
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import Truth, score
from digits_core.model.anchors import setting_digest
from results.record.log import EventWriter
from results.tables.matches import StoredMatches, matches_path, write_matches

NUM_IMAGES = 60


def annotations(num_images=NUM_IMAGES, seed=0):
    """One to three digits side by side in each image."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, 4, num_images)
    place = np.concatenate([np.arange(count) for count in counts])
    boxes = np.stack([place * 14.0, np.full(len(place), 5.0), place * 14.0 + 10, np.full(len(place), 25.0)], axis=1)
    return Table(
        image_ids=np.arange(1, num_images + 1),
        sizes=np.full((num_images, 2), 64, np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes.astype(np.float32),
        labels=generator.integers(1, 11, len(place)),
        crowds=np.zeros(len(place), bool),
    )


def detections(table, quality, seed):
    """A detector that finds and names a digit rightly with probability `quality`."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(len(table.image_ids)):
        mine = slice(table.box_start[image], table.box_start[image + 1])
        boxes, labels = table.boxes[mine], table.labels[mine]
        right = generator.random(len(labels)) < quality
        found = np.where(right, labels, labels % len(table.categories.ids) + 1)
        shifted = boxes + generator.normal(0, 0.5, boxes.shape).astype(np.float32)
        scores = generator.uniform(0.55, 0.99, len(labels)).astype(np.float32)
        rows.append((shifted.astype(np.float32), scores, found, np.ones(4, np.float32)))
    return Candidates.of_images(rows)


def strict_json(text):
    """One JSON document, in which NaN and infinity are refused."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


class Searched:
    """A run folder under construction."""

    def __init__(self, folder, *, metric="val_map", fingerprint="f" * 32, table=None, epochs=None):
        folder.mkdir(parents=True)
        self.folder, self.metric = folder, metric
        self.table = table or annotations()
        self.events = EventWriter(folder, folder.name)
        self.start(epochs)
        (folder / "run.json").write_text(json.dumps({"name": folder.name, "data": {"fingerprint": fingerprint}}))

    def start(self, epochs=None):
        """A start of the search, the first or a resume, whose trials are to train for so many epochs."""
        planned = {} if epochs is None else {"epochs": epochs}
        self.events.write("run", metric=self.metric, trials=9, resumed=self.events.record.num_drivers > 0, **planned)

    def trial(
        self,
        name,
        quality,
        *,
        seed=0,
        role="search",
        status="finished",
        epochs=2,
        baseline=None,
        confirm=None,
        matches=True,
        space="s",
        peak=None,
        like=None,
        weights=None,
        **parameters,
    ):
        """A trial with the match tables of a detector of that quality.

        Its best epoch is the last, or `peak`. With `like` it detects what the trial of that name does; `weights` are
        digests by epoch.
        """
        config = TrainConfig.from_flat({**parameters, "runtime.seed": seed})
        self.events.write(
            "trial", trial_id=name, space=space, role=role, baseline=baseline, config=config.to_flat(),
            config_hash=setting_digest(config), seed=seed, params={},
        )  # fmt: skip
        self.events.write("start", trial_id=name)
        scores = self._write(name, "val", self.table, quality, config, f"{like or name} val {seed}")
        for epoch in range(1, epochs + 1):
            part = (epochs - abs(epoch - (peak or epochs))) / epochs
            measured = dataclasses.asdict(scores)
            values = {f"val_{key}": None if value is None else value * part for key, value in measured.items()}
            more = {}
            if confirm is not None and epoch == epochs:
                draw = f"{name} confirm {seed + 77}"
                other = self._write(name, "confirm", annotations(seed=9), confirm, config, draw)
                more["confirm"] = dataclasses.asdict(other)
            if weights is not None:
                more["weights"] = weights[epoch]
            loss = 1 / epoch + seed / 1000 + quality / 100
            self.events.write("report", trial_id=name, **{**report(epoch, 0.0), **values, **more, "train_loss": loss})
        self.events.write("end", trial_id=name, status=status, reason=None)
        if not matches:
            matches_path(self.folder, name, "val").unlink()
        return scores

    def retraining(self, name, parent, *, epoch_seconds=2.0, **parameters):
        """A retraining of a trial as `digit-search retrain` records it: written after its end, without a start."""
        config = TrainConfig.from_flat({**parameters, "runtime.seed": 200_000})
        self.events.write(
            "trial", trial_id=name, space="s", role="retrain", baseline=None, config=config.to_flat(), parent=parent,
            config_hash=setting_digest(config), seed=200_000, params={}, trained_on="train",
        )  # fmt: skip
        for epoch in (1, 2):
            self.events.write("report", trial_id=name, **report(epoch, 0.5, epoch_seconds=epoch_seconds))
        self.events.write("end", trial_id=name, status="finished", reason=f"retrained from {parent}")

    def _write(self, name, part, table, quality, config, draw):
        split = _Split(table)
        found = detections(table, quality, zlib.crc32(draw.encode()))
        tasks = match_tasks(found, split, config.detect)
        truth = Truth.from_table(table)
        path = matches_path(self.folder, name, part)
        path.parent.mkdir(exist_ok=True)
        write_matches(path, StoredMatches(table.image_ids, truth, *tasks), config.detect)
        return score(*tasks, truth, config.detect)

    def done(self):
        self.events.close()
        return self.folder


class _Split:
    def __init__(self, table):
        self.table = table
