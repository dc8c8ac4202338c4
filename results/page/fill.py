"""Fills a page's template; a page needs no network, so its style is part of it."""

import re
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

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
    environment.filters["whole"] = whole
    return environment.get_template(template).render(
        style=page_file("style.css"), version=version_of("digit-search") or "", written=now(), **values
    )


def whole(text: Any) -> Markup:
    """Text whose flags, such as --replicates, are not broken, and whose lists are broken after commas."""
    parts = re.split(r"(--[a-z][a-z-]*)", str(text))
    return Markup("").join(
        Markup('<span class="flag">{}</span>').format(part)
        if place % 2
        else escape(part).replace(",", Markup(",<wbr>"))
        for place, part in enumerate(parts)
    )


def page_file(name: str) -> Markup:
    """A file of this package as text that is not escaped."""
    return Markup(resources.files("results.page").joinpath(name).read_text(encoding="utf-8"))


def now() -> str:
    """The current local time as text."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
