"""The anchor screen: settings whose anchors miss the digits are seen before anything is trained."""

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table
from digits_core.model.anchors import Coverage, coverage

MARGIN = 0.15
"""A setting is screened when its anchors' mean best IoU lies further than this under the best baseline's. Among 24
settings each on drawn and on real data, none of those was among the best third (docs/statistics.md)."""


class Screen:
    """Measures how anchors cover the training boxes.

    Attributes:
        active: whether settings are screened; measured they are in any case.
    """

    def __init__(self, table: Table, *, active: bool) -> None:
        """Look at the annotations of a training split."""
        self._table, self.active = table, active

    def measure(self, config: TrainConfig) -> Coverage:
        """How the anchors of one setting cover the training boxes."""
        return coverage(config.model, self._table)

    def look(self, config: TrainConfig, best_baseline: float | None) -> tuple[Coverage, str | None]:
        """The coverage of one setting, and why it is not worth a training; None when it is.

        Args:
            config: the setting.
            best_baseline: the best mean IoU among the baselines; None screens nothing, as for a baseline itself.
        """
        found = self.measure(config)
        if self.active and best_baseline is not None and found.mean_iou < best_baseline - MARGIN:
            return found, (
                f"screen: its anchors overlap the training digits by a mean IoU of {found.mean_iou:.2f}, the best "
                f"baseline's by {best_baseline:.2f}"
            )
        return found, None
