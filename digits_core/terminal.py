"""The consoles that commands print to; they never interpret text as markup or control codes."""

import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, HighlighterType, JustifyMethod, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from digits_core.errors import printable

PLAIN_WIDTH = 220
"""The width in columns if the output is a file or a pipe."""


class PlainConsole(Console):
    """A console that prints a string as one line and does not interpret markup, emoji codes or escapes in it."""

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
        """The same for objects that contain a Text; line ends and control codes of rich itself stay."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = "\n".join(printable(line) for line in segment.text.split("\n"))
                yield Segment(lines, segment.style)


def open_console(out: TextIO | None = None, *, quiet: bool = False) -> PlainConsole:
    """A console with the width of the terminal, or PLAIN_WIDTH without a terminal; text is never highlighted.

    Args:
        out: the output stream; None is standard output.
        quiet: print nothing.
    """
    stream = sys.stdout if out is None else out
    if stream.isatty():
        return PlainConsole(file=stream, highlight=False, quiet=quiet)
    return PlainConsole(file=stream, highlight=False, width=PLAIN_WIDTH, soft_wrap=True, quiet=quiet)
