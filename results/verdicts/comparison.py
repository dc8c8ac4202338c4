"""Comparisons of the trials and configurations of a run."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.record.lengths import Varied, length_of, unequal_words, varied_lengths
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.statistics import (
    ROUNDING,
    Difference,
    holm,
    image_error,
    image_p_values,
    model_difference,
    pooled_variance,
    setting_difference,
)
from results.tables.matches import count_images, matches_path, resampled_scores, sample_size
from results.verdicts.equal_models import best_weights, differing_parameters
from results.verdicts.verdict import Level, Verdict, judge, refuse

MIN_GROUP = 4
"""Minimum number of configurations in each group: with fewer, their variance is not known well enough."""


class Board:
    """The trials of a run with their scores on one split, for comparisons."""

    def __init__(
        self,
        record: RunRecord,
        folder: Path,
        metric: str,
        part: str = "val",
        *,
        folders: Mapping[str, Path] | None = None,
        make: bool = True,
    ) -> None:
        """Select a run and a score.

        Args:
            record: the run's.
            folder: the run folder, with its match tables.
            metric: `val_map` or another score; with `part="confirm"`, the same score on the confirmation images.
            part: `val` or `confirm`.
            folders: maps each run to its folder if several runs are compared and trials are named RUN:TRIAL.
            make: whether to compute missing bootstraps; if False, trials without one are not compared.
        """
        self.record, self.folder, self.metric, self.part = record, folder, metric, part
        self._folders, self._make = dict(folders or {}), make
        self._score = metric.removeprefix("val_")

    def point(self, trial: TrialRecord) -> float | None:
        """The score at the trial's best epoch."""
        if self.part == "confirm":
            return trial.confirm.get(self._score)
        best = trial.best(self.record.metric)
        return None if best is None else best.get(self.metric)

    def resampled(self, trial: TrialRecord) -> NDArray[np.float64] | None:
        """The score of each bootstrap resample of the images; None without match tables."""
        folder, name = self._place(trial)
        epoch = trial.best_epoch(self.record.metric)
        return resampled_scores(folder, name, trial.config, self.part, epoch=epoch, make=self._make).get(self._score)

    def measured(self, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials that have a score and a match table."""
        return [trial for trial in trials if self.point(trial) is not None and self.resampled(trial) is not None]

    def fresh(self, trial: TrialRecord) -> list[TrialRecord]:
        """The replicates of a trial's configuration that have a score and a match table here."""
        return self._fresh.get(trial.config_hash, [])

    @cached_property
    def _fresh(self) -> dict[str, list[TrialRecord]]:
        roles = ("confirm",) if self.part == "confirm" else ("search", "replicate", "confirm")
        return {
            digest: self.measured([trial for trial in trials if trial.role in roles])
            for digest, trials in self.record.fresh_seeds().items()
        }

    @cached_property
    def _varied(self) -> Varied:
        return varied_lengths(self.record.trials.values())

    @property
    def seed_variance(self) -> tuple[float, int]:
        """Variance over seeds and its degrees of freedom, for the training length with the most replicates."""
        return max(self._seed_variances.values(), key=lambda one: one[1], default=(0.0, 0))

    def seed_variance_of(self, trial: TrialRecord) -> tuple[float, int]:
        """The same, over configurations that are trained as long as `trial`."""
        return self._seed_variances.get(length_of(trial, self._varied), (0.0, 0))

    @cached_property
    def _seed_variances(self) -> dict[tuple[Any, ...], tuple[float, int]]:
        groups: dict[tuple[Any, ...], list[list[float]]] = {}
        for group in self._fresh.values():
            for one in group[:1]:
                groups.setdefault(length_of(one, self._varied), []).append([self._point(seed) for seed in group])
        return {length: pooled_variance(some) for length, some in groups.items()}

    @cached_property
    def num_images(self) -> int:
        """Number of images of the split."""
        path = self._some_matches
        return 0 if path is None else count_images(path)

    @cached_property
    def sample(self) -> int:
        """Number of images of the split that count for the score."""
        path = self._some_matches
        return 1 if path is None else sample_size(path, self._score)

    @cached_property
    def _some_matches(self) -> Path | None:
        paths = (matches_path(*self._place(trial), self.part) for trial in self.record.trials.values())
        return next((path for path in paths if path.is_file()), None)

    def compare(self, first: TrialRecord, second: TrialRecord) -> Verdict:
        """Compare two trials: as configurations if both have replicates, otherwise as trained models."""
        names = first.trial_id, second.trial_id
        if first.config_hash == second.config_hash:
            same = "not compared: two trainings of one configuration, they differ only by their seeds"
            return refuse(*names, "models", same)
        fresh = [self.fresh(one) if one.role == "search" else [] for one in (first, second)]
        settings = all(fresh) and self.seed_variance_of(first)[1] > 0
        level: Level = "settings" if settings or self.part == "confirm" else "models"
        reason = self.unequal(first, second) if level == "settings" else self.incomparable(first, second)
        if reason is None and level == "settings" and not settings:
            reason = "not compared: fewer than two confirming replicates"
        if reason is not None:
            return refuse(*names, level, reason)
        sides = fresh if settings else [[first], [second]]
        if self._same_models(*sides):
            return Verdict(*names, level, None, 1.0, self._equal_words(*sides))
        if settings:
            return judge(*names, level, self._of(sides[0], sides[1], self.seed_variance_of(first)), self.sample)
        difference = model_difference(
            self._point(first), self._point(second), self._resampled(first), self._resampled(second), self.sample
        )
        return judge(*names, level, difference, self.sample)

    def compare_groups(
        self,
        first: str,
        firsts: Sequence[TrialRecord],
        second: str,
        seconds: Sequence[TrialRecord],
        spread: tuple[float, int],
    ) -> Verdict:
        """Compare two groups of configurations by the mean of their replicates, or by their single training.

        Args:
            first: name of one group.
            firsts: the first training of each of its configurations.
            second: name of the other group.
            seconds: the first training of each of its configurations.
            spread: variance between the configurations of a group, and its degrees of freedom.
        """
        if len(firsts) == len(seconds) == 1:
            verdict = self.compare(firsts[0], seconds[0])
            words = verdict.words.replace(firsts[0].trial_id, first).replace(seconds[0].trial_id, second)
            return replace(verdict, first=first, second=second, words=words)
        reason = next(filter(None, (self.unequal(firsts[0], one) for one in [*firsts, *seconds])), None)
        if reason is not None:
            return refuse(first, second, "groups", reason)
        trained = [[self.fresh(one) or [one] for one in group] for group in (firsts, seconds)]
        if self._same_models(*(list(itertools.chain(*some)) for some in trained)):
            twin = next((some for some in trained[1] if self._same_models(trained[0][0], some)), trained[1][0])
            return Verdict(first, second, "groups", None, 1.0, self._equal_words(trained[0][0], twin, groups=True))
        values = [[self.setting_value(one) for one in group] for group in (firsts, seconds)]
        if min(map(len, values)) < MIN_GROUP:
            counts, means = [len(one) for one in values], [float(np.mean(one)) for one in values]
            words = (
                f"too few trials: {counts[0]} and {counts[1]}, at least {MIN_GROUP} of each are needed "
                f"(means {means[0]:.3f} and {means[1]:.3f})"
            )
            return refuse(first, second, "groups", words)
        resampled = [np.stack([self._setting_resampled(one) for one in group]) for group in (firsts, seconds)]
        difference = setting_difference(values[0], values[1], resampled[0], resampled[1], self.sample, *spread)
        return judge(first, second, "groups", difference, self.sample)

    def setting_value(self, trial: TrialRecord) -> float:
        """The mean score over the replicates of a configuration, or the score of its single training."""
        return float(np.mean([self._point(one) for one in self.fresh(trial) or [trial]]))

    def unequal(self, first: TrialRecord, second: TrialRecord) -> str | None:
        """Why two trainings have different lengths; None if the lengths are equal."""
        return unequal_words(first, second, self._varied)

    def incomparable(self, first: TrialRecord, second: TrialRecord) -> str | None:
        """Why two trained models are not compared; None if they are."""
        for one in (first, second):
            if self.point(one) is None:
                return f"{one.trial_id} has no score"
            if self.resampled(one) is None:
                return f"{one.trial_id} has no match table"
        reason = self.unequal(first, second)
        if reason is not None:
            return reason
        whole = all(one.status == "finished" for one in (first, second))
        if not whole and first.num_epochs != second.num_epochs:
            common = min(first.num_epochs, second.num_epochs)
            values = [one.epochs.get(common, {}).get(self.metric) for one in (first, second)]
            there = "" if None in values else f"; scores at epoch {common}: {values[0]:.3f} and {values[1]:.3f}"
            return f"not compared: {first.num_epochs} epochs against {second.num_epochs}{there}"
        return None

    def _same_models(self, firsts: Sequence[TrialRecord], seconds: Sequence[TrialRecord]) -> bool:
        """Whether the trainings of both sides have the same weights and scores, pair by pair."""
        metric = self.record.metric
        weights = [sorted(str(best_weights(one, metric)) for one in some) for some in (firsts, seconds)]
        if weights[0] != weights[1] or any(best_weights(one, metric) is None for one in firsts):
            return False
        scores = [sorted(self._resampled(one).tobytes() for one in some) for some in (firsts, seconds)]
        return scores[0] == scores[1]  # the same weights score differently at different thresholds

    def _equal_words(
        self, firsts: Sequence[TrialRecord], seconds: Sequence[TrialRecord], *, groups: bool = False
    ) -> str:
        """Why two configurations are equal.

        Args:
            firsts: trainings of the first.
            seconds: trainings of the second, with the same weights.
            groups: whether the two are examples of all configurations in two groups.
        """
        parameters = ", ".join(differing_parameters(firsts[0], seconds[0])) or "the parameters in which they differ"
        bests = {(one.best(self.record.metric) or {}).get("epoch") for one in firsts}
        at = f"epoch {bests.pop()}" if len(bests) == 1 else "the same epochs"
        ends = [sorted(str(one.weights.get(one.num_epochs)) for one in some) for some in (firsts, seconds)]
        why = "had no effect here" if ends[0] == ends[1] else "took effect only later"
        if groups:
            same = "each configuration has a counterpart with identical weights at its best epoch"
            return f"equal: {same}; {parameters} {why}"
        return f"equal: both are best at {at}, with identical weights; {parameters} {why}"

    def correct(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The same verdicts with p-values corrected for multiple comparisons (Holm)."""
        judged = [one for one in verdicts if one.difference is not None]
        corrected = iter(holm([one.difference.p for one in judged if one.difference is not None]).tolist())
        return [
            one
            if one.difference is None
            else judge(one.first, one.second, one.level, one.difference, self.sample, next(corrected), len(judged))
            for one in verdicts
        ]

    def _of(self, first: Sequence[TrialRecord], second: Sequence[TrialRecord], spread: tuple[float, int]) -> Difference:
        points = [[self._point(one) for one in side] for side in (first, second)]
        resampled = [np.stack([self._resampled(one) for one in side]) for side in (first, second)]
        return setting_difference(points[0], points[1], resampled[0], resampled[1], self.sample, *spread)

    def _place(self, trial: TrialRecord) -> tuple[Path, str]:
        """The run folder of a trial, and its name there."""
        run, _, name = trial.trial_id.rpartition(":")
        return self._folders.get(run, self.folder), name

    def _point(self, trial: TrialRecord) -> float:
        value = self.point(trial)
        return float("nan") if value is None else float(value)

    def _resampled(self, trial: TrialRecord) -> NDArray[np.float64]:
        values = self.resampled(trial)
        return np.full(1, np.nan) if values is None else values

    def _setting_resampled(self, trial: TrialRecord) -> NDArray[np.float64]:
        return np.asarray(np.mean([self._resampled(one) for one in self.fresh(trial) or [trial]], axis=0))


def whole_board(
    record: RunRecord, folder: Path, metric: str, *, folders: Mapping[str, Path] | None = None, make: bool = True
) -> list[Verdict]:
    """Compare the best configuration with each other one; Holm's correction over all pairs that can be compared.

    The correction covers all pairs because the best configuration is chosen by the same scores. The arguments are those
    of `Board`.
    """
    board = Board(record, folder, metric, folders=folders, make=make)
    leads = [trial for trial in record.settings() if record.value(trial) is not None]
    if not leads:
        return []
    verdicts = [board.compare(leads[0], other) for other in leads[1:]]
    compared = [lead for lead, one in zip(leads[1:], verdicts, strict=True) if one.difference is not None]
    ranks = _all_pairs_holm(board, [leads[0], *compared])
    family = math.comb(len(compared) + 1, 2)
    return [
        verdict
        if verdict.difference is None
        else judge(
            verdict.first,
            verdict.second,
            verdict.level,
            verdict.difference,
            board.sample,
            ranks[verdict.second],
            family,
        )
        for verdict in verdicts
    ]


def ties_with_best(record: RunRecord, folder: Path, *, make: bool = True) -> dict[str, bool]:
    """For each configuration's first trial, whether it is tied with the best; without trials not compared."""
    return ties_of(record, whole_board(record, folder, record.metric, make=make))


def ties_of(record: RunRecord, verdicts: Sequence[Verdict]) -> dict[str, bool]:
    """The same from `verdicts`, as `whole_board` returns them."""
    ties = {verdict.second: not verdict.told_apart for verdict in verdicts if verdict.told_apart is not None}
    winner = record.winner()
    return ties if winner is None or not ties else {winner.trial_id: True, **ties}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One of the best configurations, trained again and scored on images that the search did not use.

    Attributes:
        trial: its first training.
        seeds: number of confirming replicates.
        claimed: its lead over the default by the scores of the search; None if the default was trained for fewer
            epochs.
        verdict: the configuration against the default on the confirmation images.
    """

    trial: TrialRecord
    seeds: int
    claimed: float | None
    verdict: Verdict


def confirmations(record: RunRecord, folder: Path) -> list[Confirmation]:
    """Compare each confirmed configuration with the default, best first; empty if the default is not confirmed."""
    board = Board(record, folder, record.metric, "confirm")
    leads = [lead for lead in record.settings() if board.fresh(lead)]
    default = next((lead for lead in leads if lead.baseline == "default"), None)
    if default is None:
        return []
    others = [lead for lead in leads if lead is not default]
    verdicts = board.correct([board.compare(lead, default) for lead in others])
    return [
        Confirmation(lead, len(board.fresh(lead)), _claimed(record, lead, default), verdict)
        for lead, verdict in zip(others, verdicts, strict=True)
    ]


def _claimed(record: RunRecord, lead: TrialRecord, default: TrialRecord) -> float | None:
    values = record.standing(lead), record.standing(default)
    if None in values or lead.status != "finished" or default.status != "finished":
        return None
    if unequal_words(lead, default, varied_lengths(record.trials.values())) is not None:
        return None
    return (values[0] or 0.0) - (values[1] or 0.0)


def _all_pairs_holm(board: Board, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """The p-value of the first trial against each other one, corrected for all pairs."""
    if len(trials) < 2:
        return {}
    raw = _model_p_values(board, trials)
    replicated = [bool(board.fresh(trial)) and board.seed_variance_of(trial)[1] > 0 for trial in trials]
    for one, other in itertools.combinations(np.flatnonzero(replicated).tolist(), 2):
        difference = board.compare(trials[one], trials[other]).difference
        raw[one, other] = 1.0 if difference is None else difference.p
    # in row order: the pairs of the first trial come first
    corrected = holm(raw[np.triu_indices(len(trials), k=1)])
    return {trial.trial_id: float(p) for trial, p in zip(trials[1:], corrected, strict=False)}


def _model_p_values(board: Board, trials: Sequence[TrialRecord]) -> NDArray[np.float64]:
    """p-values of all pairs as models: float64 [trials, trials], above the diagonal; 1 without a match table."""
    found = np.ones((len(trials), len(trials)))
    there = [number for number, trial in enumerate(trials) if board.measured([trial])]
    if len(there) < 2:
        return found
    resampled = np.stack([board._resampled(trials[number]) for number in there])
    resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
    covariance = np.cov(resampled)
    variance = np.diag(covariance)
    error = np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0))
    error[error < ROUNDING] = image_error(np.zeros(1), board.sample)
    points = np.array([board._point(trials[number]) for number in there])
    distance = np.abs(points[:, None] - points[None, :])
    upper = np.triu_indices(len(there), k=1)
    places = np.array(there)
    found[places[upper[0]], places[upper[1]]] = image_p_values(distance[upper], error[upper], board.sample)
    return found
