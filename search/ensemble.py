"""python -m search.ensemble: combines kept models of a run, and says whether they are better than the best one."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.command import (
    JSON_HELP,
    CommandParser,
    at_least,
    number_where,
    run_command,
    say_json,
    stdout_to_stderr,
)
from results.record.folder import RUN_HELP, find_run, read_record_of, refuse_links
from results.record.lock import lock_run
from search.defaults import DEFAULT_IOU

if TYPE_CHECKING:
    from rich.console import Console

    from digits_core.data.cache import DigitData
    from digits_core.data.source import DataSource

_EPILOG = """
examples:
  digit-search ensemble runs/my-search
  digit-search ensemble runs/my-search --trials t0003,t0001,t0007 --most 3

The validation images are split into two halves. Each half chooses an ensemble, which is scored on the other half. The
ensemble that is written is chosen on all of them.
"""

DEFAULT_MOST = 5

_iou = number_where(lambda number: 0 < number < 1, "be a number between 0 and 1")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.ensemble",
        description="Combine the kept models of a run into an ensemble, and compare it with the best single model.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--trials", metavar="ID,ID,...", help="choose among these models (default: all that the run has kept)"
    )
    parser.add_argument(
        "--most",
        type=at_least(2),
        default=DEFAULT_MOST,
        metavar="N",
        help=f"the largest ensemble; a model can count several times (default {DEFAULT_MOST})",
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="average the weights of the models into one model instead, as fast as each of them; for trainings that "
        "start from the same weights, such as replicates",
    )
    parser.add_argument(
        "--iou",
        type=_iou,
        metavar="X",
        help="boxes of one class whose IoU is above X are fused (default: detect.box_fusion of the best model, or "
        f"{DEFAULT_IOU} if that is off)",
    )
    parser.add_argument("--data", metavar="FOLDER", help="where the run's data is now (default: as in the search)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("search.ensemble", lambda: _ensemble(args))


def _ensemble(args: argparse.Namespace) -> int:
    from digits_core.terminal import open_console

    with stdout_to_stderr(active=args.json):
        document = _make(args, open_console())
    if args.json:
        say_json(document)
    return 0


def _make(args: argparse.Namespace, console: "Console") -> dict[str, Any]:
    """Choose, print, and write the ensemble; returns all of it as values for JSON."""
    from digits_core.predict import progress_bar
    from digits_core.training.device import choose_device
    from search.models.ensemble import choose_on, choose_on_all
    from search.models.ensemble_folder import write_average, write_folder
    from search.models.ensemble_words import document_of, print_choices, print_written, verdicts_of
    from search.models.kept import kept_models
    from search.models.pool import make_pool
    from search.models.soup import Soup

    folder = find_run(args.run)
    refuse_links(folder)
    record = read_record_of(folder)
    names = None if args.trials is None else [name.strip() for name in args.trials.split(",") if name.strip()]
    with lock_run(folder):  # a running search could delete the models
        models, notes = kept_models(folder, record, names)
        data, source = _open_data(folder, args.data)
        console.print(f"{len(models)} models of {folder}: {', '.join(one.name for one in models)}", soft_wrap=True)
        for note in notes:
            console.print(note, soft_wrap=True)
        device = choose_device(args.device)
        with progress_bar(len(models)) as advance:
            pool = make_pool(
                models,
                data,
                iou=args.iou,
                metric=record.metric,
                device=device,
                average=args.average,
                progress=advance,
            )
        choices = [choose_on(pool, half, args.most) for half in (0, 1)]
        verdicts = verdicts_of(pool, choices)
        print_choices(console, pool, choices, verdicts)
        document = {"run": str(folder), **document_of(pool, choices, verdicts, notes)}
        counts, alone = choose_on_all(pool, args.most)
        if sum(map(bool, counts)) < 2:
            name = pool.models[pool.lead(alone)].name
            console.print(f"on all validation images no {pool.noun} is better than {name} alone, so none is written")
            return {**document, "folder": None, "ensemble": None}
        known = {"metric": record.metric, "data": source.folder, "verdicts": [one.words for one in verdicts]}
        if isinstance(pool, Soup):
            target, metrics = write_average(folder, pool, counts, data, device, known)
        else:
            target, metrics = write_folder(folder, pool, counts, alone, data, device, known)
    print_written(console, pool, target, metrics, verdicts)
    return {**document, "folder": str(target), "ensemble": metrics}


def _open_data(folder: Path, given: str | None) -> "tuple[DigitData, DataSource]":
    """The data of a run, at the place of `--data`, and its source.

    Raises:
        UserError: it cannot be used, or is other data than the run's.
    """
    from digits_core.data.cache import open_data
    from search.cli.trusted import data_choices, refuse_unnamed, remember
    from search.cli.values import data_source
    from search.models.source import check_unchanged, data_of

    source = data_of(folder)
    if given is None:
        refuse_unnamed(data_choices(source), (), f"digit-search ensemble {folder}")
    else:
        source = replace(source, folder=data_source(given).folder)
    remember(data_choices(source))
    data = open_data(source)
    check_unchanged(folder, data, source)
    return data, source


if __name__ == "__main__":
    raise SystemExit(main())
