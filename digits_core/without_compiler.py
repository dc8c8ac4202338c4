"""Leaves torch's compiler unloaded, which is half of the start of a process that trains.

Nothing here compiles. Yet torchvision asks the compiler one question at its import, and optimizers tell it at each
step where a graph would break; either loads it whole. Stand-ins answer those; whatever else is asked of them loads
the real one.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_PACKAGE, _UTILS = "torch._dynamo", "torch._dynamo.utils"


class StandIn(ModuleType):
    """Looks like a module of the compiler to those who do not compile."""

    is_package = False

    def __getattr__(self, name: str) -> Any:
        # Of every module in turn somebody asks for its file, its warnings or the like.
        if name.startswith("__") and not (name == "__path__" and self.is_package):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class Package(StandIn):
    """Stands for the package."""

    is_package = True

    def graph_break(self, msg: str = "") -> None:
        """Where nothing is compiled, no graph breaks."""

    def disable(self, fn: Callable[..., Any] | None = None, recursive: bool = True, **how: Any) -> Any:
        """What is never compiled need not be kept from it."""
        return (lambda function: function) if fn is None else fn


class Utils(StandIn):
    """Stands for its utils."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """Asked by RoIAlign on a GPU under deterministic algorithms alone."""
        return _real(_UTILS).is_compile_supported(device_type)


def _real(name: str) -> ModuleType:
    for one in (_PACKAGE, _UTILS):
        if isinstance(sys.modules.get(one), StandIn):
            del sys.modules[one]
    return importlib.import_module(name)


def spare_the_compiler() -> None:
    """Put the stand-ins in place, unless the compiler is there already."""
    if _PACKAGE not in sys.modules:
        sys.modules[_PACKAGE], sys.modules[_UTILS] = Package(_PACKAGE), Utils(_UTILS)
        if "torch" in sys.modules:
            sys.modules["torch"]._dynamo = sys.modules[_PACKAGE]  # type: ignore[attr-defined]
