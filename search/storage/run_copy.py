"""Keeps the copy of a run folder in its storage up to date."""

import threading
import time
from collections.abc import Callable

from search.speaker import Speaker
from search.storage.storage import Storage

COPY_SECONDS = 5.0
"""Minimum time between two copies; copying takes at most half of the time."""

LAST_SECONDS = 90.0
"""How long the end of a search waits for a storage that fails."""


class Copier(Speaker):
    """Copies in a separate thread; without a remote storage it does nothing.

    Attributes:
        storage: the storage to copy to.
        fault: why the storage cannot be written now; None while it can.
    """

    def __init__(self, storage: Storage, say: Callable[[str], None]) -> None:
        """Copy to a storage; `say` prints a sentence for the user."""
        super().__init__(say)
        self.storage = storage
        self.fault: str | None = None
        self._ended = threading.Event()
        self._wanted = storage.is_remote
        self._thread = threading.Thread(target=self._follow, name="copier", daemon=True)

    def __enter__(self) -> "Copier":
        """Start copying."""
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Complete the copy; gives up after `LAST_SECONDS`."""
        self._ended.set()
        if not self._wanted:
            return
        self._thread.join()
        until = time.monotonic() + LAST_SECONDS
        while not self._copy() and time.monotonic() < until:
            time.sleep(COPY_SECONDS)
        if self.fault is not None:
            self._say(
                f"the copy of {self.storage.folder} in --storage is incomplete ({self.fault}); --resume completes it"
            )
        self.storage.release()

    def forget(self) -> None:
        """Delete the copy of a run without trials."""
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
                f"--storage {self.storage.address}: the run folder cannot be copied ({self.fault}); the search tries "
                "again and starts no new trial until it succeeds"
            )
        elif self.fault is None and before is not None:
            self._say("--storage works again: the run folder is copied")
        return self.fault is None
