"""The independent check of a run's best trial: its mAP by torchmetrics."""

from pathlib import Path

from digits_core.command import version_of
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from digits_core.evaluation.independent import torchmetrics_map
from results.record.log import EventWriter
from results.tables.matches import StoredMatches, matches_path, read_matches


def check_best(folder: Path, events: EventWriter) -> None:
    """Score the stored detections of the best trial with torchmetrics and record the result.

    Does nothing if there is no score, no match table with annotated boxes, or the same check is recorded already.
    """
    best = events.record.winner()
    epoch = None if best is None else best.best_epoch(events.record.metric)
    if best is None or epoch is None or (best.checked is not None and best.checked.epoch == epoch):
        return
    try:
        stored = read_matches(matches_path(folder, best.trial_id, "val"), epoch)
    except RunError:  # the commands that show scores report damaged tables
        return
    record_check(events, best.trial_id, epoch, stored, TrainConfig.from_flat(best.config))


def record_check(events: EventWriter, trial_id: str, epoch: int, stored: StoredMatches, config: TrainConfig) -> None:
    """Record the mAP of some detections by torchmetrics, where it can be computed."""
    value = torchmetrics_map(stored.task1, stored.truth, config.detect)
    if value is not None:
        by = f"torchmetrics {version_of('torchmetrics')}"
        events.write("checked", trial_id=trial_id, epoch=epoch, map=value, by=by)
