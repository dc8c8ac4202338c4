"""How a run was started: command, commit, versions and machine, as run.json and its trials have them."""

import shlex
from typing import Any

from digits_core.errors import printable
from results.views.opened_run import OpenedRun

NOT_RECORDED = "not recorded"

VERSIONS = {
    "digit-search": "digit-search",
    "python": "Python",
    "torch": "torch",
    "torchvision": "torchvision",
    "ray": "ray",
}
"""Entries of `versions` in run.json with their names on the page."""


def origin_of(run: OpenedRun) -> dict[str, Any]:
    """The `command` of the first start (None if it is not recorded), and `facts` as names and values."""
    about = run.about
    command = about.get("command")
    facts = [("commit", _commit(about)), ("versions", _versions(about)), ("machine", _machine(run))]
    if run.record.num_drivers > 1:
        facts.append(("started", f"{run.record.num_drivers} times; all this is about the first start"))
    return {
        "command": printable(shlex.join(map(str, command))) if isinstance(command, list) and command else None,
        "facts": facts,
    }


def _commit(about: dict[str, Any]) -> str:
    commit = about.get("git_commit", NOT_RECORDED)
    return "none, digit-search was not in a git checkout" if commit is None else printable(str(commit))


def _versions(about: dict[str, Any]) -> str:
    known = about.get("versions")
    if not isinstance(known, dict) or not known:
        return NOT_RECORDED
    return ", ".join(f"{name} {printable(str(known.get(key) or NOT_RECORDED))}" for key, name in VERSIONS.items())


def _machine(run: OpenedRun) -> str:
    """System and cores of the machine that started the search, and the devices that trained."""
    known = run.about.get("machine")
    known = known if isinstance(known, dict) else {}
    cores = known.get("cores")
    parts = [printable(str(known["system"]))] if known.get("system") else []
    if isinstance(cores, int):
        parts.append(f"{cores} core{'s' * (cores != 1)}")
    devices = sorted({printable(trial.device) for trial in run.record.trials.values() if trial.device})
    if devices:
        parts.append(f"trained on {', '.join(devices)}")
    return ", ".join(parts) or NOT_RECORDED
