"""Writes docs/reference.md from the argparse parsers, the parameters and the spaces: python docs/make_reference.py."""

import io
import sys
from argparse import SUPPRESS, ArgumentParser, _SubParsersAction
from importlib import import_module
from pathlib import Path

from digits_core.command import CALLED_AS, PROGRAM
from digits_core.config.train_config import parameters
from results.record.schema import BOOTSTRAP, BOXES, EPOCHS, LEADERBOARD, MATCHES, SAMPLES, THRESHOLDS
from search.command import GROUPS
from spaces.catalogue import SPACES

OUT = Path(__file__).with_name("reference.md")

INTRODUCTION = """# Reference

Every command, parameter, space and column. This page is written by `python docs/make_reference.py`.
"""


def reference() -> str:
    """The whole page."""
    page = io.StringIO()
    page.write(INTRODUCTION)
    page.write("\n## Commands\n\nEach `digit-search` command is also a module:\n\n")
    page.write("| command | module | what it does |\n| --- | --- | --- |\n")
    for group in GROUPS.values():
        for name, verb in group.items():
            module = verb.module.removesuffix(".command") + (f" {verb.flag}" if verb.flag else "")
            page.write(f"| `digit-search {name}` | `python -m {module}` | {verb.summary} |\n")
    for group in GROUPS.values():
        for name, verb in group.items():
            if verb.flag is None:  # otherwise the flags of another command
                CALLED_AS.set(f"{PROGRAM} {name}")
                _command(page, import_module(verb.module).build_parser())
    CALLED_AS.set(None)
    page.write("\n## Parameters\n\n`--set PARAMETER=VALUE`, or a TOML file for `--config`.\n\n")
    page.write("| parameter | default | takes | meaning |\n| --- | --- | --- | --- |\n")
    for parameter in parameters().values():
        page.write(
            f"| `{parameter.name}` | {parameter.default} | {_cell(parameter.limits)} | {_cell(parameter.help)} |\n"
        )
    page.write("\n## Spaces\n\n| space | what | varies | baselines |\n| --- | --- | --- | --- |\n")
    for space in SPACES.values():
        baselines = [
            f"{one.name}: {', '.join(f'{k} = {v}' for k, v in one.overrides.items())}" for one in space.baselines
        ]
        varies = ", ".join(f"`{name}`" for name in sorted(space.fields()))
        page.write(f"| `{space.name}` | {space.summary} | {varies} | {_cell('; '.join(['default', *baselines]))} |\n")
    page.write("\n## Tables\n\nTimes are UTC. A missing score is null.\n")
    for title, schema in (
        ("leaderboard.parquet: one row per trial, and one more column per parameter that varies", LEADERBOARD),
        ("epochs.parquet: one row per trial and epoch", EPOCHS),
        ("thresholds/TRIAL.parquet: one row per setting of a task, swept on the trial's best epoch", THRESHOLDS),
        ("matches/TRIAL.parquet: one row per image, the best epoch against the annotations", MATCHES),
        ("bootstrap/TRIAL.parquet: one row per resample of the images, the same in every file of a run", BOOTSTRAP),
        ("samples.parquet and misses.parquet: one row per image to look at, with what is annotated", SAMPLES),
        ("boxes.parquet: one row per training box of a sample", BOXES),
    ):
        page.write(f"\n### {title}\n\n| column | type |\n| --- | --- |\n")
        for field in schema:
            page.write(f"| `{field.name}` | {field.type} |\n")
    return page.getvalue()


def _command(page: io.StringIO, parser: ArgumentParser) -> None:
    page.write(f"\n### {parser.prog}\n\n{parser.description or ''}\n\n")
    actions = [
        action
        for action in parser._actions
        if not isinstance(action, _SubParsersAction)
        and action.help != SUPPRESS
        and not {"--help", "--version"} & set(action.option_strings)
    ]
    if actions:
        page.write("| flag | meaning |\n| --- | --- |\n")
    for action in actions:
        name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        metavar = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
        value = metavar or ("|".join(map(str, action.choices)) if action.choices else "")
        shown = f"{name} {value}".strip() if action.option_strings and action.nargs != 0 else name
        page.write(f"| `{_cell(shown)}` | {_cell(action.help or '')} |\n")
    for sub in parser._actions:
        if isinstance(sub, _SubParsersAction):
            for one in sub.choices.values():
                _command(page, one)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    OUT.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"wrote {OUT}\n")
