"""The consoles that commands print to."""

import sys
from typing import TextIO

from rich.console import Console

PLAIN_WIDTH = 220
"""Columns when the output is a file or a pipe."""


def open_console(out: TextIO | None = None, *, quiet: bool = False) -> Console:
    """A console as wide as the terminal, or PLAIN_WIDTH where there is none; text is never restyled.

    Args:
        out: where it prints; None is the standard output.
        quiet: print nothing at all.
    """
    stream = sys.stdout if out is None else out
    if stream.isatty():
        return Console(file=stream, highlight=False, quiet=quiet)
    return Console(file=stream, highlight=False, width=PLAIN_WIDTH, soft_wrap=True, quiet=quiet)
