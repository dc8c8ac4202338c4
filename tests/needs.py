"""A pytest plugin: skips a test that needs what this machine lacks, and says how to get it; it installs nothing."""

from importlib.util import find_spec

import pytest

from browser import find_browser

PACKAGES = {
    "browser": ("playwright", "axe_playwright_python"),
    "tools": ("mlflow", "optuna_dashboard", "nbformat", "nbclient", "ipykernel"),
    "site": ("mkdocs", "material", "mkdocstrings"),
    "package": ("build", "installer", "setuptools"),
}
"""The Python packages that tests with a marker need beside the default suite's."""


def missing_for(marker: str) -> str | None:
    """What a marker's tests lack on this machine and how to get it, in one line; None where nothing is missing."""
    lacking = [package for package in PACKAGES.get(marker, ()) if find_spec(package) is None]
    if lacking:
        return f"{marker} tests need the Python packages {', '.join(lacking)}: make env"
    if marker == "browser" and find_browser() is None:
        return "browser tests need Chromium or Google Chrome: make browser"
    if marker == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "gpu tests need a CUDA GPU and a torch built for CUDA"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip here, not in a fixture: pytest then prints one line for all tests with the same reason."""
    for marker in (*PACKAGES, "gpu"):
        if item.get_closest_marker(marker) and (lacking := missing_for(marker)):
            pytest.skip(lacking)
