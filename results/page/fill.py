"""Fills a page's template; a page needs no network, so its style is part of it."""

from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from digits_core.command import version_of


def fill(template: str, **values: Any) -> str:
    """The text of a page.

    Args:
        template: a file of this package; it may extend and import others.
        values: for the template, in addition to `style`, `version` and `written`.
    """
    environment = Environment(
        loader=FunctionLoader(page_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        style=page_file("style.css"), version=version_of("digit-search") or "", written=now(), **values
    )


def page_file(name: str) -> Markup:
    """A file of this package as text that is not escaped."""
    return Markup(resources.files("results.page").joinpath(name).read_text(encoding="utf-8"))


def now() -> str:
    """The current local time as text."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
