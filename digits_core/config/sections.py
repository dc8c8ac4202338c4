"""Dataclasses whose fields are parameters: converts them from and to flat names, and checks each value."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from digits_core.config.parameter import Parameter, Scalar


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Flat name and value of every parameter of a section, nested sections included."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def build(cls: type, values: Mapping[str, Scalar], prefix: str = "") -> Any:
    """A section with its nested sections, from flat names.

    Raises:
        ConfigError: a value is not valid.
    """
    hints = typing.get_type_hints(cls)
    arguments = {
        item.name: build(hints[item.name], values, f"{prefix}{item.name}.")
        if dataclasses.is_dataclass(hints[item.name])
        else values[f"{prefix}{item.name}"]
        for item in dataclasses.fields(cls)
    }
    return cls(**arguments)


def section_parameters(cls: type, prefix: str, section: Any, *, nested: bool = True) -> Iterator[Parameter]:
    """The parameters of a section class, with the values of `section` as defaults."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            if nested:
                inner = getattr(section, item.name)
                yield from section_parameters(typing.cast(type, hint), f"{prefix}{item.name}.", inner)
            continue
        optional = isinstance(hint, types.UnionType)
        kind = next(part for part in typing.get_args(hint) if part is not type(None)) if optional else hint
        yield Parameter(
            name=f"{prefix}{item.name}",
            kind=kind,
            optional=optional,
            default=getattr(section, item.name),
            **item.metadata,
        )


_SECTION_PARAMETERS: dict[type, tuple[Parameter, ...]] = {}


def check_section(name: str, section: Any) -> None:
    """Check each parameter of a section, and convert it to its type.

    Raises:
        ConfigError: a value is not valid.
    """
    cls = type(section)
    if cls not in _SECTION_PARAMETERS:
        # Nested sections check themselves.
        defaults = types.SimpleNamespace(**{item.name: item.default for item in dataclasses.fields(cls)})
        _SECTION_PARAMETERS[cls] = tuple(section_parameters(cls, f"{name}.", defaults, nested=False))
    for one in _SECTION_PARAMETERS[cls]:
        attribute = one.name.rpartition(".")[2]
        object.__setattr__(section, attribute, one.check(getattr(section, attribute)))
