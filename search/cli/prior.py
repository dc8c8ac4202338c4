"""The prior of a search, from what its settings have learned and believe."""

from collections.abc import Mapping
from typing import Protocol

from digits_core.config.parameter import Scalar
from digits_core.errors import ConfigError, UsageError
from search.policy.prior import Learned, Prior
from spaces.registry import Overrides, Space, probe


class Known(Protocol):
    """The settings that a prior is made from; attributes as in `SearchSettings`."""

    @property
    def space(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sampler(self) -> str: ...  # noqa: D102
    @property
    def learned(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def believed(self) -> Mapping[str, Scalar]: ...  # noqa: D102


def prior_of(settings: Known, space: Space) -> Prior | None:
    """What the search knows before its first trial; None if nothing.

    Raises:
        UserError: a believed parameter is not varied, or what is stored of earlier runs is damaged.
    """
    if not settings.learned and not settings.believed:
        return None
    flag = "--learn-from" if settings.learned else "--believe"
    if settings.sampler == "grid":
        raise UsageError(f"{flag}: has no effect with --sampler grid, which trains every configuration")
    drawn = [overrides for _, overrides in probe(space)]
    for name, value in settings.believed.items():
        _check_belief(settings.space, name, value, drawn)
    try:
        learned = [Learned.from_json(text) for text in settings.learned.values()]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ConfigError):
        raise UsageError(f"settings: 'learned' of {settings.name} is damaged") from None
    return Prior(learned, settings.believed)


def _check_belief(space: str, name: str, value: Scalar, drawn: list[Overrides]) -> None:
    """Check that a space can draw a believed value.

    Raises:
        UsageError: it cannot.
    """
    values = [overrides[name] for overrides in drawn if name in overrides]
    if not values:
        varied = ", ".join(sorted({one for overrides in drawn for one in overrides})) or "nothing"
        raise UsageError(f"--believe {name}: space '{space}' does not vary it; it varies {varied}")
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        if not isinstance(value, int | float) or not low - 0.2 * (high - low) <= value <= high + 0.2 * (high - low):
            raise UsageError(
                f"--believe {name}={value}: space '{space}' draws values from about {low:.3g} to {high:.3g}; believe "
                "one of them"
            )
    elif "," not in str(value) and value not in values:
        raise UsageError(
            f"--believe {name}={value}: space '{space}' draws {', '.join(sorted({str(one) for one in values}))}; "
            "believe one of them"
        )
