"""Published tables compared with a run that trained their rows again."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.errors import RunError, UsageError
from results.record.folder import RUN_FILE, read_run_file
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.statistics import (
    LEVEL,
    Difference,
    holm,
    mean_interval,
    paired_difference,
    pooled_variance,
    setting_difference,
    single_run_reach,
)
from results.tables.matches import matches_path, read_at, resampled_scores
from results.verdicts.comparison import Board
from results.verdicts.effort import needed
from results.verdicts.equal_models import best_weights
from results.verdicts.verdict import CORRECTED

Values = NDArray[np.float64]

MIN_FREEDOM = 5
"""Degrees of freedom of the variance over seeds that are needed to call a printed difference noise."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One row of a published table, with the scores of the run.

    Attributes:
        label: the label of the row.
        published: its printed scores by name.
        detect: thresholds at which it is scored, if they differ from those of the trials.
        config_hash: its configuration.
        trials: complete trainings of the configuration.
        values: float64 [seeds], the score of each training.
        resampled: float64 [seeds, resamples], the score of each bootstrap resample of the images.
        missing: why the run has no score for it; otherwise empty.
    """

    label: str
    published: Mapping[str, float]
    detect: Mapping[str, Any]
    config_hash: str
    trials: tuple[TrialRecord, ...]
    values: Values
    resampled: Values
    missing: str = ""

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows of one table.

    Attributes:
        first, second: the labels of the rows.
        difference: first minus second in this run; None if they are not compared.
        published: first minus second as printed; None if a score is missing.
        verdict: `real`, `noise`, `undecided` or `not compared`.
        words: the verdict as a sentence.
    """

    first: str
    second: str
    difference: Difference | None
    published: float | None
    verdict: str
    words: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one published table.

    Attributes:
        title, reading, note: as the space defines them.
        other_question: parameters by which the run asks another question, with the values here and there.
        rows: each row with the interval of its mean over seeds and images (None without a score).
        pairs: all pairs of rows.
    """

    title: str
    reading: str
    note: str
    other_question: Mapping[str, tuple[Any, Any]]
    rows: tuple[tuple[Reading, tuple[float, float] | None], ...]
    pairs: tuple[Pair, ...]


class Published:
    """The published tables of a run."""

    def __init__(self, record: RunRecord, folder: Path, metric: str) -> None:
        """Read the tables that run.json describes.

        Args:
            record: the run's.
            folder: the run folder, with its match tables.
            metric: the score to compare, for example `val_map`; also the name of the printed score.

        Raises:
            UsageError: the run's space has no published tables.
            RunError: run.json is damaged.
        """
        tree = read_run_file(folder)
        self.record, self.folder, self.metric = record, folder, metric
        self.board = Board(record, folder, metric)
        self._tables = tree.get("tables") or []
        if not self._tables:
            raise UsageError(
                f"--by table: the space of run '{record.run}' has no published tables; reports and reports_tiny have"
            )
        try:
            settings = tree["settings"]
            searched = sum(trial.role == "search" for trial in record.trials.values())
            everything = settings["replicates"] == 1 or settings["replicate_top"] >= searched
            # If all configurations are trained equally often, none is selected by its first training, so it counts too.
            self.first_counts = settings["scheduler"] == "none" and everything
            base = tree["base_config"]
            self.measured_with = {
                parameter: (base[parameter], value)
                for parameter, value in tree.get("tables_measured_with", {}).items()
                if base[parameter] != value
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None

    def trainings(self, config_hash: str) -> list[TrialRecord]:
        """The complete trainings of a configuration that count as replicates and have match tables."""
        roles = ("search", "replicate", "confirm") if self.first_counts else ("replicate", "confirm")
        found = [
            trial
            for _, trial in sorted(self.record.trials.items())
            if trial.config_hash == config_hash
            and trial.status == "finished"
            and trial.role in roles
            and (trial.best(self.record.metric) or {}).get(self.metric) is not None
            and matches_path(self.folder, trial.trial_id, "val").is_file()
        ]
        return list({trial.seed: trial for trial in reversed(found)}.values())[::-1]

    def answers(self) -> list[Answer]:
        """The result for each table, with Holm's correction over all tables of one reading."""
        found = []
        for reading in dict.fromkeys(table["reading"] for table in self._tables):
            tables = [table for table in self._tables if table["reading"] == reading]
            rows = [[self._row(row) for row in table["rows"]] for table in tables]
            spread = spread_of([row for some in rows for row in some])
            compared = [[self._differ(*pair, spread) for pair in itertools.combinations(some, 2)] for some in rows]
            raw = [one.p for some in compared for one in some if isinstance(one, Difference)]
            corrected = iter(holm(raw).tolist())
            for table, some, differences in zip(tables, rows, compared, strict=True):
                other = {name: (ours, theirs) for name, (ours, theirs) in table["other_question"].items()}
                pairs = []
                for pair, one in zip(itertools.combinations(some, 2), differences, strict=True):
                    p = next(corrected) if isinstance(one, Difference) else 1.0
                    pairs.append(self._judge(*pair, one, p, len(raw), spread, bool(other)))
                with_ends = [
                    (row, mean_interval(row.values.tolist(), row.resampled, self.board.sample, *spread))
                    if len(row.values)
                    else (row, None)
                    for row in some
                ]
                found.append(Answer(table["title"], reading, table["note"], other, tuple(with_ends), tuple(pairs)))
        return found

    @cached_property
    def spread(self) -> tuple[float, int]:
        """Pooled variance over seeds at the thresholds of the trials, and its degrees of freedom."""
        rows = [row for table in self._tables for row in table["rows"]]
        return spread_of([self._row({**row, "detect": {}}) for row in rows])

    def _row(self, row: Mapping[str, Any]) -> Reading:
        known = row["label"], row["published"], row["detect"], row["config_hash"]
        trials = self.trainings(row["config_hash"])
        try:
            read = [self._read(trial, row["detect"]) for trial in trials]
        except RunError as error:
            return Reading(*known, (), np.empty(0), np.empty((0, 0)), str(error))
        if not read:
            missing = f"{row['label']} has no complete training that counts"
            return Reading(*known, (), np.empty(0), np.empty((0, 0)), missing)
        values = np.array([value for value, _ in read])
        return Reading(*known, tuple(trials), values, np.stack([some for _, some in read]))

    def _read(self, trial: TrialRecord, detect: Mapping[str, Any]) -> tuple[float, Values]:
        """The score of a trial at some thresholds, and its bootstrap scores."""
        name = self.metric.removeprefix("val_")
        if any(trial.config.get(parameter) != value for parameter, value in detect.items()):
            scores, resampled = read_at(self.folder, trial.trial_id, trial.config, detect)
            return float(getattr(scores, name) or 0.0), resampled[name]
        best = trial.best(self.record.metric) or {}
        resampled = resampled_scores(self.folder, trial.trial_id, trial.config, epoch=best.get("epoch"))
        return float(best[self.metric]), resampled[name]

    def _differ(self, first: Reading, second: Reading, spread: tuple[float, int]) -> Difference | str:
        """The difference of two rows, or why they are not compared."""
        if first.missing or second.missing:
            return f"not compared: {first.missing or second.missing}"
        if first.config_hash == second.config_hash:
            if first.detect == second.detect:
                return ONE_SETTING
            if np.array_equal(first.resampled, second.resampled):
                return f"not compared: one configuration, and the thresholds have no effect on {self.metric}"
            if len(first.values) < 2:
                return "not compared: only one training; add replicates with --replicates 3"
            return paired_difference(
                (first.values - second.values).tolist(), first.resampled - second.resampled, self.board.sample
            )
        if same_models(first, second, self.record.metric):
            return ONE_MODEL
        variance, freedom = spread
        if not freedom:
            return (
                "not compared: no configuration has replicates, so the variance over seeds is unknown (--replicates 3)"
            )
        return setting_difference(
            first.values.tolist(),
            second.values.tolist(),
            first.resampled,
            second.resampled,
            self.board.sample,
            variance,
            freedom,
        )

    def _judge(
        self,
        first: Reading,
        second: Reading,
        one: Difference | str,
        p: float,
        family: int,
        spread: tuple[float, int],
        other_question: bool,
    ) -> Pair:
        printed = [row.published.get(self.metric) for row in (first, second)]
        theirs = None if None in printed or other_question else float(printed[0] or 0) - float(printed[1] or 0)
        luck = luck_of(spread)
        size = "" if theirs is None else f"the printed {abs(theirs):.4f}"
        if isinstance(one, str):
            verdict, words = "not compared", one
            if one == ONE_SETTING:
                verdict, words = "noise", "noise: one configuration, trained twice"
                words += f"; {size} comes from the seeds" if size else ""
                words += f", which alone make differences up to {luck:.4f} here" if size and luck is not None else ""
            elif one == ONE_MODEL:
                verdict, words = (
                    "noise",
                    "noise: the weights at the best epoch are the same for each seed; the parameter had no effect",
                )
            return Pair(first.label, second.label, None, theirs, verdict, words)
        reach = f"{one.estimate:+.3f} [{one.low:.3f}, {one.high:.3f}]"
        if p < 1 - LEVEL:
            better, shown = (first, one) if one.estimate >= 0 else (second, one.swapped())
            verdict = "real"
            words = f"real: {better.label} is better by {shown.estimate:+.3f} [{shown.low:.3f}, {shown.high:.3f}]"
            if theirs is not None and theirs * one.estimate < 0:
                words += f"; in the report the other one is better, by {abs(theirs):.4f}"
        elif (
            theirs is not None
            and luck is not None
            and abs(theirs) <= luck
            and one.p >= 1 - LEVEL
            and one.high - one.low <= 4 * luck
        ):
            verdict = "noise"
            words = (
                f"noise: {size} is within {luck:.4f}, the difference that seeds alone make between two trainings here; "
                f"this run: {reach}"
            )
        else:
            after = f" {CORRECTED}" if one.p < 1 - LEVEL else ""
            verdict, words = "undecided", f"undecided{after}: {reach}; {needed(one, self.board.sample, family)}"
        return Pair(first.label, second.label, one, theirs, verdict, words)


ONE_SETTING, ONE_MODEL = "one setting", "one model"


def spread_of(rows: Sequence[Reading]) -> tuple[float, int]:
    """Pooled variance over seeds within configurations, each counted once, and its degrees of freedom."""
    settings = {row.config_hash: tuple(row.values.tolist()) for row in reversed(rows) if not row.missing}
    return pooled_variance(list(dict.fromkeys(settings.values())))  # equal models count once


def luck_of(spread: tuple[float, int]) -> float | None:
    """The largest difference (95 %) that seeds alone make between two trainings; None with too few trainings."""
    variance, freedom = spread
    return single_run_reach(variance, freedom) if freedom >= MIN_FREEDOM else None


def same_models(first: Reading, second: Reading, metric: str) -> bool:
    """Whether two configurations have the same weights and score at their best epochs, for every shared seed."""
    ours, theirs = (
        {
            trial.seed: (best_weights(trial, metric), value)
            for trial, value in zip(row.trials, row.values.tolist(), strict=True)
        }
        for row in (first, second)
    )
    shared = ours.keys() & theirs.keys()
    return bool(shared) and all(ours[seed][0] is not None and ours[seed] == theirs[seed] for seed in shared)
