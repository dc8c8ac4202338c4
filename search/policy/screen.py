"""The anchor screen: finds configurations whose anchors do not fit the digits, before they are trained."""

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table
from digits_core.model.anchors import Coverage, coverage

MARGIN = 0.15
"""A configuration is screened out when the mean best IoU of its anchors is lower than that of the best baseline by
more than this. Of 24 configurations on drawn data and 24 on real data, none of the screened ones was in the best third
(docs/statistics.md)."""


class Screen:
    """Measures how anchors cover the training boxes.

    Attributes:
        active: whether configurations are screened out; they are measured in both cases.
    """

    def __init__(self, table: Table, *, active: bool) -> None:
        """Use the annotations of a training split."""
        self._table, self.active = table, active

    def measure(self, config: TrainConfig) -> Coverage:
        """How the anchors of a configuration cover the training boxes."""
        return coverage(config.model, self._table)

    def look(self, config: TrainConfig, best_baseline: float | None) -> tuple[Coverage, str | None]:
        """The anchor coverage of a configuration, and why it is screened out; None if it is not.

        Args:
            config: the configuration.
            best_baseline: the best mean IoU among the baselines; None never screens, as for a baseline itself.
        """
        found = self.measure(config)
        if self.active and best_baseline is not None and found.mean_iou < best_baseline - MARGIN:
            return found, (
                f"screen: its anchors overlap the training digits by a mean IoU of {found.mean_iou:.2f}, the best "
                f"baseline's by {best_baseline:.2f}"
            )
        return found, None
