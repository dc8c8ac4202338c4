"""Whether the disk has space for another training."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from digits_core.files import folder_bytes, size_words

MIN_BYTES = 256 * 2**20
"""Free space that a new trial needs, in addition to what the running slots may still write."""

LOOK_SECONDS = 2.0

CHECKPOINT = "checkpoint_"
"""Prefix of the names of Ray's checkpoint folders."""


class Room:
    """Watches the free space of the disks that a search writes to, and the size of its run folder.

    Attributes:
        shortage: which space is missing, in a sentence; None while there is enough.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int,
        most: int | None,
        say: Callable[[str], None],
        regained: Callable[[], None] = lambda: None,
    ) -> None:
        """Watch a run folder.

        Args:
            folder: the run folder.
            slots: trainings at the same time; each writes a checkpoint before it deletes the last one.
            most: maximum bytes of the folder; None has no limit.
            say: called with a sentence when trials start to wait for space, and when they no longer wait.
            regained: called when trials no longer wait.
        """
        self._regained = regained
        self._folder, self._slots, self._most, self._say = folder, slots, most, say
        self.shortage: str | None = None
        self._looked = -LOOK_SECONDS

    def held(self) -> bool:
        """Whether no new trial may start now."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            before, self.shortage = self.shortage, self._find()
            self._looked = time.monotonic()
            if self.shortage is not None and before is None:
                self._say(f"no new trial starts: {self.shortage}")
            elif self.shortage is None and before is not None:
                self._regained()
                self._say("the disk has enough space again: new trials start")
        return self.shortage is not None

    def _find(self) -> str | None:
        used, largest = folder_bytes(self._folder, CHECKPOINT)
        # Each slot writes its next checkpoint before it deletes the last one, and a part of it is kept.
        pending = 2 * self._slots * largest
        if self._most is not None and used + pending > self._most:
            return (
                f"{self._folder} has {size_words(used)} and its slots may add {size_words(pending)}, more than "
                f"--disk {size_words(self._most)}; end the search and resume it with a larger --disk or smaller --keep"
            )
        for place in (self._folder, Path(tempfile.gettempdir())):
            free = shutil.disk_usage(place).free
            if free < MIN_BYTES + pending:
                return (
                    f"the disk of {place} has {size_words(free)} left, {size_words(MIN_BYTES + pending)} are needed; "
                    "free some space, and new trials start automatically"
                )
        return None
