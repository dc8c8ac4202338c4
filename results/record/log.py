"""`events.jsonl`: appended line by line, and read."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from digits_core.errors import RunError
from results.record.events import Event, check_event
from results.record.lock import lock_run, unlock_run
from results.record.run import RunRecord

EVENTS_FILE = "events.jsonl"

RESERVE_FILE = ".reserve"

RESERVE_BYTES = 4 * 2**20
"""A few thousand events."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk, or of a quota used up."""


class EventWriter:
    """Appends events to a run's record: numbered, one line each, on disk before the call returns.

    Whoever holds it is the only one who writes: the system takes the lock back when the process ends, however it does.
    """

    def __init__(self, folder: Path, run: str, lock: BinaryIO | None = None) -> None:
        """Open the record, making it if missing; a line cut short by a crash is cut off.

        Args:
            folder: the run's.
            run: its name.
            lock: of the folder, where it was taken before; the writer gives it back.

        Raises:
            RunError: another process writes this run.
        """
        self.record = RunRecord(run)
        self._folder = folder
        self._lock = lock or lock_run(folder)
        try:
            path = folder / EVENTS_FILE
            self._whole = 0
            if path.exists():
                for _, end in _read(path, self.record):
                    self._whole = end
            self._file: BinaryIO = path.open("ab")
            self._file.truncate(self._whole)
        except BaseException:
            unlock_run(self._lock)
            raise
        self.reserve()

    def write(self, kind: str, **values: Any) -> None:
        """Append one event and take it in. Values must be JSON; NaN is refused.

        Raises:
            ValueError: it could not be read again.
            RunError: the disk is full, to the last of what was set aside for the record.
        """
        event: Event = {
            "n": self.record.num_events + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            **values,
        }
        check_event(event)  # what could not be read again is never written
        self.record.check_place(event)
        line = (json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n").encode()
        try:
            self._append(line)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.release()
            try:
                self._append(line)
            except OSError:
                raise RunError(
                    f"{self._folder}: the disk is full; make room and go on with --resume {self._folder.name}"
                ) from None
        self._whole += len(line)
        self.record.apply(event)

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # Python keeps what it could not write, and would write it later
                self._file.close()
            self._file = (self._folder / EVENTS_FILE).open("ab")
            self._file.truncate(self._whole)
            raise

    def reserve(self) -> None:
        """Set some bytes of the disk aside, for the record to go on when it is full."""
        path = self._folder / RESERVE_FILE
        with contextlib.suppress(OSError):
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                path.write_bytes(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Give the bytes set aside back."""
        (self._folder / RESERVE_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and let others write; a second time nothing happens."""
        if self._file.closed:
            return
        self._file.close()
        self.release()
        unlock_run(self._lock)


def read_record(folder: Path, run: str) -> RunRecord:
    """Fold the events of a run folder; a last line that a crash cut short is passed over.

    Raises:
        RunError: there is no record, or a line before the last is broken.
    """
    record = RunRecord(run)
    for _ in read_events(folder, record):
        pass
    return record


def read_events(folder: Path, record: RunRecord) -> Iterator[Event]:
    """The events of a run folder, in order, each after the record has taken it in.

    A last line that a crash cut short is passed over.

    Args:
        folder: the run's.
        record: an empty one.

    Raises:
        RunError: there is no record, or a line before the last is broken.
    """
    path = folder / EVENTS_FILE
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it holds no {EVENTS_FILE}")
    for event, _ in _read(path, record):
        yield event


def _read(path: Path, record: RunRecord) -> Iterator[tuple[Event, int]]:
    """Each whole event, taken in, and the offset after it."""
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = check_event(json.loads(line))
                record.apply(event)
            except (ValueError, RecursionError) as error:
                raise RunError(
                    f"{path} line {number} is damaged ({error}); python -m results.repair {quote(str(path.parent))} "
                    "says what can be saved"
                ) from None
            yield event, offset
