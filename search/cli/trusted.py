"""Settings of a run folder that --resume accepts only if the user has typed them on this machine.

A run folder may come from somebody else. Some of its settings run code or connect to other machines: --resume uses them
only if the user has typed them on this machine before, or types them again. Each such value is stored in its own small
file, named by its digest and renamed into place: parallel searches need no lock, and after damage to a file the user
must only type the value again.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from digits_core.data.remote import is_address
from digits_core.data.source import DataSource
from digits_core.errors import UsageError
from digits_core.files import read_whole
from search.defaults import LOOPBACK_NAMES

if TYPE_CHECKING:
    from search.cli.settings import SearchSettings

MOST_BYTES = 2**16


class Choice(NamedTuple):
    """A value that only the user may choose.

    Attributes:
        flag: the flag of the value.
        typed: what to type after the flag.
        value: the text to remember; for a space file it includes the digest of the content.
    """

    flag: str
    typed: str
    value: str


def choices_of(settings: "SearchSettings") -> list[Choice]:
    """The space files that a search runs as code, and the addresses of other machines that it connects to."""
    found = [
        Choice("--space", settings.space, f"{path} sha256:{digest}") for path, digest in settings.space_files.items()
    ]
    for flag, value in (
        ("--storage", settings.storage),
        ("--address", settings.address),
        ("--mlflow", settings.mlflow),
        ("--trackio", settings.trackio),
        ("--dashboard-host", None if settings.dashboard_host in LOOPBACK_NAMES else settings.dashboard_host),
    ):
        if value is not None:
            found.append(Choice(flag, value, value))
    return [*found, *data_choices(settings.data)]


def data_choices(data: DataSource) -> list[Choice]:
    """The address of a data set, if it has one: it is opened with the user's credentials."""
    return [Choice("--data", data.folder, data.folder)] if is_address(data.folder) else []


def refuse_unnamed(choices: Iterable[Choice], typed: Collection[str], run: str) -> None:
    """Check that the user has typed every choice, now or before.

    Args:
        choices: the choices of a run folder.
        typed: the flags of the current command.
        run: the run's name in messages.

    Raises:
        UsageError: a choice was never typed; the message says what to type.
    """
    unnamed = [one for one in choices if one.flag not in typed and not is_remembered(one)]
    if unnamed:
        again = " ".join(dict.fromkeys(f"{one.flag} {quote(one.typed)}" for one in unnamed))
        code = any(one.flag == "--space" for one in unnamed)
        raise UsageError(
            f"{run}: its run.json contains settings that you have not typed on this machine before"
            + (" (a space file runs as code; after each change it must be accepted again)" if code else "")
            + f"; to accept them, add {again}"
        )


def remember(choices: Iterable[Choice]) -> None:
    """Store the choices that the user has typed; if the folder is not writable, a resume asks again."""
    for one in choices:
        if is_remembered(one):
            continue
        with contextlib.suppress(OSError, RuntimeError):
            path = _path(one)
            for folder in (path.parent.parent, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, half = tempfile.mkstemp(dir=path.parent, suffix=".half")  # only its owner can read it
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(_content(one))
                Path(half).replace(path)
            finally:
                Path(half).unlink(missing_ok=True)


def is_remembered(choice: Choice) -> bool:
    """Whether the user has typed this on this machine; a file that other users can write does not count."""
    try:
        path = _path(choice)
        known = path.stat()
        private = known.st_uid == os.geteuid() and not known.st_mode & 0o022
        return private and read_whole(path, MOST_BYTES) == _content(choice)
    except (OSError, RuntimeError):
        return False


def _content(choice: Choice) -> bytes:
    return (json.dumps({"flag": choice.flag, "value": choice.value}) + "\n").encode()


def _path(choice: Choice) -> Path:
    """The file of a choice.

    Raises:
        RuntimeError: the user has no home folder.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return state / "digit-search" / "named" / hashlib.sha256(_content(choice)).hexdigest()
