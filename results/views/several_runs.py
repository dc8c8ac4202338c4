"""Several opened runs as one: which of them can be ranked together, and their leaderboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa

from digits_core.errors import RunError
from results.record.run import RunRecord
from results.verdicts.comparison import ties_of, whole_board
from results.verdicts.several_runs import Kind, joint_name, joint_record, kind_of, leader_words
from results.verdicts.verdict import Verdict
from results.views.leaderboard import SHOWN, arrow_type, parameter_columns, varying_parameters
from results.views.opened_run import OpenedRun


@dataclass(frozen=True)
class ComparedRuns:
    """Runs with the same metric and the same data.

    Attributes:
        runs: the runs by name; the names differ, also if their folders have the same name.
    """

    runs: dict[str, OpenedRun]

    @property
    def metric(self) -> str:
        """The metric of the runs."""
        return next(iter(self.runs.values())).metric

    @cached_property
    def record(self) -> RunRecord:
        """The runs as one record with trials named RUN:TRIAL."""
        return joint_record({name: run.record for name, run in self.runs.items()})

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The best configuration of all against each other one; empty if a match table is damaged."""
        folders: dict[str, Path] = {name: run.folder for name, run in self.runs.items()}
        first = next(iter(folders.values()))
        make = all(run.makes_intervals for run in self.runs.values())
        try:
            return whole_board(self.record, first, self.metric, folders=folders, make=make)
        except RunError:  # results.compare names the table
            return []

    @property
    def leader(self) -> str:
        """Which run leads and whether its lead is significant, in sentences."""
        return leader_words(self.record, list(self.runs), self.verdicts, SHOWN.get(self.metric, self.metric))

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One leaderboard of all trials, best first, with the name of the run in `run`.

        Parameters that differ between any two trials have a column; ties are those with the best of all runs.
        """
        trials = self.record.trials
        boards = []
        for name, run in self.runs.items():
            board = run.leaderboard.drop(columns=parameter_columns(run.leaderboard))
            board.index = pd.Index([joint_name(name, trial_id) for trial_id in board["trial_id"]])
            boards.append(board.assign(run=name))
        whole = pd.concat(boards).loc[[one.trial_id for one in self.record.ranked()]]
        ties = ties_of(self.record, self.verdicts)
        whole["ties_with_best"] = pd.array([ties.get(name) for name in whole.index], dtype=pd.BooleanDtype())
        for parameter in varying_parameters(list(trials.values())):
            values = pa.array([trials[name].config.get(parameter) for name in whole.index], arrow_type(parameter))
            whole[parameter] = pd.arrays.ArrowExtensionArray(values)
        return whole


def compared_runs(runs: Sequence[OpenedRun]) -> tuple[list[ComparedRuns], str | None]:
    """The runs that can be ranked together, and why others are not.

    Args:
        runs: the opened runs.

    Returns:
        A group for each metric and data that at least two of them share; and a sentence about the runs that are not
        ranked together, None if all of them are.
    """
    names = run_names(runs)
    groups: dict[Kind, dict[str, OpenedRun]] = {}
    for name, run in zip(names, runs, strict=True):
        groups.setdefault(kind_of(run.record, run.about), {})[name] = run
    if len(groups) < 2:
        return [ComparedRuns(group) for group in groups.values() if len(group) > 1], None
    metrics, prints = {kind.metric for kind in groups}, {kind.fingerprint for kind in groups}
    what = "different data" if len(prints) > 1 else "different metrics"
    what = "different data and different metrics" if len(prints) > 1 and len(metrics) > 1 else what
    telling = len({kind.data for kind in groups}) == len(groups)
    said = " | ".join(", ".join(group) + (f" ({kind.data})" if telling else "") for kind, group in groups.items())
    sentence = f"Scores of {what} are not ranked together: {said}."
    return [ComparedRuns(group) for group in groups.values() if len(group) > 1], sentence


def run_names(runs: Sequence[OpenedRun]) -> list[str]:
    """A name for each run: that of its folder; the whole path where two folders have the same name."""
    own = [run.name for run in runs]
    return [name if own.count(name) == 1 else str(run.folder) for name, run in zip(own, runs, strict=True)]
