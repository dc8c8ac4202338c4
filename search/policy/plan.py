"""A search with its spaces and config resolved: all that its policy knows beside the record."""

from dataclasses import dataclass, field

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, SpaceError
from digits_core.model.anchors import setting_digest
from search.defaults import MAX_FAILURES, REPLICATE_TOP
from spaces.registry import DEFAULT_BASELINE, Overrides, Space


@dataclass(frozen=True, slots=True)
class Plan:
    """A search with its spaces and config resolved.

    Attributes:
        space: what trials vary; nothing at all when only thresholds are asked for.
        base: the config that settings change.
        trials: settings to train at most.
        sweep: `detect.*` settings to score on each trained model, beside the grid that all are swept over.
        sampler: proposes settings; `grid` walks every setting of the space.
        scheduler: the rule that stops weak trials.
        seed: of the search.
        replicates: trainings of each of the best settings, the search's own among them.
        replicate_top: how many settings get them.
        confirm: how many settings are confirmed, beside the default; 0 confirms none.
        max_failures: starts after a fault that a trial has, at most.
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

    def probe_config(self) -> TrainConfig:
        """The setting that every trial starts from: the base with what the space fixes."""
        return TrainConfig.from_flat(self.space.fixed, self.base)

    def first_settings(self) -> dict[str, TrainConfig]:
        """The settings that are tried first, each once, by the names of their baselines.

        Raises:
            SpaceError: one cannot be with the settings around it; names it.
        """
        found: dict[str, TrainConfig] = {}
        seen = set()
        for baseline in (DEFAULT_BASELINE, *self.space.baselines):
            try:
                config = TrainConfig.from_flat({**self.space.fixed, **baseline.overrides}, self.base)
            except ConfigError as error:
                raise SpaceError(f"space '{self.space.name}': baseline '{baseline.name}' cannot be: {error}") from None
            if setting_digest(config) not in seen and len(found) < self.trials:
                name = baseline.name if baseline.name not in found else f"{baseline.name} ({len(found)})"
                found[name] = config
            seen.add(setting_digest(config))
        return found
