"""Whether there is room on the disk for another training."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from digits_core.files import folder_bytes, size_words

MIN_BYTES = 256 * 2**20
"""Nothing new is started on a disk with less, beside what the slots may yet write."""

LOOK_SECONDS = 2.0

CHECKPOINT = "checkpoint_"
"""What the names of Ray's checkpoint folders begin with."""


class Room:
    """Watches the disks that a search writes to, and how much its run folder takes.

    Attributes:
        shortage: what there is too little of, in a sentence; None while there is room.
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
            folder: the run's.
            slots: trainings at once; each writes a checkpoint before it deletes the one before.
            most: bytes that the folder may take; None leaves it to the disk.
            say: called with a sentence when trials begin to wait for room, and when they no longer do.
            regained: called in the latter case.
        """
        self._regained = regained
        self._folder, self._slots, self._most, self._say = folder, slots, most, say
        self.shortage: str | None = None
        self._looked = -LOOK_SECONDS

    def held(self) -> bool:
        """Whether nothing new may start for now."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            before, self.shortage = self.shortage, self._find()
            self._looked = time.monotonic()
            if self.shortage is not None and before is None:
                self._say(f"no new trial is started: {self.shortage}")
            elif self.shortage is None and before is not None:
                self._regained()
                self._say("there is room again: trials are started")
        return self.shortage is not None

    def _find(self) -> str | None:
        used, largest = folder_bytes(self._folder, CHECKPOINT)
        # Each slot writes its next checkpoint before the last one is deleted; of that, some is kept.
        pending = 2 * self._slots * largest
        if self._most is not None and used + pending > self._most:
            return (
                f"{self._folder} takes {size_words(used)} and its slots may add {size_words(pending)}, more than "
                f"--disk {size_words(self._most)}; end it and go on with a larger one, or keep fewer (--keep)"
            )
        for place in (self._folder, Path(tempfile.gettempdir())):
            free = shutil.disk_usage(place).free
            if free < MIN_BYTES + pending:
                return (
                    f"the disk of {place} has {size_words(free)} left, {size_words(MIN_BYTES + pending)} are needed; "
                    "make room, and they go on by themselves"
                )
        return None
