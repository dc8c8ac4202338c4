"""Avoids the import of torch's compiler, which takes half of the start time of a training process.

This project does not compile models. However, torchvision calls the compiler once during its import, and optimisers
call it at each step; both would import the whole compiler. Two replacement modules answer these calls; any other
access to them imports the real modules.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_PACKAGE, _UTILS = "torch._dynamo", "torch._dynamo.utils"


class StandIn(ModuleType):
    """A replacement for a module of the compiler."""

    is_package = False

    def __getattr__(self, name: str) -> Any:
        # Libraries inspect all loaded modules, for example their __file__; this must not import the compiler.
        if name.startswith("__") and not (name == "__path__" and self.is_package):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class Package(StandIn):
    """The replacement for the package `torch._dynamo`."""

    is_package = True

    def graph_break(self, msg: str = "") -> None:
        """Does nothing, because nothing is compiled."""

    def disable(self, fn: Callable[..., Any] | None = None, recursive: bool = True, **how: Any) -> Any:
        """Returns the function unchanged, because nothing is compiled."""
        return (lambda function: function) if fn is None else fn


class Utils(StandIn):
    """The replacement for `torch._dynamo.utils`."""

    def is_compile_supported(self, device_type: Any) -> Any:
        """Called only by RoIAlign on a GPU with deterministic algorithms."""
        return _real(_UTILS).is_compile_supported(device_type)


def _real(name: str) -> ModuleType:
    for one in (_PACKAGE, _UTILS):
        if isinstance(sys.modules.get(one), StandIn):
            del sys.modules[one]
    return importlib.import_module(name)


def spare_the_compiler() -> None:
    """Install the replacement modules, unless the compiler is already imported."""
    if _PACKAGE not in sys.modules:
        sys.modules[_PACKAGE], sys.modules[_UTILS] = Package(_PACKAGE), Utils(_UTILS)
        if "torch" in sys.modules:
            sys.modules["torch"]._dynamo = sys.modules[_PACKAGE]  # type: ignore[attr-defined]
