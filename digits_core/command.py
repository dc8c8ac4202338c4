"""The common behaviour of all commands: one sentence per error, exit codes, no abbreviated flags."""

import argparse
import contextlib
import errno
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NoReturn

from digits_core.errors import UserError, escaped, meant_words, near_names, printable, refuse_credentials

PROGRAM = "digit-search"
"""The console command."""

CALLED_AS: ContextVar[str | None] = ContextVar("called_as", default=None)
"""How the user called this command where it was not `python -m ...`: `digit-search board`."""

MOST_LETTERS = 500
"""The longest error message about arguments; the rest is cut off."""

JSON_HELP = "print one JSON document instead; a missing value is null"
"""Help of `--json`."""

PACKAGES = ("ray", "torch", "torchvision", "optuna", "pyarrow", "pandas", "numpy")
"""Packages whose versions can change the results of a run."""


def version_of(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Version(argparse.Action):
    """Prints versions and exits."""

    def __init__(self, option_strings: Any, dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> NoReturn:
        others = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
        say(f"digit-search {version_of('digit-search')} (Python {platform.python_version()}, {others})")
        parser.exit(0)


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser that answers wrong arguments with one sentence instead of the usage, and exits with code 2.

    Attributes:
        lists: what `--help` lists.
        hints: what to do instead of giving a flag that this command does not have.
    """

    lists = "flags"
    hints: Mapping[str, str] = MappingProxyType({})

    def __init__(self, *, prog: str | None = None, **settings: Any) -> None:
        """As ArgumentParser, but descriptions keep their line breaks, and flags cannot be abbreviated."""
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        called = CALLED_AS.get()
        if called is not None and not (prog or "").startswith(called):  # the parser of an action adds its name
            prog = called
        super().__init__(prog=prog, allow_abbrev=False, **settings)
        self.add_argument(
            "--version",
            action=_Version,
            nargs=0,
            help="print the versions of digit-search, Python and the main packages, and exit",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but refuses credentials in arguments, because messages and run folders would contain them."""
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
        """Print an error message and how to get help, and exit with code 2."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            message += self._meant([one.partition("=")[0] for one in words.split() if one.startswith("--")])
        message = printable(message)
        message = message if len(message) <= MOST_LETTERS else message[:MOST_LETTERS] + "..."
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; --help lists all {self.lists}\n")

    def _meant(self, unknown: list[str]) -> str:
        """The end of a message about unknown flags: what the user may have meant."""
        hints = [f"; {self.hints[flag]}" for flag in unknown if flag in self.hints]
        flags = [one.removeprefix("--") for one in self._option_string_actions if one.startswith("--")]
        others = [flag.removeprefix("--") for flag in unknown if flag not in self.hints]
        if len(others) == 1:
            near = near_names(others[0], flags)
        else:
            near = list(dict.fromkeys(name for one in others for name in near_names(one, flags)[:1]))
        return "".join(hints) + meant_words([f"--{name}" for name in near])


def at_least(low: int) -> Callable[[str], int]:
    """The argparse type of whole numbers of at least `low`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, got '{text}'")
        return number

    return parse


def port(text: str) -> int:
    """The argparse type of ports that need no special rights."""
    number = int(text) if text.isdigit() and text.isascii() else 0
    if not 1024 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 1024 to 65535, got '{text}'")
    return number


def number_where(holds: Callable[[float], bool], words: str) -> Callable[[str], float]:
    """The argparse type of numbers for which `holds` is true; `words` describe the condition, after "must"."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not holds(number):  # always false for NaN
            raise argparse.ArgumentTypeError(f"must {words}, got '{text}'")
        return number

    return parse


def say(line: str = "", *, error: bool = False, with_token: bool = False) -> None:
    """Print one line without control characters. Commands print everything with this function, except tables.

    Args:
        line: the text.
        error: print to standard error.
        with_token: keep what looks like a secret in an address: the user needs the token of the program itself.
    """
    print(escaped(line) if with_token else printable(line), file=sys.stderr if error else sys.stdout, flush=True)


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


@contextlib.contextmanager
def stdout_to_stderr(*, active: bool = True) -> Iterator[None]:
    """Send everything that is printed to standard error, also by child processes: JSON follows on standard output.

    Args:
        active: whether to do so.
    """
    if not active:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def refusal(error: OSError) -> str | None:
    """A sentence for an operating-system error that a user can fix; None for other errors."""
    place = error.filename2 or error.filename or "a file"
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"no permission for {place}: check whether you can read, write or execute it"
        case errno.ENOSPC | errno.EDQUOT | errno.EROFS:
            return f"cannot write {place}: {error.strerror}"
        case errno.EISDIR | errno.ENOTDIR | errno.EIO | errno.ESTALE:  # the last two: errors of a disk or a mount
            return f"{place}: {error.strerror}"
    return None


def run_command(program: str, body: Callable[[], int]) -> int:
    """Run the body of a command, and turn errors that a user can fix into one sentence and an exit code.

    Args:
        program: the command's name, before each of its sentences.
        body: the command.

    Returns:
        The result of `body`; 2 after a UserError or if the system refuses access to a file; 130 after Ctrl-C.
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
    except BrokenPipeError:  # the reader of the output has closed it, for example `| head`
        sys.stderr.close()
        return 0
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        sentence = refused
    say(f"{program}: {sentence}", error=True)
    return 2
