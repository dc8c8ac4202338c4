"""Keeps the copy of a run folder in its storage up to date."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from search.storage.storage import Storage

COPY_SECONDS = 5.0
"""The copy follows at most this often, and takes no more than half of the time."""

LAST_SECONDS = 90.0
"""A search that ends waits so long for a storage that is out of order."""


class Copier:
    """Copies in a thread of its own; where no copy is kept it does nothing.

    Attributes:
        storage: where the copy lies.
        fault: why the storage takes nothing for now; None while it does.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        """Copy to a storage; `say` tells the person at the terminal a sentence."""
        self.storage, self._say = storage, say
        self.fault: str | None = None
        self._ended = threading.Event()
        self._wanted = storage.is_remote
        self._thread = threading.Thread(target=self._follow, name="copier", daemon=True)

    def __enter__(self) -> "Copier":
        """Begin."""
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Complete the copy, as far as the storage lets it."""
        self._ended.set()
        if not self._wanted:
            return
        self._thread.join()
        until = time.monotonic() + LAST_SECONDS
        while not self._copy() and time.monotonic() < until:
            time.sleep(COPY_SECONDS)
        if self.fault is not None:
            self._say(
                f"the copy of {self.storage.folder} in --storage is not whole ({self.fault}); --resume completes it"
            )
        self.storage.release()

    @contextlib.contextmanager
    def telling(self, say: Callable[[str], None]) -> Iterator[None]:
        """Tell another terminal for a while."""
        before, self._say = self._say, say
        try:
            yield
        finally:
            self._say = before

    def forget(self) -> None:
        """The run came to nothing: no copy of it is kept."""
        if self._wanted:
            self._wanted = False
            self._ended.set()
            self._thread.join()
            self.storage.forget()

    def _follow(self) -> None:
        pause = COPY_SECONDS
        while not self._ended.wait(pause):
            started = time.monotonic()
            self._copy()
            pause = max(COPY_SECONDS, time.monotonic() - started)

    def _copy(self) -> bool:
        before = self.fault
        try:
            self.storage.copy()
            self.fault = None
        except OSError as error:
            self.fault = str(error) or type(error).__name__
        if self.fault is not None and before is None:
            self._say(
                f"--storage {self.storage.address} does not take the run folder ({self.fault}); it is tried again, "
                "and no new trial is started until it does"
            )
        elif self.fault is None and before is not None:
            self._say("--storage takes the run folder again")
        return self.fault is None
