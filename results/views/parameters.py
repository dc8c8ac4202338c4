"""The parameters of a configuration as text: those that it changes, readable values, and those without effect."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from digits_core.config.effect import without_effect
from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, printable
from results.record.schema import ENDED
from results.record.trial import TrialRecord


class Changed(NamedTuple):
    """A parameter that differs from the default.

    Attributes:
        name: its flat name.
        value: of the configuration.
        default: its value in the default configuration.
        idle: why it has no effect; None if it has.
    """

    name: str
    value: Any
    default: Any
    idle: str | None


def changed_parameters(
    config: Mapping[str, Any], base: Mapping[str, Any], *, until: int | None = None
) -> list[Changed]:
    """The parameters in which a configuration differs from the default, in the order of the configuration.

    Args:
        config: flat parameters; those that `base` does not have are left out.
        base: those of the default.
        until: the last trained epoch; None is the last one of the configuration.
    """
    changed = [(name, value) for name, value in config.items() if name in base and value != base[name]]
    if not changed:
        return []
    idle = _idle(json.dumps(dict(config)), until)
    return [Changed(name, value, base[name], idle.get(name)) for name, value in changed]


@lru_cache(maxsize=1024)  # the live view asks for the same configurations twice a second
def _idle(config: str, until: int | None) -> dict[str, str]:
    """The parameters without effect of a configuration that is given as JSON."""
    try:
        return without_effect(TrainConfig.from_json(config), until=until)
    except ConfigError:  # of another version
        return {}


def changed_by(trial: TrialRecord, base: Mapping[str, Any]) -> list[Changed]:
    """The same for a trial, whose training may have ended before its last epoch."""
    return changed_parameters(trial.config, base, until=trial.num_epochs if trial.status in ENDED else None)


def value_words(value: Any) -> str:
    """A parameter's value as short text; a number with at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
