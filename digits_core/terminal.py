"""The consoles that commands print to: text of any origin is shown as it is."""

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, HighlighterType, JustifyMethod, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from digits_core.errors import printable

PLAIN_WIDTH = 220
"""Columns when the output is a file or a pipe."""


class PlainConsole(Console):
    """A console that obeys nothing in a text: a string is one line, without markup, emoji codes and escapes."""

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """One line for a string that is printed or is a cell of a table.

        The eight parameters are those of rich's method, which this one replaces.
        """
        return Text(printable(text), style=style, justify=justify, overflow=overflow)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The same for what brings its own Text; ends of lines and rich's own control codes stay."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = "\n".join(printable(line) for line in segment.text.split("\n"))
                yield Segment(lines, segment.style)


def open_console(out: TextIO | None = None, *, quiet: bool = False) -> PlainConsole:
    """A console as wide as the terminal, or PLAIN_WIDTH where there is none; text is never restyled.

    Args:
        out: where it prints; None is the standard output.
        quiet: print nothing at all.
    """
    stream = sys.stdout if out is None else out
    if stream.isatty():
        return PlainConsole(file=stream, highlight=False, quiet=quiet)
    return PlainConsole(file=stream, highlight=False, width=PLAIN_WIDTH, soft_wrap=True, quiet=quiet)
