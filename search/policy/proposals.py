"""Which configuration is trained next: baselines first, then an Optuna sampler. A pure function of record and plan.

The n-th configuration of a search depends only on the seed, on n and on what was reported before. So an interrupted
search proposes the same configurations as an uninterrupted one, and `search.replay` can check this.
"""

import contextlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, SpaceError
from digits_core.model.anchors import Coverage, setting_digest
from digits_core.seeds import derived_seed
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from search.policy.optuna_study import study_of
from search.policy.plan import Plan
from search.policy.prior import seen_of
from search.policy.screen import Screen
from spaces.registry import Overrides, Space, enumerate_settings, quiet_study

MAX_REPEATS = 50
"""Draws in a row that were all tried before; after them the rest of a finite space is taken from a list."""

MAX_SCREENED = 500
"""Consecutive configurations that the anchor screen may reject before the search stops drawing."""

CANDIDATES = 8
"""Configurations drawn for each trial of the startup phase; the one with the best anchor coverage is trained."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """One proposed configuration.

    Attributes:
        config: the config to train.
        params: the values that Optuna drew, by parameter; empty for a baseline.
        baseline: the baseline's name; None for a drawn configuration.
        coverage: how its anchors cover the training boxes; None if not measured.
        screened: why it is not trained; None if it is trained.
    """

    config: TrainConfig
    params: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    coverage: Coverage | None = None
    screened: str | None = None


def startup_trials(num_trials: int) -> int:
    """Configurations that a sampler draws at random before it learns; a short search has fewer of them."""
    return min(10, max(4, num_trials // 3))


def build_sampler(name: str, seed: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler of `--sampler NAME`; `grid` uses an enumerated list and needs no sampler."""
    startup, seed = startup_trials(num_trials), seed % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":  # trials run in parallel: constant_liar keeps their proposals apart
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


