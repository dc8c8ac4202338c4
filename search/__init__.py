"""The search, the only package that uses Ray.

In a notebook: `from search import run_search`. The import itself is fast: modules are loaded at the first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.notebook import SearchError, run_search

__all__ = ["SearchError", "run_search"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("search.notebook"), name)
