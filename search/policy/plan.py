"""A search with its spaces and config resolved: with the record, this is all that the policy knows."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, SpaceError
from digits_core.model.anchors import setting_digest
from search.defaults import GAIN, MAX_FAILURES, REPLICATE_TOP
from search.policy.prior import Prior
from spaces.registry import DEFAULT_BASELINE, Overrides, Space


@dataclass(frozen=True, slots=True)
class Plan:
    """A search with its spaces and config resolved.

    Attributes:
        space: the parameters that trials vary; empty when the search only sweeps thresholds.
        base: the config that configurations of the space change.
        trials: maximum number of configurations to train.
        sweep: `detect.*` settings to score on each trained model, in addition to the standard grid.
        sampler: proposes configurations; `grid` takes every configuration of the space.
        scheduler: the early-stopping rule.
        seed: seed of the search.
        replicates: trainings of each of the best configurations, including the first one.
        replicate_top: how many configurations are replicated.
        confirm: how many configurations are confirmed in addition to the default; 0 confirms none.
        max_failures: maximum number of restarts of a trial after faults.
        prior: what the search knows before its first trial; None if nothing.
        gain: the increase of the best score that the outlook is about.
        until_settled: whether the search ends when more trials are unlikely to gain more than `gain`.
    """

    space: Space
    base: TrainConfig
    trials: int
    sweep: list[Overrides] = field(default_factory=list)
    sampler: str = "tpe"
    scheduler: str = "asha"
    seed: int = 0
    replicates: int = 1
    replicate_top: int = REPLICATE_TOP
    confirm: int = 0
    max_failures: int = MAX_FAILURES
    prior: Prior | None = None
    gain: float = GAIN
    until_settled: bool = False

    def probe_config(self) -> TrainConfig:
        """The configuration that every trial starts from: the base with the parameters that the space fixes."""
        return TrainConfig.from_flat(self.space.fixed, self.base)

    def baselines(self) -> Iterator[tuple[str, TrainConfig]]:
        """Name and config of the default and of each baseline of the space; configs and names may repeat.

        Raises:
            SpaceError: a baseline is not valid with this base; the message names the baseline.
        """
        for baseline in (DEFAULT_BASELINE, *self.space.baselines):
            try:
                config = TrainConfig.from_flat({**self.space.fixed, **baseline.overrides}, self.base)
            except ConfigError as error:
                raise SpaceError(
                    f"space '{self.space.name}': baseline '{baseline.name}' is not valid: {error}"
                ) from None
            yield baseline.name, config

    def first_settings(self) -> dict[str, TrainConfig]:
        """The configurations that are trained first, without duplicates, by the names of their baselines.

        Raises:
            SpaceError: a baseline is not valid with this base; the message names the baseline.
        """
        found: dict[str, TrainConfig] = {}
        seen = set()
        for name, config in self.baselines():
            if setting_digest(config) not in seen and len(found) < self.trials:
                found[name if name not in found else f"{name} ({len(found)})"] = config
            seen.add(setting_digest(config))
        return found
