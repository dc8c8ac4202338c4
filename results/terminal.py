"""The consoles that commands print to."""

import sys
from typing import TextIO

from rich.console import Console

PLAIN_WIDTH = 220
"""Columns when the output is a file or a pipe."""


def open_console(out: TextIO | None = None) -> Console:
    """A console as wide as the terminal, or PLAIN_WIDTH where there is none; text is never restyled."""
    stream = sys.stdout if out is None else out
    if stream.isatty():
        return Console(file=stream, highlight=False)
    return Console(file=stream, highlight=False, width=PLAIN_WIDTH, soft_wrap=True)
