"""What a search takes from the run folders of --learn-from."""

import json
from pathlib import Path
from typing import Any

from digits_core.errors import RunError, UsageError, printable
from results.record.folder import find_run, read_record_of, read_run_file
from results.record.run import RunRecord
from search.cli.settings import SearchSettings, make_plan
from search.policy.prior import Learned, normal_scores

MAX_LEARNED = 2000
"""Trials of earlier runs that a search learns from."""

MOST_NAMED = 6
"""Parameters that a message names."""


def learn_from(settings: SearchSettings, names: str) -> tuple[dict[str, str], list[str]]:
    """The trials of earlier runs that a new search can learn from, for `SearchSettings.learned`, and notes on them.

    Args:
        settings: of the new search.
        names: the value of `--learn-from`: runs, separated by commas.

    Raises:
        UserError: a run cannot be read, has no scores, or varies no parameter that the search varies.
    """
    fields = make_plan(settings).space.fields()
    learned: dict[str, str] = {}
    notes: list[str] = []
    folders = [find_run(name.strip(), Path(settings.out)) for name in names.split(",") if name.strip()]
    if not folders:
        raise UsageError("--learn-from: names no run")
    twice = next((one.name for one in folders if [other.name for other in folders].count(one.name) > 1), None)
    if twice is not None:
        raise UsageError(f"--learn-from: names two runs called {printable(twice)}; name each run once")
    for folder in folders:
        record = read_record_of(folder)
        searched = [trial for trial in record.trials.values() if trial.role == "search" and trial.status != "running"]
        varied = _varied([trial.config for trial in searched])
        shared = fields & varied
        if not shared:
            raise UsageError(
                f"--learn-from {printable(str(folder))}: its trials vary {_listed(varied)}, this search varies "
                f"{_listed(fields)}; learn from a run that varies at least one of these"
            )
        scores = normal_scores(searched, settings.metric)
        if len(scores) < 2:
            raise RunError(
                f"--learn-from {printable(str(folder))}: has {len(scores)} trials with {settings.metric}; at least 2 "
                "are needed"
            )
        for trial in searched:
            if trial.trial_id in scores:
                config = {name: trial.config[name] for name in sorted(shared) if name in trial.config}
                learned[f"{folder.name}:{trial.trial_id}"] = Learned(config, scores[trial.trial_id]).to_json()
        notes.append(_note(folder, record, settings, len(scores), shared, fields))
    if len(learned) > MAX_LEARNED:
        raise UsageError(f"--learn-from: the runs have {len(learned)} trials, at most {MAX_LEARNED} can be used")
    return learned, notes


def _varied(configs: list[dict[str, Any]]) -> set[str]:
    names = {name for config in configs for name in config if not name.startswith("runtime.")}
    return {name for name in names if len({json.dumps(one.get(name)) for one in configs}) > 1}


def _note(
    folder: Path, record: RunRecord, settings: SearchSettings, count: int, shared: set[str], fields: set[str]
) -> str:
    """What is learned from a run, and what of it differs from the search."""
    words = f"learns from {count} trials of {folder.name}: {_listed(shared)}"
    if fields - shared:
        words += f"; nothing about {_listed(fields - shared)}"
    if record.metric != settings.metric:
        words += f"; that run maximised {record.metric}, its {settings.metric} counts here"
    try:
        known = read_run_file(folder).get("settings", {}).get("data", {}).get("folder")
    except (RunError, AttributeError):
        known = None
    if known != settings.data.folder:
        words += "; it trained on other data, so only the order of its scores counts"
    return words


def _listed(names: set[str]) -> str:
    """At most MOST_NAMED names."""
    some = sorted(names)
    more = f" and {len(some) - MOST_NAMED} more" if len(some) > MOST_NAMED else ""
    return ", ".join(map(printable, some[:MOST_NAMED])) + more if some else "nothing"
