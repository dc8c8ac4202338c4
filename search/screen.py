"""The anchor screen: settings whose anchors miss the digits are seen before anything is trained."""

from digits_core.anchors import Coverage, coverage
from digits_core.coco import Table
from digits_core.config import TrainConfig

MARGIN = 0.15
"""A setting is screened when its anchors' mean best IoU lies further than this under the best baseline's. Among 24
settings each on drawn and on real data, none of those was among the best third (docs/statistics.md)."""


class Screen:
    """Measures how anchors cover the training boxes; remembers the best baseline.

    Attributes:
        active: whether it has a say in what is trained.
    """

    def __init__(self, table: Table, *, active: bool, best_baseline: float | None = None) -> None:
        """Look at a training split.

        Args:
            table: its annotations.
            active: whether settings are screened; measured they are in any case.
            best_baseline: the best mean IoU of the baselines that an earlier driver looked at.
        """
        self._table, self.active, self._best_baseline = table, active, best_baseline

    def measure(self, config: TrainConfig) -> Coverage:
        """How the anchors of one setting cover the training boxes."""
        return coverage(config.model, self._table)

    def look(self, config: TrainConfig, *, baseline: bool) -> tuple[Coverage, str | None]:
        """The coverage of one setting, and why it is not worth a training; None when it is, as baselines always are."""
        found = self.measure(config)
        if baseline:
            self._best_baseline = max(self._best_baseline or 0.0, found.mean_iou)
            return found, None
        if self.active and self._best_baseline is not None and found.mean_iou < self._best_baseline - MARGIN:
            return found, (
                f"screen: its anchors overlap the training digits by a mean IoU of {found.mean_iou:.2f}, the best "
                f"baseline's by {self._best_baseline:.2f}"
            )
        return found, None
