"""Who writes a run: the lock of its folder, and the sign of life in the copy that a storage holds of it."""

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
"""In the copy that a storage holds of a run: `driver`, who drives it, and `seen`, seconds since 1970."""

UNSEEN_SECONDS = 60.0
"""A driver that has not been seen for so long is taken for dead."""

_PROCESS = re.compile(r"process (\d{1,9}) on ([^\s,]{1,200})")


def this_process() -> str:
    """This process, in the words that lock and sign of life bear."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock_run(folder: Path) -> BinaryIO:
    """Take the lock of a run folder; closing the file, or the end of the process, gives it back.

    Raises:
        RunError: another process holds it, and which that is; or the lock is a link, whose target would be emptied.
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
            f"{folder} is being written by {printable(holder)}; wait for its end, or end it, before anything else "
            "writes there"
        ) from None
    lock.truncate(0)
    lock.write(this_process().encode())
    lock.flush()
    return lock


def unlock_run(lock: BinaryIO) -> None:
    """Give a lock back, so that nobody is named as the writer any more."""
    with contextlib.suppress(OSError):
        lock.truncate(0)
    lock.close()


def writer_of(folder: Path) -> str | None:
    """The process that writes a run, in words; None where there is none. It is not asked for the lock itself."""
    try:
        found = _PROCESS.match((folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    if found is None:
        return None
    alive = _is_alive(found)
    if alive is None:
        return f"{found[0]}, or was: this machine cannot tell"
    return found[0] if alive else None


def driver_in(content: bytes | None) -> tuple[str, float] | None:
    """Who drives a run and when it was last seen, by what its DRIVER_FILE holds; None where it says nothing."""
    try:
        tree = json.loads(content or b"{}")
        return str(tree["driver"]), float(tree["seen"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def driver_at_work(content: bytes | None) -> str | None:
    """Who drives a run from somewhere, by what its DRIVER_FILE holds; None where nobody does."""
    known = driver_in(content)
    if known is None:
        return None
    who, seen = known
    found = _PROCESS.match(who)
    if found is not None and _is_alive(found) is False:
        return None
    return who.partition(",")[0] if time.time() - seen < UNSEEN_SECONDS else None


def _is_alive(process: re.Match[str]) -> bool | None:
    """Whether a process runs; None where it is another machine's."""
    if process[2] != socket.gethostname():
        return None
    try:
        os.kill(int(process[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
