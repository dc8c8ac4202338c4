"""The errors that a user can cause, and texts for messages (only the standard library)."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

from digits_core.credentials import fault_of, scrub

MOST_LETTERS_OF_A_REASON = 300


class UserError(Exception):
    """An error that the user can fix; the message is one sentence that says how."""


class ConfigError(UserError):
    """A parameter of TrainConfig has an unknown name, a wrong type or a value outside its limits."""


class DataError(UserError):
    """Images or annotations have problems."""


class WeightsError(UserError):
    """Initial weights or a checkpoint are missing, damaged or have other shapes."""


class DownloadError(WeightsError):
    """Initial weights cannot be downloaded here."""


class DeviceError(UserError):
    """The requested device does not exist, or the installed torch cannot use it."""


class SpaceError(UserError):
    """A search space is unknown, invalid or in conflict with another one."""


class RunError(UserError):
    """A run folder is missing, damaged, in use or has another schema version."""


class UsageError(UserError):
    """Valid flags cannot be combined, or refer to something that does not exist."""


class DivergedError(Exception):
    """A loss is not finite; the message contains the step and the losses."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message with the most similar known names, or with all of them if they are few.

    Returns:
        For example `; did you mean 'anchors'?` or `; known: a, b`. Empty if no name is similar.
    """
    names = sorted(known)
    return suggestion(name, names) or (f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """The end of a message with the most similar known names: `; did you mean 'anchors'?`; empty if none is similar."""
    return meant_words(near_names(name, known))


def meant_words(names: Sequence[str]) -> str:
    """The end of a message with names that may be meant; empty without any."""
    return "; did you mean " + " or ".join(f"'{name}'" for name in names) + "?" if names else ""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are most similar to a name, at most two."""
    names = sorted(known)
    return get_close_matches(name, names, n=2, cutoff=0.65) or _with_such_an_end(name, names)


def _with_such_an_end(name: str, names: list[str]) -> list[str]:
    """The two names whose part after the last dot, or a word of it, is nearest: `lr` means `optim.lr`."""

    def likeness(other: str) -> float:
        end = other.rpartition(".")[2]
        words = max(SequenceMatcher(None, wanted, word).ratio() for word in end.split("_"))
        return max(SequenceMatcher(None, wanted, end).ratio(), 0.9 * words)

    wanted = name.rpartition(".")[2]
    near = sorted(((likeness(other), other) for other in names), key=lambda pair: (-pair[0], pair[1]))
    if near and near[0][0] == 1:
        return [other for score, other in near if score == 1][:2]
    return [other for score, other in near if score >= 0.8][:2]


def refuse_credentials(flag: str, address: str) -> None:
    """Check that an address contains no credentials, because it is shown and stored in run folders.

    Raises:
        UsageError: it does; the message does not contain them, and says where they belong.
    """
    fault = fault_of(flag, address)
    if fault is not None:
        raise UsageError(fault)


def printable(text: str) -> str:
    """`text` as one printable line: control characters are escaped, and passwords in addresses are removed."""
    return escaped(scrub(text))


def escaped(text: str) -> str:
    """`text` as one printable line: control characters are escaped, and nothing is removed."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def reason_of(error: BaseException) -> str:
    """The first line of the message of an error, printable; the name of the error if it has no message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:MOST_LETTERS_OF_A_REASON]
