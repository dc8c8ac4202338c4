"""How every command of the house behaves: one sentence per mistake, exit codes, whole flag names."""

import argparse
import errno
import importlib.metadata
import json
import math
import platform
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from digits_core.errors import UserError, did_you_mean, printable, refuse_credentials

CALLED_AS: ContextVar[str | None] = ContextVar("called_as", default=None)
"""How the user called this command where it was not `python -m ...`: `digit-search board`."""

MOST_LETTERS = 500
"""Of a mistake that is quoted back."""


JSON_HELP = "print one JSON document instead; a missing value is null"
"""Help of `--json`."""

PACKAGES = ("ray", "torch", "torchvision", "optuna", "pyarrow", "pandas", "numpy")
"""Those whose versions may change what a run finds."""


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Version(argparse.Action):
    """Prints versions and ends."""

    def __init__(self, option_strings: Any, dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> NoReturn:
        others = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
        say(f"digit-search {version_of('digit-search')} (Python {platform.python_version()}, {others})")
        parser.exit(0)


class CommandParser(argparse.ArgumentParser):
    """argparse that answers a mistake with one sentence instead of a page, and exits with 2."""

    def __init__(self, *, prog: str | None = None, **settings: Any) -> None:
        """As ArgumentParser; descriptions keep their line breaks, flags are never guessed from a part."""
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=CALLED_AS.get() or prog, allow_abbrev=False, **settings)
        self.add_argument("--version", action=_Version, nargs=0, help="print the versions of what runs, and end")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, once no argument holds credentials: they would be repeated, and stored with the command."""
        flag = ""
        for one in sys.argv[1:] if args is None else args:
            name, equals, value = one.partition("=") if one.startswith("-") else (flag, "=", one)
            if equals:
                try:
                    refuse_credentials(name or "an argument", value)
                except UserError as error:
                    self.error(str(error))
            flag = "" if equals else name
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            flag = words.split()[0].partition("=")[0]
            flags = [one for one in self._option_string_actions if one.startswith("--")]
            hint = did_you_mean(flag, flags) if flag.startswith("--") else ""
            message = f"{message}{hint if 'did you mean' in hint else ''}"
        message = printable(message)
        message = message if len(message) <= MOST_LETTERS else message[:MOST_LETTERS] + "..."
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; --help lists every flag\n")


def at_least(low: int) -> Callable[[str], int]:
    """The argparse type of whole numbers from `low` on."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, got '{text}'")
        return number

    return parse


def number_where(holds: Callable[[float], bool], words: str) -> Callable[[str], float]:
    """The argparse type of numbers for which something holds; `words` say what, after "must"."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not holds(number):  # nothing holds of what is no number
            raise argparse.ArgumentTypeError(f"must {words}, got '{text}'")
        return number

    return parse


def say(line: str = "", *, error: bool = False) -> None:
    """Print one line; of what it quotes nothing is obeyed. No command prints in another way, tables apart.

    Args:
        line: the text.
        error: print on the standard error.
    """
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=True)


def say_text(text: str) -> None:
    """Print a text of several lines, such as a table as CSV; control characters in a line are shown, not obeyed."""
    lines = text.removesuffix("\n").split("\n")
    print("\n".join(map(printable, lines)), flush=True)


def say_json(document: Any) -> None:
    """Print one JSON document.

    Args:
        document: its values; NaN is not allowed, a missing value is None.
    """
    say_text(json.dumps(document, indent=1, allow_nan=False))


def refusal(error: OSError) -> str | None:
    """What the system refuses to a user, in a sentence; None of an error that a user cannot mend."""
    place = error.filename2 or error.filename or "a file"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"no permission for {place}: see whether you may read, write or execute it"
        case errno.ENOSPC | errno.EDQUOT | errno.EROFS:
            return f"cannot write {place}: {error.strerror}"
        case errno.EISDIR | errno.ENOTDIR | errno.EIO | errno.ESTALE:  # the last two: a disk or a mount gives errors
            return f"{place}: {error.strerror}"
    return None


def run_command(program: str, body: Callable[[], int]) -> int:
    """Run a command's body and turn what a user can cause into one sentence and an exit code.

    Args:
        program: the command's name, before each of its sentences.
        body: the command.

    Returns:
        What `body` returns; 2 after a UserError, or where the system refuses a file; 130 after Ctrl-C.
    """
    program = CALLED_AS.get() or program
    try:
        return body()
    except UserError as error:
        sentence = str(error)
        for line in getattr(error, "lines", ()):
            say(line, error=True)
    except KeyboardInterrupt:
        say(f"{program}: interrupted", error=True)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        sentence = refused
    say(f"{program}: {sentence}", error=True)
    return 2
