"""The token of Ray's login: everybody who has it can run code as its owner."""

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

TOKEN_BYTES = 32


def token_file() -> Path:
    """The file that Ray reads the token from (Ray's manual, token authentication); RAY_AUTH_TOKEN has priority."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def make_token() -> None:
    """Create the token of a user who has none, before Ray does: other users can read Ray's file for a moment.

    The file is complete and private when it gets its name; if another search has just created one, that one is used. If
    the home folder is not writable, the token is in the environment of this process and its children.
    """
    wanted = os.environ.get("RAY_AUTH_MODE", "token") == "token"
    if not wanted or "RAY_AUTH_TOKEN" in os.environ or os.environ.get("RAY_AUTH_TOKEN_PATH") or token_file().exists():
        return
    try:
        _write_token(token_file())
    except OSError:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(TOKEN_BYTES)


def _write_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    number, half = tempfile.mkstemp(dir=path.parent, prefix=".auth_token.")  # only its owner can read it
    try:
        with os.fdopen(number, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
        try:
            os.link(half, path)  # unlike a rename, it does not replace an existing file
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            Path(half).rename(path)
    finally:
        Path(half).unlink(missing_ok=True)


def token_warning() -> str | None:
    """A warning if other users can read the token; None if they cannot."""
    path = token_file()
    if "RAY_AUTH_TOKEN" in os.environ:
        return None
    try:
        modes = [path.stat().st_mode, *_modes_above(path)]
    except OSError:
        return None
    if not open_to_others(modes):
        return None
    return (
        f"warning: other users of this machine can read {path}, and with the token in it they can run code as you "
        f"through Ray: chmod 600 {path}"
    )


def _modes_above(path: Path) -> list[int]:
    return [folder.stat().st_mode for folder in path.resolve().parents]


def open_to_others(modes: Sequence[int]) -> bool:
    """Whether the group or all others can read or write a file.

    Args:
        modes: of the file, and of all folders above it: without the right to search a folder, nobody gets to the file.
    """
    file, *folders = modes
    for file_bits, search_bits in ((0o060, 0o011), (0o006, 0o001)):  # the folders can have another group than the file
        if file & file_bits and all(folder & search_bits for folder in folders):
            return True
    return False
