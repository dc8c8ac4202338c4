"""Redirects the output of Ray and its child processes into a log; only our own text goes to the terminal."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class Chatter(io.TextIOWrapper):
    """A text stream for a log; on a full disk it drops text instead of raising an error."""

    def __init__(self, raw: io.RawIOBase, **settings: Any) -> None:
        """Write through to an unbuffered file."""
        super().__init__(LossyWriter(raw), write_through=True, **settings)


class LossyWriter(io.BufferedIOBase):
    """Writes bytes to a file and drops those that cannot be written."""

    def __init__(self, raw: io.RawIOBase) -> None:
        """Write to an unbuffered file."""
        self._raw = raw

    @property
    def name(self) -> str:
        """A name that is no path: nobody should open it."""
        return "chatter"

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """The file descriptor of the file."""
        return self._raw.fileno()

    def write(self, content: Any) -> int:
        """Write as much as possible; returns the length of all of it."""
        with contextlib.suppress(OSError):
            self._raw.write(content)
        return len(content)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._raw.close()
        super().close()


@contextlib.contextmanager
def chatter_to(path: Path) -> Iterator[TextIO]:
    """Redirect all output of this process and its children into a file; yields the real terminal.

    Redirects the file descriptors, because Ray's native code writes to them directly.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    terminal = os.fdopen(os.dup(1), "w", encoding=getattr(sys.stdout, "encoding", None) or "utf-8", errors="replace")
    own = (sys.stdout, sys.stderr)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = Chatter(os.fdopen(os.dup(1), "wb", buffering=0), encoding="utf-8", errors="replace")
        sys.stderr = Chatter(os.fdopen(os.dup(2), "wb", buffering=0), encoding="utf-8", errors="replace")
        try:
            yield terminal
        finally:
            for stream in (terminal, sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.close()
            sys.stdout, sys.stderr = own
            for number, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
