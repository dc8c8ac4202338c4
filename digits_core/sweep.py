"""Settings that act after training, each scored on the same raw detections: nothing is trained twice."""

from collections.abc import Iterable
from dataclasses import dataclass

from digits_core.cache import Split
from digits_core.config import DetectConfig
from digits_core.detect import RawDetections, keep
from digits_core.evaluate import number_accuracy, score_boxes


@dataclass(frozen=True, slots=True)
class SweepRow:
    """Scores at one pair of NMS and score thresholds, one pair per task.

    Attributes:
        detect: the setting.
        map, map_50: COCO AP at Task 1's thresholds.
        number_accuracy: numbers read right at Task 2's thresholds.
    """

    detect: DetectConfig
    map: float | None
    map_50: float | None
    number_accuracy: float | None


def sweep(raw: list[RawDetections], split: Split, settings: Iterable[DetectConfig]) -> list[SweepRow]:
    """Score every setting on one set of raw detections.

    Args:
        raw: raw detections of each image of the split, cut at a floor no higher than any setting's score.
        split: the annotated images.
        settings: what to score, in this order.
    """
    rows = []
    for detect in settings:
        boxes = score_boxes([keep(one, detect.task1) for one in raw], split, detect.task1)
        rows.append(SweepRow(detect, boxes[0], boxes[1], number_accuracy(raw, split, detect.task2)))
    return rows


def best_of(rows: list[SweepRow], score: str) -> SweepRow | None:
    """The row with the highest `map` or `number_accuracy`, the first of equals; None without a score."""
    scored = [row for row in rows if getattr(row, score) is not None]
    return max(scored, key=lambda row: float(getattr(row, score)), default=None)
