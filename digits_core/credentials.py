"""Finds passwords and keys in addresses, to refuse them, and removes them from text that is shown or stored."""

import re
from urllib.parse import unquote

REMOVED = "***"

_BEFORE_AT = re.compile(r"\b([a-z][a-z0-9+.-]{0,30}):(/{1,2})([^\s'\"<>]*)@", re.IGNORECASE)
"""An address with an @: the scheme, the slashes, and the text between the slashes and the last @."""

_QUERY = re.compile(
    r"([?&;#][^=&;\s'\"]*(?:key|token|secret|passw|pwd|credential|sig)[^=&;\s'\"]*=)[^&;\s'\"<>]+", re.IGNORECASE
)

_PORT = re.compile(r"\d{0,5}[/?#].*")

_BARE = re.compile(r"[^/\s]*@")
"""The same for an address without a scheme, like HOST:PORT."""

_NAMED_BEFORE_AT = ("abfs", "abfss", "hdfs")
"""Schemes that can have a plain name before the @, of a container or a user, without a password."""

VARIABLES = {
    "--mlflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)",
    "--address": "RAY_AUTH_TOKEN",
}
"""The environment variables for the credentials of the address of a flag."""

NOTIFY_VARIABLE = "DIGIT_SEARCH_NOTIFY"
"""Environment variable that can have the value of `--notify`, also with credentials."""

STORE_VARIABLES = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for gs:// GOOGLE_APPLICATION_CREDENTIALS, for abfs:// "
    "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET) or a profile"
)
"""The environment variables for a store, for any flag."""


def scrub(text: str) -> str:
    """The text without `user:password@` in addresses, and without secrets in the queries of addresses."""
    return _QUERY.sub(rf"\1{REMOVED}", _BEFORE_AT.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    scheme, slashes, before = found.groups()
    user, colon, rest = before.partition(":")
    of_the_path = any(sign in user for sign in "/?#[")  # the @ is after the host, which can be an IPv6 address
    if of_the_path or (_PORT.fullmatch(rest) if colon else scheme.lower() in _NAMED_BEFORE_AT):
        return found[0]
    return f"{scheme}:{slashes}{REMOVED}@"


def holds_credentials(address: str) -> bool:
    """Whether an address contains a user, a password or a key."""
    return any(scrub(form) != form for form in (address, unquote(address)))


def fault_of(flag: str, address: str) -> str | None:
    """A sentence about credentials in the value of a flag, which does not repeat them; None if there are none."""
    if not holds_credentials(address) and not (flag in VARIABLES and _BARE.match(address)):
        return None
    if flag == "--notify":
        return (
            f"{flag}: the value contains credentials; omit the flag and set {NOTIFY_VARIABLE} in the environment to it"
        )
    return (
        f"{flag}: the address contains credentials; remove them and set {VARIABLES.get(flag, STORE_VARIABLES)} in the "
        f"environment{'' if flag in VARIABLES else ' of every node'}"
    )
