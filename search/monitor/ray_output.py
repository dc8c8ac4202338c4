"""What Ray and its children print goes into a log; the terminal stays ours."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class Chatter(io.TextIOWrapper):
    """Text for a log: what a full disk does not take is lost, and holds nobody up."""

    def __init__(self, raw: io.RawIOBase, **settings: Any) -> None:
        """Write through to an unbuffered file."""
        super().__init__(LossyWriter(raw), write_through=True, **settings)


class LossyWriter(io.BufferedIOBase):
    """Passes bytes on, and drops those that cannot be written."""

    def __init__(self, raw: io.RawIOBase) -> None:
        """Write to an unbuffered file."""
        self._raw = raw

    @property
    def name(self) -> str:
        """Of no file that anyone should open."""
        return "chatter"

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Of the file behind."""
        return self._raw.fileno()

    def write(self, content: Any) -> int:
        """All of it, or what fits."""
        with contextlib.suppress(OSError):
            self._raw.write(content)
        return len(content)

    def close(self) -> None:
        """Close the file behind."""
        with contextlib.suppress(OSError):
            self._raw.close()
        super().close()


@contextlib.contextmanager
def chatter_to(path: Path) -> Iterator[TextIO]:
    """Send all that this process and its children print into a file; yields the real terminal.

    Ray's native parts write to the file descriptors themselves, so these are what is redirected.
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
