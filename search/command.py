"""digit-search COMMAND: every command of the project under one name; the same code as `python -m ...`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from digits_core.command import CALLED_AS, PROGRAM, CommandParser
from digits_core.errors import printable, suggestion


class Verb(NamedTuple):
    """What `digit-search NAME` runs.

    Attributes:
        module: has `build_parser()` and `main(argv)`.
        summary: one line of the help.
        flag: of the module's command, that the verb stands for.
    """

    module: str
    summary: str
    flag: str | None = None


GROUPS: dict[str, dict[str, Verb]] = {
    "search": {
        "run": Verb("search.run", "search one space or several, or check what would run (--dry-run)"),
        "resume": Verb("search.run", "continue a run, or make it longer (--trials +20)", "--resume"),
        "status": Verb("search.run", "print the progress of a run from another terminal", "--status"),
        "retrain": Verb("search.retrain", "train the best trial again, on more data or with more seeds"),
        "ensemble": Verb("search.ensemble", "combine kept models, and say whether they beat the best one"),
    },
    "look at the results": {
        "board": Verb("results.leaderboard", "print the leaderboard"),
        "compare": Verb("results.compare", "say which differences are real"),
        "report": Verb("results.report", "write one HTML page about one run or several"),
        "plots": Verb("results.plots", "draw PNG and SVG figures"),
        "export": Verb("results.export", "write the leaderboard as csv, json, md, latex, parquet or xlsx"),
        "runs": Verb("results.runs", "list, tag or delete runs"),
    },
    "use a model": {
        "evaluate": Verb("search.evaluate", "score a model on labelled images: AP per class, errors, numbers"),
        "predict": Verb("search.predict", "write pred.json and pred.csv for a folder of images"),
        "onnx": Verb("digits_core.to_onnx", "export a model to ONNX"),
        "pretrain": Verb("digits_core.pretrain", "train the small backbone that is shipped"),
    },
    "data and records": {
        "data": Verb("digits_core.data.command", "check, draw, preview and convert data sets"),
        "replay": Verb("search.replay", "check that a run's record agrees with the search policy"),
        "repair": Verb("results.repair", "show what a damaged record lost, and keep the rest"),
    },
}

VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}

SHELLS = ("bash", "zsh")


def build_parser() -> CommandParser:
    """The flags of `digit-search` itself; each verb has its own."""
    listing = "\n\n".join(
        f"{title}:\n" + "\n".join(f"  {name:10} {verb.summary}" for name, verb in group.items())
        for title, group in GROUPS.items()
    )
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND ...",
        description="Hyperparameter search for Faster R-CNN digit detectors.\n\n" + listing,
        epilog=f"{PROGRAM} COMMAND --help lists the flags of a command.\n"
        "RUN is the name of a run, or its folder; without it a command takes the latest run.\n",
    )
    parser.lists = "commands"
    parser.add_argument(
        "--print-completion", choices=SHELLS, help="print a completion script for a shell (needs the package shtab)"
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command."""
    typed = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if not typed:
        parser.print_help()
        return 0
    if typed[0].startswith("-"):
        args = parser.parse_args(typed)
        return _print_completion(args.print_completion, parser) if args.print_completion else 0
    name, *rest = typed
    verb = VERBS.get(name)
    if verb is None:
        parser.error(f"there is no command '{printable(name)}'{suggestion(name, VERBS)}")
    CALLED_AS.set(f"{PROGRAM} {name}")
    return int(import_module(verb.module).main([*([verb.flag] if verb.flag else []), *rest]))


def _print_completion(shell: str, parser: CommandParser) -> int:
    """Print a completion script of all commands and their flags."""
    try:
        import shtab
    except ImportError:
        parser.error("--print-completion needs the package shtab: pip install shtab")
    whole = CommandParser(prog=PROGRAM)
    commands = whole.add_subparsers()
    for name, verb in VERBS.items():
        own = import_module(verb.module).build_parser()
        commands.add_parser(name, parents=[own], add_help=False, conflict_handler="resolve", help=verb.summary)
    sys.stdout.write(shtab.complete(whole, shell))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
