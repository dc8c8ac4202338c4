"""Checks that the values of a dataclass have the declared types, since a file can contain anything."""

import math
import types
import typing
from dataclasses import fields
from functools import lru_cache
from typing import Any

_PLAIN = (bool, int, float, str, types.NoneType)


@lru_cache(maxsize=16)
def _kinds(of: Any) -> dict[str, tuple[Any, ...]]:
    """The types that each field accepts."""
    hints = typing.get_type_hints(of)
    return {one.name: _alternatives(hints[one.name]) for one in fields(of)}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return typing.get_args(hint)
    return (origin or hint,)


def wrong_field(values: object) -> str | None:
    """The first field of a dataclass with a wrong value: a wrong type, no finite number, or text with a null character.

    Fields that contain an object of another class are not checked. A dict must have text keys and plain values.
    """
    of: Any = type(values)
    for name, kinds in _kinds(of).items():
        value = getattr(values, name)
        if dict in kinds:
            right = isinstance(value, dict) and all(
                _is_one(key, (str,)) and _is_one(one, _PLAIN) for key, one in value.items()
            )
        else:
            right = not set(kinds) <= set(_PLAIN) or _is_one(value, kinds)
        if not right:
            return name
    return None


def _is_one(value: object, kinds: tuple[Any, ...]) -> bool:
    if isinstance(value, float):
        return float in kinds and math.isfinite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return (int in kinds or float in kinds) and abs(value) < 2**53
    return type(value) in kinds and not (isinstance(value, str) and "\0" in value)