class Proposer:
    """Gives the next configuration of a search.

    Its state between calls is a cache: all of it can be computed from the record.
    """

    def __init__(self, plan: Plan, screen: Screen | None = None) -> None:
        """Propose configurations of a plan; `screen` measures the anchors of each, None measures none."""
        self._plan, self._space, self._base, self.screen = plan, plan.space, plan.base, screen
        self._sampler, self._seed, self._num_trials = plan.sampler, plan.seed, plan.trials
        # Optuna's Gaussian process learns from whole trainings only.
        self._learned_from = (
            (TrialState.COMPLETE,) if plan.sampler == "gp" else (TrialState.COMPLETE, TrialState.PRUNED)
        )
        self._list = enumerate_settings(plan.space) if plan.sampler == "grid" else None
        self._digests: dict[str, str] = {}
        self._names: set[str] | None = None
        self._used_up_at: int | None = None

    def next(self, record: RunRecord) -> Proposed | None:
        """The next configuration that was not tried before; None if there are enough, or none is left.

        Raises:
            SpaceError: the space drew an invalid configuration.
        """
        searched = [trial for trial in record.trials.values() if trial.role == "search"]
        if self._used_up_at == len(searched):  # Ray asks repeatedly while other trials still run
            return None
        trained = [number for number, trial in enumerate(searched) if trial.status != "screened"]
        in_a_row = len(searched) - 1 - (trained[-1] if trained else -1)
        found = None
        if len(trained) < self._num_trials and in_a_row < MAX_SCREENED:
            short = record.short()
            tried = {digest for trial in searched for digest in self._digests_of(trial, trial.trial_id in short)}
            found = self._baseline(tried) or self._drawn(record, tried)
        if found is None:
            self._used_up_at = len(searched)
            return None
        return self._with_coverage(found, searched)

    def _digests_of(self, trial: TrialRecord, short: bool) -> set[str]:
        """The digest of a trial's configuration; if it trained for fewer epochs than the run now asks for, both."""
        if not short:
            return {trial.config_hash}
        if trial.trial_id not in self._digests:
            longer = {**trial.config, "optim.epochs": self._base.optim.epochs}
            self._digests[trial.trial_id] = setting_digest(TrainConfig.from_flat(longer))
        return {trial.config_hash, self._digests[trial.trial_id]}

    def _with_coverage(self, found: Proposed, searched: list[TrialRecord]) -> Proposed:
        """The same with its anchor coverage and the decision of the screen."""
        if self.screen is None:
            return found
        known = [trial.coverage["mean_iou"] for trial in searched if trial.baseline and trial.coverage]
        best = None if found.baseline is not None else max(known, default=None)
        coverage, reason = self.screen.look(found.config, best)
        return Proposed(found.config, found.params, found.baseline, coverage, reason)

    def _baseline(self, tried: set[str]) -> Proposed | None:
        """The first baseline that was not tried."""
        for name, config in self._plan.baselines():
            if setting_digest(config) not in tried:
                return Proposed(config, baseline=name)
        return None

    def _drawn(self, record: RunRecord, tried: set[str]) -> Proposed | None:
        """The first drawn configuration that was not tried; after `MAX_REPEATS` draws, the next of a finite space."""
        if self._list is None:
            sampler = optuna.samplers.RandomSampler(seed=0)
            study = study_of(record, self._space, quiet_study(sampler, len(record.aims)))
            for attempt in range(MAX_REPEATS):
                seed = derived_seed("draw", self._seed, len(record.trials), attempt)
                study.sampler = build_sampler(self._sampler, seed, self._num_trials)
                chosen = self._predicted(study, record, tried, seed) or self._covering(study, tried, seed)
                if chosen is not None:
                    study.enqueue_trial(chosen)
                drawn = study.ask()
                config = self._config_of(drawn, study)
                if config is None:
                    continue
                if setting_digest(config) not in tried:
                    return Proposed(config, dict(drawn.params))
                _tell_known(study, drawn, record, setting_digest(config))
            try:
                self._list = enumerate_settings(self._space)
            except SpaceError:  # the space is not finite
                return None
        return self._listed(tried)

    def _listed(self, tried: set[str]) -> Proposed | None:
        """The first configuration of the list that was not tried; removes those before it from the list."""
        assert self._list is not None
        while self._list:
            params, overrides = self._list[0]
            try:
                config = TrainConfig.from_flat(overrides, self._base)
            except ConfigError:
                config = None
            if config is not None and setting_digest(config) not in tried:
                return Proposed(config, dict(params))
            self._list.pop(0)
        return None

    def _config_of(self, drawn: optuna.Trial, study: optuna.Study) -> TrainConfig | None:
        """The config of a draw; if the space or the config refuses it, tells Optuna and returns None."""
        try:
            return TrainConfig.from_flat(self._space.draw(drawn), self._base)
        except optuna.TrialPruned:
            study.tell(drawn, state=TrialState.PRUNED)
        except ConfigError:
            study.tell(drawn, state=TrialState.FAIL)
        return None

    def _predicted(self, study: optuna.Study, record: RunRecord, tried: set[str], seed: int) -> Overrides | None:
        """The draw that the prior expects to be the best of several; None leaves the draw to the sampler.

        While the sampler draws at random, so do these draws; afterwards they are its own proposals.
        """
        if self._plan.prior is None:
            return None
        names = self._space.fields() if self._names is None else self._names
        self._names = names
        seen, scores = seen_of(record, names)
        count = self._plan.prior.draws(len(seen))
        if count == 1:
            return None
        drawing, learns = study, self._learns(study)
        if not learns:
            drawing = quiet_study(optuna.samplers.RandomSampler(seed=derived_seed("predicted", seed) % 2**32))
        found: list[tuple[Overrides, dict[str, Any], TrainConfig]] = []
        for _ in range(count):
            trial = drawing.ask()
            with contextlib.suppress(optuna.TrialPruned, ConfigError):
                config = TrainConfig.from_flat(self._space.draw(trial), self._base)
                if setting_digest(config) not in tried:
                    flat = config.to_flat()
                    found.append(({name: flat[name] for name in names}, dict(trial.params), config))
            if learns:
                study.tell(trial, state=TrialState.FAIL)
        if not found:
            return None
        order = np.argsort(-self._plan.prior.predict([one for one, _, _ in found], seen, scores), kind="stable")
        best = [found[place] for place in order.tolist()]
        screen = self.screen
        if learns or screen is None or not screen.active:
            return dict(best[0][1])
        # As without a prior, the anchors that cover the digits best are tried first, here among the best predicted.
        return dict(max(best[:CANDIDATES], key=lambda one: screen.measure(one[2]).mean_iou)[1])

    def _learns(self, study: optuna.Study) -> bool:
        """Whether the sampler has enough trials to learn from."""
        learned = len(study.get_trials(deepcopy=False, states=self._learned_from))
        return self._sampler in ("tpe", "gp") and learned >= startup_trials(self._num_trials)

    def _covering(self, study: optuna.Study, tried: set[str], seed: int) -> Overrides | None:
        """The draw for a sampler that is still in its startup phase; None leaves the draw to the sampler."""
        if self._sampler not in ("tpe", "gp") or self.screen is None or not self.screen.active:
            return None
        if self._learns(study):
            return None
        return best_covering(self._space, self._base, self.screen, tried, derived_seed("covering", seed))


def _tell_known(study: optuna.Study, drawn: optuna.Trial, record: RunRecord, digest: str) -> None:
    """Tell Optuna the known score of a configuration that it drew again, so that it draws elsewhere."""
    same = (trial for trial in record.trials.values() if trial.role == "search" and trial.config_hash == digest)
    points = [point for trial in same if (point := record.point(trial)) is not None]
    if points:
        study.tell(drawn, list(max(points)))
    else:
        study.tell(drawn, state=TrialState.FAIL)


def best_covering(space: Space, base: TrainConfig, screen: Screen, tried: set[str], seed: int) -> Overrides | None:
    """Draw `CANDIDATES` random configurations; the parameters of the untried one with the best anchor coverage.

    Returns:
        None if all have the same coverage.
    """
    study = quiet_study(optuna.samplers.RandomSampler(seed=seed % 2**32))
    found: list[tuple[float, dict[str, Any]]] = []
    for _ in range(CANDIDATES):
        trial = study.ask()
        try:
            config = TrainConfig.from_flat(space.draw(trial), base)
        except (optuna.TrialPruned, ConfigError):
            continue
        if setting_digest(config) not in tried:
            found.append((screen.measure(config).mean_iou, trial.params))
    if len({iou for iou, _ in found}) < 2:
        return None
    return max(found, key=lambda one: one[0])[1]
