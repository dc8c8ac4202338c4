"""The flags of python -m search.run: search settings alone; hyperparameters belong to spaces, --set and --config."""

import argparse

from digits_core.command import CommandParser, at_least, number_where
from digits_core.data.command import add_layout_flags
from search import defaults

_EPILOG = """
examples:
  python -m search.run --space anchors
  python -m search.run --space anchors,lr_schedules --data FOLDER --trials 40 --epochs 12
  python -m search.run --space lr_schedules --set model.min_size=96 --time-budget 30m
  python -m search.run --resume anchors-20260131-120000
  python -m search.run --resume anchors-20260131-120000 --trials +20 --epochs 12

exit codes: 0 fine, 1 no trial has a score, 2 a mistake in what was asked, 130 interrupted
"""


AUTO = "auto"
"""Of `--gpus-per-trial`: it is measured."""

LATEST = ""
"""Of `--resume` and `--status`: the run that was started last."""

_share = number_where(lambda number: 0 < number < 1, "be a number between 0 and 1")
_positive = number_where(lambda number: 0 < number < 1e6, "be a number above 0")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command: search settings alone; hyperparameters belong to spaces, --set and --config."""
    parser = CommandParser(
        prog="python -m search.run",
        description="Search hyperparameters of a Faster R-CNN digit detector and keep a leaderboard.",
        epilog=_EPILOG,
    )
    for add in (_add_spaces, _add_data, _add_search, _add_certainty, _add_folder, _add_machines):
        add(parser)
    return parser


def _add_spaces(parser: argparse.ArgumentParser) -> None:
    """What is searched over, and where trainings start from."""
    group = parser.add_argument_group("what to search")
    group.add_argument(
        "--space",
        metavar="NAME[,NAME]",
        help="spaces to search together, or a file of yours (FILE.py), which is run as code",
    )
    group.add_argument("--list-spaces", action="store_true", help="print the spaces and end")
    group.add_argument("--list-knobs", action="store_true", help=argparse.SUPPRESS)
    group.add_argument(
        "--list-parameters", action="store_true", help="print every parameter of --set, its limits and default, and end"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="set a parameter to a value; can be repeated",
    )
    group.add_argument("--config", metavar="FILE.toml", help="the same, kept in a file; a space may vary what it sets")
    group.add_argument(
        "--from",
        dest="source",
        metavar="RUN[:TRIAL]|CHECKPOINT",
        help="sweep a trained model instead of training one; with spaces like thresholds alone",
    )
    group.add_argument(
        "--init-from",
        metavar="RUN[:TRIAL]|CHECKPOINT",
        help="start every training from the weights of a trained model; what does not fit is left out, and listed",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Which images."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="FOLDER",
        help="COCO folder, or 'drawn', the built-in data (default; with --from RUN: the run's)",
    )
    add_layout_flags(group)
    group.add_argument("--skip-bad", action="store_true", help="leave out images and boxes that the check refuses")
    group.add_argument(
        "--images-per-epoch", type=at_least(1), metavar="N", help="an epoch is N images, so that reports come sooner"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """How the search proceeds."""
    group = parser.add_argument_group("how to search")
    group.add_argument(
        "--trials",
        type=_trials,
        metavar="N|+N",
        help=f"settings to train (default {defaults.TRIALS}; a grid: all); with --resume, +N adds so many",
    )
    group.add_argument(
        "--epochs", type=at_least(1), metavar="N", help="epochs of a whole training (default: the config's)"
    )
    group.add_argument(
        "--time-budget", metavar="T", help="end after so long, counted from when Ray starts: 30m, 2h, 1h30m"
    )
    group.add_argument(
        "--sampler",
        choices=defaults.SAMPLERS,
        help="proposes settings (default tpe); grid walks a finite space, and is the default of a comparison",
    )
    group.add_argument(
        "--scheduler", choices=defaults.SCHEDULERS, help="stops the weak (default asha; none in a comparison)"
    )
    group.add_argument(
        "--metric", choices=defaults.METRICS, default="val_map", help="metric to maximise (default val_map)"
    )
    group.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the sampler and of every training")


def _add_certainty(parser: argparse.ArgumentParser) -> None:
    """What makes differences certain."""
    group = parser.add_argument_group("what is real")
    group.add_argument(
        "--replicates",
        type=at_least(1),
        metavar="R",
        help="train the best settings R times in all, each time with another seed (default 1, in a comparison "
        f"{defaults.COMPARISON_REPLICATES}; verdicts on settings need 3; the default is judged as a setting only when "
        "it is among them, or with --confirm)",
    )
    group.add_argument(
        "--replicate-top",
        type=at_least(1),
        metavar="K",
        help="how many settings that is: the best of those that trained to the end (default "
        f"{defaults.REPLICATE_TOP}; all in a comparison)",
    )
    group.add_argument(
        "--confirm",
        type=at_least(1),
        default=0,
        metavar="K",
        help="set a part of the validation images apart; after the search, train the K best settings and the default "
        "with new seeds, and score them there",
    )
    group.add_argument(
        "--confirm-fraction",
        type=_share,
        metavar="X",
        help=f"share of the validation images that is set apart (default {defaults.CONFIRM_FRACTION:g})",
    )
    group.add_argument(
        "--screen",
        choices=("on", "off"),
        help="leave settings untrained whose anchors miss the digits, and let a sampler that has learned nothing yet "
        "begin with anchors that cover them (default "
        f"{'on' if defaults.SCREEN else 'off'}; off in a comparison)",
    )


def _add_folder(parser: argparse.ArgumentParser) -> None:
    """Where the run lies."""
    group = parser.add_argument_group("the run")
    group.add_argument("--out", default="runs", metavar="DIR", help="folder of run folders (default runs)")
    group.add_argument("--name", metavar="NAME", help="of the run folder (default: space and time)")
    group.add_argument(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="RUN",
        help="go on with a run (its name or its folder; the latest if none is named), however it ended; "
        "--trials, --epochs, --space, --time-budget, --replicates, "
        "--replicate-top, --keep, --disk and --max-failures may then ask for more than before, --address, --slots, "
        "--cpus-per-trial, --gpus-per-trial, --mlflow, --dashboard-host and --dashboard-port for another place, --data "
        "where the same data is now, and --storage fetches a run that is not here; of a space file and of places "
        "beyond this machine it takes those that you have named here before, or name again",
    )
    group.add_argument("--keep", type=at_least(1), metavar="N", help="checkpoints of the best N stay (default 5)")
    group.add_argument(
        "--disk",
        metavar="SIZE",
        help="the run folder takes no more than 20G, 500M, ...: no new trial starts that would not fit",
    )
    group.add_argument(
        "--storage",
        metavar="FOLDER|ADDRESS",
        help="where checkpoints go, and a copy of the run folder: a folder that every node of a cluster sees, or "
        "s3://bucket/folder; without it both lie in --out alone",
    )
    group.add_argument(
        "--max-failures",
        type=at_least(0),
        metavar="N",
        help="times that a trial is started again from its checkpoint when its process dies, it diverges, or it runs "
        f"out of memory, then with half as many images at once (default {defaults.MAX_FAILURES})",
    )
    group.add_argument("--quiet", action="store_true", help="say what goes wrong, and at the end who won; nothing else")
    group.add_argument(
        "--status",
        nargs="?",
        const=LATEST,
        metavar="RUN",
        help="print what a run is at (the latest if none is named), from any terminal, and end",
    )
    group.add_argument("--dry-run", action="store_true", help="print what would run and end")


def _add_machines(parser: argparse.ArgumentParser) -> None:
    """Which machines it uses."""
    group = parser.add_argument_group("machines")
    group.add_argument(
        "--cpus-per-trial", type=_positive, metavar="X", help="cores of a slot (default 1 without a GPU)"
    )
    group.add_argument(
        "--gpus-per-trial",
        type=_gpus,
        metavar="X|auto",
        help="GPUs of a slot, fractions too; auto lets 1, 2, 4 and 8 trials share one for a few seconds and takes what "
        "trains most images (default: 1 where there is one)",
    )
    group.add_argument(
        "--slots",
        type=at_least(1),
        metavar="N",
        help="trials side by side (default: as many as fit); more than fit let a cluster grow that can",
    )
    group.add_argument(
        "--address",
        metavar="auto|HOST:PORT",
        help="join a running Ray cluster, with the token in ~/.ray/auth_token (default local: start one here)",
    )
    group.add_argument("--dashboard-port", type=_port, metavar="N", help="of the Ray dashboard (default: a free one)")
    group.add_argument(
        "--dashboard-host",
        metavar="HOST",
        help="what the dashboard listens on (default 127.0.0.1, this machine alone); with anything else, whoever "
        "reaches it and has the token can run code here",
    )
    group.add_argument(
        "--mlflow",
        metavar="URI",
        help="tell an MLflow server of every trial: http://HOST:PORT (pip install 'digit-search[mlflow]'); one that "
        "does not answer is left out, and the search goes on",
    )


def _trials(text: str) -> str:
    number = text.removeprefix("+")
    if not number.isdigit() or not number.isascii() or len(number) > 9 or int(number) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, or +N with --resume, got '{text}'")
    return text


def _port(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1024 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 1024 to 65535, got '{text}'")
    return number


def _gpus(text: str) -> float | str:
    if text == AUTO:
        return AUTO
    if text == "0":
        return 0.0
    return _positive(text)
