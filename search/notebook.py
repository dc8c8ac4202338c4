"""run_search for notebooks and scripts: runs a search in a separate process and returns its results as objects."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from digits_core.command import say
from digits_core.config.parameter import Scalar
from digits_core.errors import UserError, did_you_mean
from results.views.opened_run import OpenedRun, open_run
from search.cli.flags import build_parser
from search.cli.values import run_name
from search.machine.probe import child_environment

Flag = Scalar | Path | Mapping[str, Scalar]

NOT_HERE = ("status", "json", "dry_run", "list_spaces", "list_parameters", "list_knobs")
"""Flags that print something and start no search."""


class SearchError(UserError):
    """The search failed; the message says what to do."""


def run_search(space: str | Path, *, out: str | Path = "runs", name: str | None = None, **flags: Flag) -> OpenedRun:
    """Run a search to its end, as `digit-search run` does, and open its run folder.

    It runs in a separate process, so Ray leaves nothing behind in this one; its output is printed here line by line.
    Interrupting the cell ends the search in order; `resume=True` continues it.

    Args:
        space: space names separated by commas, or the path of your own space file.
        out: the folder of run folders.
        name: the name of the run folder; None makes one from space and time.
        flags: the flags of `digit-search run`, with underscores and without leading dashes: `trials=4`,
            `epochs=2`, `data="FOLDER"`, `quiet=True`; `set={"optim.lr": 1e-3}` sets parameters. `resume=NAME`, or
            `resume=True` with `name`, continues a run.

    Returns:
        The opened run: `.leaderboard` is a pandas DataFrame; every `results.plot_...` takes it.

    Raises:
        SearchError: a flag is unknown, or the search failed.
        KeyboardInterrupt: the search was interrupted, and its trials are saved.
    """
    resume = flags.pop("resume", False)
    if resume is True and name is None:
        raise SearchError("run_search: resume=True needs the name of the run: resume=NAME")
    name = str(resume) if isinstance(resume, str | Path) else name
    name = name or run_name(None, str(space))
    arguments = ["--resume", name] if resume else ["--space", str(space), "--name", name]
    known = {action.dest for action in build_parser()._actions}
    for flag, value in flags.items():
        if flag in NOT_HERE:
            option = f"--{flag.replace('_', '-')}"
            raise SearchError(f"run_search: {flag} starts no search; use digit-search run {option}")
        if flag not in known:
            hint = did_you_mean(flag, known)
            raise SearchError(f"run_search: there is no flag {flag}{hint}; digit-search run --help lists them")
        option = f"--{flag.replace('_', '-')}"
        if isinstance(value, Mapping):
            for parameter, one in value.items():
                arguments += [option, f"{parameter}={_text(one)}"]
        elif value is True:
            arguments.append(option)
        elif value is not None and value is not False:
            arguments += [option, _text(value)]
    command = [sys.executable, "-u", "-m", "search.run", *arguments, "--out", str(out)]
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=child_environment()
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                say(line.rstrip("\n"))
                last = line.strip() or last
        except KeyboardInterrupt:  # the child saves its trials; it may have got the signal already
            child.send_signal(2)
            child.wait()
            raise
    if child.returncode == 130:
        raise KeyboardInterrupt
    if child.returncode not in (0, 1):
        raise SearchError(last.removeprefix("search.run: ") or f"the search ended with exit code {child.returncode}")
    inside = Path(out) / name
    return open_run(inside if inside.exists() else name)


def _text(value: Scalar | Path) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
