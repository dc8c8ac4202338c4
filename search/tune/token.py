"""The token of Ray's login: a person who has it can run code as its owner."""

import os
import secrets
import tempfile
from pathlib import Path

TOKEN_BYTES = 32


def token_file() -> Path:
    """Where Ray looks for the token, as it says in its manual; RAY_AUTH_TOKEN goes before it."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def make_token() -> None:
    """Make the token of a user who has none, before Ray does: Ray's own file can be read by others at first.

    It takes its name when it is whole and private; where another search made one just now, that one counts. Where the
    home folder cannot be written, the token is in the environment of this process and of what it starts.
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
            os.link(half, path)  # unlike a rename, it replaces nothing
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            Path(half).rename(path)
    finally:
        Path(half).unlink(missing_ok=True)


def token_warning() -> str | None:
    """What a person should know whose token others can read; None where nobody can."""
    path = token_file()
    try:
        readable = path.stat().st_mode & 0o077
    except OSError:
        return None
    if not readable or "RAY_AUTH_TOKEN" in os.environ:
        return None
    return (
        f"warning: other users of this machine can read {path}, and with the token in it they can run code as you "
        f"through Ray: chmod 600 {path}"
    )
