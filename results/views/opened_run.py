"""A run folder opened for reading: its record, tables and run.json."""

import html
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, printable
from digits_core.labels import DIGITS
from results.record.folder import find_run, read_record_of, read_run_file
from results.record.lock import writer_of
from results.record.run import RunRecord
from results.record.schema import ENDED
from results.views.leaderboard import SHOWN, epochs_table, leaderboard_table, parameter_columns
from results.views.note import read_note, read_tags

REPR_ROWS = 10

MOST_LETTERS = 10
"""Length of a category's name in figures."""


@dataclass(frozen=True, repr=False)
class OpenedRun:
    """One run at the time of opening.

    Attributes:
        folder: the run folder.
        record: the record of its events.
        about: the content of `run.json`.
        read_only: whether missing intervals are not computed, because they would be stored in the run folder.
    """

    folder: Path
    record: RunRecord
    about: dict[str, Any]
    read_only: bool = False

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.record.run

    @property
    def metric(self) -> str:
        """The metric that the search maximises."""
        return self.record.metric

    @property
    def note(self) -> str | None:
        """The note of the run, as `digit-search runs --note` stores it; None without one."""
        return read_note(self.folder)

    @property
    def tags(self) -> list[str]:
        """The tags of the run, as `digit-search runs --tag` stores them."""
        return read_tags(self.folder)

    @property
    def live(self) -> bool:
        """Whether a process is writing the run."""
        return writer_of(self.folder) is not None

    @property
    def makes_intervals(self) -> bool:
        """Whether missing intervals are computed and stored: not while a process writes the run."""
        return not (self.read_only or self.live)

    def without_writing(self) -> "OpenedRun":
        """The same run, whose reading writes nothing into its folder."""
        return replace(self, read_only=True)

    @property
    def ended(self) -> bool:
        """Whether no process writes the run and every trial has ended."""
        return not self.live and all(trial.status in ENDED for trial in self.record.trials.values())

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard, best first, as from `read_leaderboard`; no new intervals while a process writes the run."""
        table = leaderboard_table(self.record, self.folder, make=self.makes_intervals)
        frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""
        frame: pd.DataFrame = epochs_table(self.record).to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    @property
    def best(self) -> dict[str, Any] | None:
        """The flat config of the winner with its own thresholds; None before the first score."""
        winner = self.record.winner()
        return None if winner is None else dict(winner.config)

    def __fspath__(self) -> str:
        """The path of the run folder, so that an opened run can be given wherever a path can."""
        return str(self.folder)

    def __repr__(self) -> str:
        """One line about the run."""
        winner = self.record.winner()
        trials = sum(trial.role != "retrain" for trial in self.record.trials.values())
        if winner is None:
            return f"<run {self.name}: {trials} trials, no score yet>"
        score = f"{SHOWN.get(self.metric, self.metric)} {self.record.standing(winner) or 0:.2f}"
        return f"<run {self.name}: {trials} trials, best {winner.trial_id} with {score}>"

    def _repr_html_(self) -> str:
        """The best configurations as an HTML table for notebooks."""
        shown = self.leaderboard[self.leaderboard["role"] == "search"]
        metric, parameters = self.metric, parameter_columns(shown)
        columns = ["trial_id", metric, f"{metric}_low", f"{metric}_high", "val_number_accuracy", "status", *parameters]
        table = shown[list(dict.fromkeys(columns))].head(REPR_ROWS)
        return f"<p>{html.escape(repr(self))}</p>{table.to_html(index=False, float_format='{:.3f}'.format, border=0)}"

    @cached_property
    def base(self) -> TrainConfig:
        """The default configuration: that of the default trial, otherwise `base_config` of run.json."""
        default = next((one for one in self.record.trials.values() if one.baseline == "default"), None)
        flat = self.about.get("base_config") if default is None else default.config
        try:
            return TrainConfig.from_flat(flat if isinstance(flat, dict) else {})
        except ConfigError:  # of another version
            return TrainConfig()

    @cached_property
    def categories(self) -> list[str]:
        """Names of the labels 1, 2, ..."""
        data = self.about.get("data")
        named = data.get("categories") if isinstance(data, dict) else None
        return [str(name) for name in named.values()] if isinstance(named, dict) and named else list(DIGITS.names)

    def category_in_full(self, label: int) -> str:
        """The name of a label; the number of a label without a name."""
        return printable(self.categories[label - 1]) if 0 < label <= len(self.categories) else str(label)

    def category_name(self, label: int) -> str:
        """The name of a label, shortened for figures."""
        name = self.category_in_full(label)
        return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def open_run(run: "str | PathLike[str] | OpenedRun") -> OpenedRun:
    """Open a run folder.

    Args:
        run: the name of a run in `runs/`, or the path of a run folder; an opened run is returned unchanged.

    Raises:
        RunError: it is not a run, or its files are damaged.
    """
    if isinstance(run, OpenedRun):
        return run
    folder = find_run(run)
    return OpenedRun(folder, read_record_of(folder), read_run_file(folder))
