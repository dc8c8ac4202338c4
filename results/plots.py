"""python -m results.plots: writes learning curves, overfitting and predictions as PNG and SVG."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from digits_core.command import CommandParser, at_least, run_command, say
from digits_core.errors import RunError, UsageError, did_you_mean, printable
from results.figures.publication import draw_figures, save_figure
from results.record.folder import RUN_HELP, find_run, refuse_links
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.samples import SAMPLES_FILE
from results.views.curves import MOST_LINES
from results.views.opened_run import open_run

PLOTS_FOLDER = "plots"

_EPILOG = """
examples:
  digit-search plots runs/my-search
  digit-search plots runs/my-search --trials t0003,t0000 -o figures

Lines show the mean over the trainings of a configuration, bands the minimum and maximum.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.plots",
        description="Draw learning curves, overfitting and predictions of a run as PNG and SVG files.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help=f"folder to write (default RUN/{PLOTS_FOLDER})")
    parser.add_argument("--trials", metavar="A,B", help="draw the configurations of these trials (default: the best)")
    parser.add_argument(
        "--top",
        type=at_least(1),
        default=MOST_LINES,
        metavar="N",
        help=f"number of best configurations (default {MOST_LINES})",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.plots", lambda: _plot(args))


def _plot(args: argparse.Namespace) -> int:
    folder = find_run(args.run)
    if args.out is None:
        refuse_links(folder)
    run = open_run(folder)
    leads = chosen_settings(run.record, args.trials, args.top)
    out = args.out or folder / PLOTS_FOLDER
    figures = draw_figures(run, leads)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save_figure(figure, out / name)
    except OSError as error:
        raise UsageError(f"-o {printable(str(out))}: cannot be written: {error.strerror}") from None
    if "predictions" not in figures:
        say(f"no predictions: {leads[0].trial_id} has no match table yet, or the run has no {SAMPLES_FILE}")
    for name in figures:
        say(str(out / f"{name}.png"))
    say(f"wrote {len(figures)} figures, each as PNG and SVG")
    return 0


def chosen_settings(record: RunRecord, names: str | None, top: int) -> list[TrialRecord]:
    """The first trainings of the configurations to draw, best first.

    Raises:
        UsageError: a trial does not exist, or two trials have the same configuration.
        RunError: no trial has reported an epoch yet.
    """
    if names is None:
        leads = [lead for lead in record.settings() if lead.epochs][:top]
        if not leads:
            raise RunError(f"run '{record.run}' has no epoch to draw yet")
        return leads
    found = []
    for name in (item.strip() for item in names.split(",")):
        trial = record.trials.get(name)
        if trial is None or not trial.epochs:
            raise UsageError(
                f"--trials {printable(name)}: run '{record.run}' has no such trial with an epoch"
                f"{did_you_mean(name, record.trials)}"
            )
        found.append(trial)
    if len({trial.config_hash for trial in found}) < len(found):
        raise UsageError(f"--trials {printable(names)}: two of them are trainings of one configuration")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
