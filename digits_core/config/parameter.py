"""One parameter of TrainConfig: which values it accepts, what it means, and how text is converted to its type."""

import math
import typing
from dataclasses import dataclass, field
from typing import Any

from digits_core.errors import ConfigError, did_you_mean, printable

Scalar = bool | int | float | str | None
Flat = dict[str, Scalar]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter: its type, whether None is allowed, its limits and its meaning."""

    name: str
    kind: type
    optional: bool
    default: Scalar
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None

    @property
    def limits(self) -> str:
        """The limits in words, as error messages and the reference print them."""
        if self.choices:
            return " | ".join(self.choices)
        if self.kind is bool:
            return "true | false"
        if self.low is None and self.high is None:
            return {str: "text", int: "a whole number", float: "a number"}[self.kind]
        noun = "a whole number" if self.kind is int else "a number"
        if self.high is None:
            return f"{noun} of at least {self.low:g}"
        return f"{noun} from {self.low:g} to {self.high:g}"

    def check(self, value: object) -> Scalar:
        """Return `value` converted to the parameter's type.

        Raises:
            ConfigError: wrong type, not finite, outside the limits or not one of the choices.
        """
        if value is None and self.optional:
            return None
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
            value = float(value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise ConfigError(f"{self.name} must be {self.limits}, got {printable(repr(value))}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.name} must be {self.limits}, got {value}")
        if self.choices and value not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            raise ConfigError(f"{self.name} must be one of {self.limits}, got {printable(repr(value))}{hint}")
        too_low = self.low is not None and isinstance(value, int | float) and value < self.low
        too_high = self.high is not None and isinstance(value, int | float) and value > self.high
        if too_low or too_high:
            raise ConfigError(f"{self.name} must be {self.limits}, got {value}")
        return typing.cast(Scalar, value)

    def parse(self, text: str) -> Scalar:
        """Read a value from text (`--set NAME=VALUE`).

        Raises:
            ConfigError: the text is not a valid value of this parameter.
        """
        text = text.strip()
        if self.optional and text.lower() in ("none", "null", "auto", ""):
            return None
        value: object = text
        try:
            if self.kind is bool:
                value = {"true": True, "false": False}[text.lower()]
            elif self.kind is not str:
                value = self.kind(text)
        except (KeyError, ValueError):
            raise ConfigError(f"{self.name} must be {self.limits}, got '{printable(text)}'") from None
        return self.check(value)


def parameter(
    default: Scalar,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with limits and a help text."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def parse_numbers(text: str, name: str) -> tuple[float, ...]:
    """Read positive numbers from text like `"4,8,12,24,48"`.

    Raises:
        ConfigError: an item is not a number between 0 and 1,000,000.
    """
    try:
        numbers = tuple(float(item) for item in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 1e6 for number in numbers):
        raise ConfigError(f"{name} must be positive numbers, separated by commas, like 4,8,16, got '{printable(text)}'")
    return numbers


def format_numbers(numbers: typing.Iterable[float]) -> str:
    """The canonical text of a list of numbers, without spaces and without `.0`."""
    return ",".join(f"{number:.6g}" for number in numbers)
