"""The driver: the only package that knows Ray.

In a notebook: `from search import run_search`. Nothing is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.notebook import run_search

__all__ = ["run_search"]


def __getattr__(name: str) -> Any:
    if name != "run_search":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("search.notebook").run_search
