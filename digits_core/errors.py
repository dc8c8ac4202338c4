"""What a user can get wrong, by name (stdlib only)."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

from digits_core.credentials import fault_of, scrub

MOST_LETTERS_OF_A_REASON = 300


class UserError(Exception):
    """A mistake that the user can mend: the message is one sentence that says how."""


class ConfigError(UserError):
    """A parameter of TrainConfig has an unknown name, a wrong type or a value outside its limits."""


class DataError(UserError):
    """Images or annotations cannot be used as they are."""


class WeightsError(UserError):
    """Initial weights or a checkpoint are missing, damaged or of another shape."""


class DownloadError(WeightsError):
    """Initial weights cannot be downloaded here."""


class DeviceError(UserError):
    """The device asked for is not there or cannot be used by the installed torch."""


class SpaceError(UserError):
    """A search space is unknown, broken or at odds with another one."""


class RunError(UserError):
    """A run folder is missing, damaged, in use or of another schema version."""


class UsageError(UserError):
    """Flags that are each well-formed do not go together, or ask for what is not there."""


class DivergedError(Exception):
    """Training produced a loss that is not finite; the message names the step and the losses."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing clause that names the nearest known names, or lists them all when few.

    Returns:
        For example `; did you mean 'anchors'?` or `; known: a, b`. Empty when nothing is near.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=2, cutoff=0.6) or _with_such_an_end(name, names)
    if near:
        return "; did you mean " + " or ".join(f"'{match}'" for match in near) + "?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 12 else ""


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
    """See that an address holds no credentials: it is shown, and stored in run folders.

    Raises:
        UsageError: it does; the message does not repeat it, and says where they belong.
    """
    fault = fault_of(flag, address)
    if fault is not None:
        raise UsageError(fault)


def printable(text: str) -> str:
    """`text` in one line for people: control characters are shown, not obeyed; passwords in addresses are left out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in scrub(text))


def reason_of(error: BaseException) -> str:
    """The first line of a library's error, printable; its name where it has no text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:MOST_LETTERS_OF_A_REASON]
