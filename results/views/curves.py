"""Data of figures over epochs, for every plotting library: lines, labels, colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.views.leaderboard import SHOWN, varying_parameters

COLORS = ("#2b83c6", "#d55e00", "#009e73", "#b8609a", "#a67c00", "#7a6fd0", "#4f9aa8", "#8a6d5b")
"""After Okabe and Ito 2008, Color universal design, adjusted for white and dark backgrounds."""

MOST_LINES = 6
"""Configurations with a line of their own: more are hard to distinguish."""

LEAST_SPAN = 0.02
"""The smallest range of a score's axis, so that small changes do not look large."""

SCORES = ("val_map", "val_digit_accuracy", "val_number_accuracy")

LABELS = {"train_loss": "training loss", "val_loss": "validation loss"} | {
    name: f"validation {SHOWN[name]}" for name in SCORES
}
"""Axis labels of the columns that are drawn over epochs."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gap:
    """The difference between training and validation in one measure; a larger gap means more overfitting.

    Attributes:
        measure: its name.
        validation: column of the validation value.
        training: column of the training value.
        sign: 1 for validation minus training, -1 for training minus validation.
        label: the difference in words.
    """

    measure: str
    validation: str
    training: str
    sign: int
    label: str


GAPS = (
    Gap("loss", "val_loss", "train_loss", 1, "validation loss − training loss"),
    Gap("mAP", "val_map", "train_map", -1, "training mAP − validation mAP"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One configuration in a figure.

    Attributes:
        label: its name in the legend.
        trials: its trainings.
    """

    label: str
    trials: tuple[TrialRecord, ...]

    def curve(self, column: str) -> tuple[list[int], Values]:
        """All epochs of the trials, and float64 [trials, epochs] of a column; NaN without a value."""
        epochs = sorted({epoch for trial in self.trials for epoch in trial.epochs})
        values = [[trial.epochs.get(epoch, {}).get(column) for epoch in epochs] for trial in self.trials]
        return epochs, np.array(values, dtype=np.float64)

    def gap(self, gap: Gap) -> tuple[list[int], Values]:
        """All epochs of the trials, and float64 [trials, epochs] of a gap; NaN without a value."""
        epochs, validation = self.curve(gap.validation)
        return epochs, gap.sign * (validation - self.curve(gap.training)[1])


def lines_of(record: RunRecord, leads: Sequence[TrialRecord], *, replicates: bool = False) -> list[Line]:
    """One line per configuration.

    Args:
        record: the run's.
        leads: the first training of each configuration.
        replicates: whether a line has all complete trainings of its configuration, or only the first one.
    """
    return [
        Line(label, trainings(record, lead.config_hash) if replicates else (lead,))
        for lead, label in zip(leads, configuration_names(leads), strict=True)
    ]


def trainings(record: RunRecord, config_hash: str) -> tuple[TrialRecord, ...]:
    """All trainings of a configuration that are finished or as long as its longest one."""
    same = [trial for trial in record.trials.values() if trial.config_hash == config_hash and trial.epochs]
    longest = max((trial.num_epochs for trial in same), default=0)
    return tuple(trial for trial in same if trial.num_epochs == longest or trial.status == "finished")


def configuration_names(leads: Sequence[TrialRecord]) -> list[str]:
    """A short name for each configuration: its trial, and its baseline or the values of parameters that vary."""
    varying = varying_parameters(list(leads)) if len(leads) > 1 else []
    found = []
    for lead in leads:
        words = lead.baseline
        if words is None:
            words = ", ".join(f"{name.rpartition('.')[2]} {short(lead.config.get(name))}" for name in varying[:3])
        found.append(f"{lead.trial_id} {words}".strip())
    return found


def configuration_colors(record: RunRecord) -> dict[str, str]:
    """The colours of the best configurations in all figures, by `config_hash`."""
    leads = [lead.config_hash for lead in record.settings() if lead.epochs]
    return dict(zip(leads[:MOST_LINES], COLORS, strict=False))


def is_measured(lines: Sequence[Line], column: str) -> bool:
    """Whether any epoch of the lines has a value in a column."""
    return any(epoch.get(column) is not None for line in lines for one in line.trials for epoch in one.epochs.values())


def gaps_of(lines: Sequence[Line]) -> list[Gap]:
    """The gaps to draw: the loss, and mAP if it was measured on training images."""
    return [gap for gap in GAPS if gap.measure == "loss" or is_measured(lines, gap.training)]


def short(value: Any) -> str:
    """A parameter's value with at most three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
