"""Reads `events.jsonl`, and appends events to it."""

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
"""Size of the reserve file: space for a few thousand events on a full disk."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk or quota."""


class EventWriter:
    """Appends numbered events to the record of a run, each flushed to disk before the call returns.

    The writer has the lock of the run folder; the operating system releases it when the process ends.
    """

    def __init__(self, folder: Path, run: str, lock: BinaryIO | None = None) -> None:
        """Open or create the record; an incomplete last line is removed.

        Args:
            folder: the run folder.
            run: its name.
            lock: the lock of the folder if it is already taken; `close` releases it.

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
        """Append one event and update the record. Values must be valid JSON without NaN.

        Raises:
            ValueError: the event is not valid.
            RunError: the disk is full, including the reserve.
        """
        event: Event = {
            "n": self.record.num_events + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            **values,
        }
        check_event(event)  # never write an event that cannot be read
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
                    f"{self._folder}: the disk is full; free some space and continue with digit-search resume "
                    f"{self._folder.name}"
                ) from None
        self._whole += len(line)
        self.record.apply(event)

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # Python would write its buffer later
                self._file.close()
            self._file = (self._folder / EVENTS_FILE).open("ab")
            self._file.truncate(self._whole)
            raise

    def reserve(self) -> None:
        """Reserve disk space, so that events can still be written when the disk is full."""
        path = self._folder / RESERVE_FILE
        with contextlib.suppress(OSError):
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                path.write_bytes(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Release the reserved disk space."""
        (self._folder / RESERVE_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and release the lock; a second call does nothing."""
        if self._file.closed:
            return
        self._file.close()
        self.release()
        unlock_run(self._lock)


def read_record(folder: Path, run: str) -> RunRecord:
    """Read the record of a run folder; an incomplete last line is ignored.

    Raises:
        RunError: there is no record, or a line is damaged.
    """
    record = RunRecord(run)
    for _ in read_events(folder, record):
        pass
    return record


def read_events(folder: Path, record: RunRecord) -> Iterator[Event]:
    """Yield the events of a run folder in order, each after the record is updated; ignores an incomplete last line.

    Args:
        folder: the run folder.
        record: an empty record.

    Raises:
        RunError: there is no record, or a line is damaged.
    """
    path = folder / EVENTS_FILE
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder: it has no {EVENTS_FILE}")
    for event, _ in _read(path, record):
        yield event


def _read(path: Path, record: RunRecord) -> Iterator[tuple[Event, int]]:
    """Yield each complete event and the offset after it; updates the record."""
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
                    f"{path} line {number} is damaged ({error}); digit-search repair {quote(str(path.parent))} "
                    "says what can be recovered"
                ) from None
            yield event, offset
