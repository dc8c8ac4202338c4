"""Stages: parts of one training that follow each other, written as text."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from digits_core.config.parameter import Flat, Parameter, Scalar
from digits_core.errors import ConfigError, printable

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(%?)")

STAGED = ("optim.", "augment.")
"""Sections whose parameters a stage may set."""

_WHOLE_TRAINING = ("optim.epochs", "optim.stages", "optim.early_stop_epochs")
"""Parameters of these sections that belong to the training as a whole."""

Parsed = list[tuple[str, Flat]]
"""Each stage's length, `10` epochs or `50%`, and the parameters that it sets."""


@dataclass(frozen=True, slots=True)
class Span:
    """Epochs of one stage, from 1, both ends included."""

    first: int
    last: int

    @property
    def epochs(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


def parse_stages(text: str, parameter_named: Callable[[str], Parameter]) -> Parsed:
    """Read `10 augment.pipeline=color; 10 augment.pipeline=geometric optim.lr=5e-5`.

    Args:
        text: stages with semicolons; each a length and assignments with blanks.
        parameter_named: the parameter of a flat name.

    Raises:
        ConfigError: a stage without a length, an unknown parameter, one that no stage may set, or a wrong value.
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
                    f"but for {', '.join(_WHOLE_TRAINING)}"
                )
            flat[name] = known.parse(value)
        found.append((length, dict(sorted(flat.items()))))
    return found


def format_stages(stages: Parsed) -> str:
    """The one spelling of some stages."""
    return "; ".join(
        " ".join([length, *(f"{name}={_spell(value)}" for name, value in flat.items())]) for length, flat in stages
    )


def spans(stages: Parsed, epochs: int) -> list[Span]:
    """The epochs of each stage.

    Raises:
        ConfigError: lengths that do not add up, or a stage of less than one epoch.
    """
    numbers = [_LENGTH.fullmatch(length) for length, _ in stages]
    lengths = [float(match.group(1)) for match in numbers if match]
    shares = [bool(match.group(2)) for match in numbers if match]
    if any(shares) and not all(shares):
        raise ConfigError("optim.stages: give all lengths in epochs, or all as shares with %")
    total = sum(lengths)
    if shares[0]:
        if abs(total - 100) > 0.01:
            raise ConfigError(f"optim.stages: the shares add up to {total:g} %, they must make 100 %")
        ends = [round(sum(lengths[: number + 1]) / 100 * epochs) for number in range(len(lengths))]
    else:
        if total != epochs:
            added = " + ".join(f"{length:g}" for length in lengths)
            raise ConfigError(
                f"optim.stages train {added} = {total:g} epochs, optim.epochs (--epochs) is {epochs}; they must be the "
                "same, or give shares like 50%"
            )
        ends = [round(sum(lengths[: number + 1])) for number in range(len(lengths))]
    found = [Span(first + 1, last) for first, last in zip([0, *ends], ends, strict=False)]
    for number, span in enumerate(found, start=1):
        if span.epochs < 1 or (not shares[0] and not lengths[number - 1].is_integer()):
            raise ConfigError(
                f"optim.stages: stage {number} ({stages[number - 1][0]}) is no whole number of epochs of {epochs}, at "
                "least 1"
            )
    return found


def _spell(value: Scalar) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
