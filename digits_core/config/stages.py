"""Stages: consecutive parts of one training, written as text."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from digits_core.config.parameter import Flat, Parameter, Scalar
from digits_core.errors import ConfigError, printable

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(%?)")

STAGED = ("optim.", "augment.")
"""Sections whose parameters a stage may set."""

_WHOLE_TRAINING = ("optim.epochs", "optim.stages", "optim.early_stop_epochs")
"""Parameters of these sections that apply to the whole training, so a stage cannot set them."""

Parsed = list[tuple[str, Flat]]
"""The length of each stage, `10` epochs or `50%`, and the parameters that it sets."""


@dataclass(frozen=True, slots=True)
class Span:
    """First and last epoch of one stage, counted from 1."""

    first: int
    last: int

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.last - self.first + 1


def parse_stages(text: str, parameter_named: Callable[[str], Parameter]) -> Parsed:
    """Read `10 augment.pipeline=color; 10 augment.pipeline=geometric optim.lr=5e-5`.

    Args:
        text: stages separated by semicolons; each is a length and assignments, separated by spaces.
        parameter_named: returns the parameter with a flat name.

    Raises:
        ConfigError: a stage without a length, an unknown parameter, one that a stage cannot set, or a wrong value.
    """
    found: Parsed = []
    for number, part in enumerate(text.split(";"), start=1):
        length, *assignments = part.split() or [""]
        if not _LENGTH.fullmatch(length):
            raise ConfigError(
                f"optim.stages: stage {number} must begin with its length, epochs or a share like 50%, "
                f"got '{printable(part.strip())}'"
            )
        flat: Flat = {}
        for assignment in assignments:
            name, equals, value = assignment.partition("=")
            if not equals:
                raise ConfigError(
                    f"optim.stages: stage {number} takes PARAMETER=VALUE after its length, "
                    f"got '{printable(assignment)}'"
                )
            known = parameter_named(name)
            if not name.startswith(STAGED) or name in _WHOLE_TRAINING:
                raise ConfigError(
                    f"optim.stages: stage {number} cannot set {name}; a stage sets parameters of optim and augment, "
                    f"except {', '.join(_WHOLE_TRAINING)}"
                )
            flat[name] = known.parse(value)
        found.append((length, dict(sorted(flat.items()))))
    return found


def format_stages(stages: Parsed) -> str:
    """The canonical text of stages."""
    return "; ".join(
        " ".join([length, *(f"{name}={_spell(value)}" for name, value in flat.items())]) for length, flat in stages
    )


def spans(stages: Parsed, epochs: int) -> list[Span]:
    """The epochs of each stage.

    Raises:
        ConfigError: lengths that do not add up, or a stage that is not a whole number of epochs.
    """
    numbers = [_LENGTH.fullmatch(length) for length, _ in stages]
    lengths = [float(match.group(1)) for match in numbers if match]
    shares = [bool(match.group(2)) for match in numbers if match]
    if any(shares) and not all(shares):
        raise ConfigError("optim.stages: give all lengths in epochs, or all of them as shares with %")
    total = sum(lengths)
    if shares[0]:
        if abs(total - 100) > 0.01:
            raise ConfigError(f"optim.stages: the shares add up to {total:g} %, but must add up to 100 %")
        ends = [round(sum(lengths[: number + 1]) / 100 * epochs) for number in range(len(lengths))]
    else:
        if total != epochs:
            added = " + ".join(f"{length:g}" for length in lengths)
            raise ConfigError(
                f"optim.stages train {added} = {total:g} epochs, but optim.epochs (--epochs) is {epochs}; make them "
                "equal, or give shares like 50%"
            )
        ends = [round(sum(lengths[: number + 1])) for number in range(len(lengths))]
    found = [Span(first + 1, last) for first, last in zip([0, *ends], ends, strict=False)]
    for number, span in enumerate(found, start=1):
        if span.epochs < 1 or (not shares[0] and not lengths[number - 1].is_integer()):
            raise ConfigError(
                f"optim.stages: stage {number} ({stages[number - 1][0]}) must be a whole number of epochs, at least 1 "
                f"of {epochs}"
            )
    return found


def _spell(value: Scalar) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
