"""Passwords and keys in addresses: found, so that they are refused; removed from text that is shown or stored."""

import re
from urllib.parse import unquote

REMOVED = "***"

_BEFORE_AT = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}):(/{1,2})([^\s'\"<>]*)@", re.IGNORECASE)
"""An address with an @: its scheme, its slashes, and all between them and the last @."""

_QUERY = re.compile(
    r"([?&;#][^=&;\s'\"]*(?:key|token|secret|passw|pwd|credential|sig)[^=&;\s'\"]*=)[^&;\s'\"<>]+", re.IGNORECASE
)

_PORT = re.compile(r"\d{0,5}[/?#].*")

_BARE = re.compile(r"[^/\s]*@")
"""The same of a place that is named without a scheme, as HOST:PORT."""

_NAMED_BEFORE_AT = ("abfs", "abfss", "hdfs")
"""Schemes that have a plain name there: of a container or of a user, without a password."""

VARIABLES = {
    "--mlflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)",
    "--address": "RAY_AUTH_TOKEN",
}
"""The environment variables that hold the credentials of a flag's address."""

STORE_VARIABLES = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for gs:// GOOGLE_APPLICATION_CREDENTIALS, for abfs:// "
    "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET) or a profile"
)
"""Those of a store, whichever flag names it."""


def scrub(text: str) -> str:
    """The text without `user:password@` in addresses and without the values of secrets in their queries."""
    return _QUERY.sub(rf"\1{REMOVED}", _BEFORE_AT.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    scheme, slashes, before = found.groups()
    user, colon, rest = before.partition(":")
    of_the_path = any(sign in user for sign in "/?#[")  # the @ comes after the host, which may be an IPv6 one
    if of_the_path or (_PORT.fullmatch(rest) if colon else scheme.lower() in _NAMED_BEFORE_AT):
        return found[0]
    return f"{scheme}:{slashes}{REMOVED}@"


def holds_credentials(address: str) -> bool:
    """Whether an address has a user, a password or a key in it."""
    return any(scrub(form) != form for form in (address, unquote(address)))


def fault_of(flag: str, address: str) -> str | None:
    """What to do about credentials in the value of a flag, in a sentence that does not repeat it; None without any."""
    if not holds_credentials(address) and not (flag in VARIABLES and _BARE.match(address)):
        return None
    return (
        f"{flag}: the address holds credentials; leave them out and set {VARIABLES.get(flag, STORE_VARIABLES)} in the "
        f"environment{'' if flag in VARIABLES else ' of every node'}"
    )
