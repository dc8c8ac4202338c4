"""Which process writes a run: the lock of the run folder, and the driver file in its copy in a storage."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import BinaryIO

from digits_core.errors import RunError, printable

LOCK_FILE = ".lock"

DRIVER_FILE = "driver.json"
"""In the copy of a run in a storage: `driver`, the process, and `seen`, its last update in seconds since 1970."""

UNSEEN_SECONDS = 60.0
"""A driver without an update for this time counts as dead."""

_PROCESS = re.compile(r"process (\d{1,9}) on ([^\s,]{1,200})")


def this_process() -> str:
    """This process as written into the lock and the driver file."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock_run(folder: Path) -> BinaryIO:
    """Lock a run folder until the file is closed or the process ends.

    Raises:
        RunError: another process has the lock; or the lock file is a link, whose target would be overwritten.
    """
    try:
        number = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise RunError(f"{folder / LOCK_FILE} is a link; delete it") from None
    lock = os.fdopen(number, "a+b")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read(200).decode(errors="replace").strip() or "another process"
        lock.close()
        raise RunError(
            f"{folder} is being written by {printable(holder)}; wait until that process ends, or stop it"
        ) from None
    lock.truncate(0)
    lock.write(this_process().encode())
    lock.flush()
    return lock


def unlock_run(lock: BinaryIO) -> None:
    """Release a lock and remove the name of the writer."""
    with contextlib.suppress(OSError):
        lock.truncate(0)
    lock.close()


def writer_of(folder: Path) -> str | None:
    """The process that writes a run, as words; None if there is none. The lock is read, not taken."""
    try:
        found = _PROCESS.match((folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    if found is None:
        return None
    alive = _is_alive(found)
    if alive is None:
        return f"{found[0]} (another machine, may have ended)"
    return found[0] if alive else None


def driver_in(content: bytes | None) -> tuple[str, float] | None:
    """The driver of a run and its last update, from the content of DRIVER_FILE; None if it is missing or damaged."""
    try:
        tree = json.loads(content or b"{}")
        return str(tree["driver"]), float(tree["seen"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def driver_at_work(content: bytes | None) -> str | None:
    """The active driver of a run, from the content of DRIVER_FILE; None if there is none."""
    known = driver_in(content)
    if known is None:
        return None
    who, seen = known
    found = _PROCESS.match(who)
    if found is not None and _is_alive(found) is False:
        return None
    return who.partition(",")[0] if time.time() - seen < UNSEEN_SECONDS else None


def _is_alive(process: re.Match[str]) -> bool | None:
    """Whether a process is running; None if it is on another machine."""
    if process[2] != socket.gethostname():
        return None
    try:
        os.kill(int(process[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
