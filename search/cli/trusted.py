"""What this user has named on this machine: only that does a resume take from a run folder without asking.

A run folder may come from somebody else. Some of its settings run code or reach other machines: those count when the
user has typed them here before, or types them again. Each such value is a small file of its own, named by its digest
and put in place in one move: searches side by side need no lock, and a damaged file only means one more question.
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
        flag: that names it.
        typed: what to type after the flag.
        value: what is remembered; of a space file also its content, by digest.
    """

    flag: str
    typed: str
    value: str


def choices_of(settings: "SearchSettings") -> list[Choice]:
    """What a search runs as code, and the places that it reaches beyond this machine and its run folder."""
    found = [
        Choice("--space", settings.space, f"{path} sha256:{digest}") for path, digest in settings.space_files.items()
    ]
    for flag, value in (
        ("--storage", settings.storage),
        ("--address", settings.address),
        ("--mlflow", settings.mlflow),
        ("--dashboard-host", None if settings.dashboard_host in LOOPBACK_NAMES else settings.dashboard_host),
    ):
        if value is not None:
            found.append(Choice(flag, value, value))
    return [*found, *data_choices(settings.data)]


def data_choices(data: DataSource) -> list[Choice]:
    """The same of a data set: an address is opened with the user's credentials."""
    return [Choice("--data", data.folder, data.folder)] if is_address(data.folder) else []


def refuse_unnamed(choices: Iterable[Choice], typed: Collection[str], run: str) -> None:
    """See that the user has named every choice, now or before.

    Args:
        choices: of a run folder.
        typed: the flags that were given now.
        run: the run, as messages name it.

    Raises:
        UsageError: not all; says what to type.
    """
    unnamed = [one for one in choices if one.flag not in typed and not is_remembered(one)]
    if unnamed:
        again = " ".join(dict.fromkeys(f"{one.flag} {quote(one.typed)}" for one in unnamed))
        code = any(one.flag == "--space" for one in unnamed)
        raise UsageError(
            f"{run}: its run.json names what you have not given on this machine before"
            + (" (a space file, which is run as code, counts as another when it has changed)" if code else "")
            + f"; to accept it, add {again}"
        )


def remember(choices: Iterable[Choice]) -> None:
    """Keep what the user has named; where the folder cannot be written nothing is kept, and a resume asks again."""
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
    """Whether the user has named this on this machine; a file that others may write is not believed."""
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
        RuntimeError: the user has no home.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return state / "digit-search" / "named" / hashlib.sha256(_content(choice)).hexdigest()
