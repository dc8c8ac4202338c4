"""The error of a figure that has too little data."""

from digits_core.errors import RunError
from results.views.opened_run import OpenedRun


class NothingToDrawError(RunError):
    """A run has too little data for a figure.

    Attributes:
        reason: what is missing, without the name of the run.
    """

    def __init__(self, run: OpenedRun, reason: str) -> None:
        """Name the run and what is missing."""
        super().__init__(f"nothing to draw for run '{run.name}': {reason}")
        self.reason = reason
