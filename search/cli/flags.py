"""The flags of digit-search run: search settings alone; hyperparameters belong to spaces, --set and --config."""

import argparse

from digits_core.command import JSON_HELP, CommandParser, at_least, number_where, port
from digits_core.credentials import NOTIFY_VARIABLE
from digits_core.data.command import add_layout_flags
from search import defaults

_EPILOG = """
examples:
  digit-search run --space anchors
  digit-search run --space anchors,lr_schedules --data FOLDER --trials 40 --epochs 12
  digit-search run --space lr_schedules --set model.min_size=96 --time-budget 30m
  digit-search resume anchors-20260131-120000
  digit-search resume anchors-20260131-120000 --trials +20 --epochs 12

exit codes: 0 fine, 1 no trial has a score, 2 a mistake in what was asked, 130 interrupted
"""


AUTO = "auto"
"""Value of `--gpus-per-trial`: the number of trials per GPU is measured."""

LATEST = ""
"""Of `--resume` and `--status`: the run that was started last."""

_share = number_where(lambda number: 0 < number < 1, "be a number between 0 and 1")
_positive = number_where(lambda number: 0 < number < 1e6, "be a number above 0")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.run",
        description="Search hyperparameters of a Faster R-CNN digit detector and keep a leaderboard.",
        epilog=_EPILOG,
    )
    for add in (_add_spaces, _add_data, _add_search, _add_certainty, _add_folder, _add_machines):
        add(parser)
    return parser


def _add_spaces(parser: argparse.ArgumentParser) -> None:
    """The spaces, the parameters and the initial weights."""
    group = parser.add_argument_group("what to search")
    group.add_argument(
        "--space",
        metavar="NAME[,NAME]",
        help="spaces to search together, or a file of yours (FILE.py), which is run as code",
    )
    group.add_argument("--list-spaces", action="store_true", help="print the spaces and exit")
    group.add_argument("--list-knobs", action="store_true", help=argparse.SUPPRESS)
    group.add_argument(
        "--list-parameters",
        action="store_true",
        help="print every parameter of --set, its limits and default, and exit",
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
        help="sweep the thresholds of a trained model instead of training; only with spaces like thresholds",
    )
    group.add_argument(
        "--init-from",
        metavar="RUN[:TRIAL]|CHECKPOINT",
        help="start every training from the weights of a trained model; weights that do not fit are skipped and listed",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    """The images."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="FOLDER",
        help="COCO folder, or 'drawn', the built-in data (default; with --from RUN: the data of that run)",
    )
    add_layout_flags(group)
    group.add_argument("--skip-bad", action="store_true", help="skip images and boxes that fail the check")
    group.add_argument(
        "--images-per-epoch", type=at_least(1), metavar="N", help="an epoch is N images, for earlier reports"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    """Sampler, scheduler and length of the search."""
    group = parser.add_argument_group("how to search")
    group.add_argument(
        "--trials",
        type=_trials,
        metavar="N|+N",
        help=f"configurations to sample in addition to the baselines (default {defaults.TRIALS}; a grid: all); with "
        "--resume, +N adds N more",
    )
    group.add_argument(
        "--epochs", type=at_least(1), metavar="N", help="epochs of a full training (default: those of the config)"
    )
    group.add_argument(
        "--time-budget",
        metavar="T",
        help="end the search after this time, counted from the start of Ray: 30m, 2h, 1h30m",
    )
    group.add_argument(
        "--sampler",
        choices=defaults.SAMPLERS,
        help="proposes configurations (default tpe); grid trains all of a finite space (default of a comparison)",
    )
    group.add_argument(
        "--scheduler",
        choices=defaults.SCHEDULERS,
        help="early stopping (default asha; none in a comparison, and if the space varies the number of epochs)",
    )
    group.add_argument(
        "--metric",
        default="val_map",
        metavar="METRIC[,COST]",
        help=f"metric to maximise: {', '.join(defaults.METRICS)} (default val_map); with a cost behind it "
        f"({', '.join(defaults.COSTS)}) the search looks for the Pareto front: the best metric for each cost. latency "
        "is in milliseconds an image, measured on the slot's device, one image at a time; latency_32 in batches of 32",
    )
    group.add_argument(
        "--until",
        metavar="trials|settled[:GAIN]",
        help="settled ends the search when more configurations are unlikely to increase the metric by more than GAIN "
        f"(default {defaults.GAIN:g}); --trials stays the maximum (default trials: only --trials counts)",
    )
    group.add_argument(
        "--learn-from",
        metavar="RUN[,RUN]",
        help="let earlier runs say which configurations are tried first after the baselines; they count less and less "
        "as trials of this search end",
    )
    group.add_argument(
        "--believe",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="the same from a person: a value that is probably good; can be repeated",
    )
    group.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="seed of the sampler and of every training (default 0)"
    )


def _add_certainty(parser: argparse.ArgumentParser) -> None:
    """Replicates, confirmations and the anchor screen."""
    group = parser.add_argument_group("replicates and confirmations")
    group.add_argument(
        "--replicates",
        type=at_least(1),
        metavar="R",
        help="train each of the best configurations R times in total, with different seeds (default 1, in a comparison "
        f"{defaults.COMPARISON_REPLICATES}; verdicts on configurations need 3; the default configuration is replicated "
        "only if it is one of the best, or with --confirm)",
    )
    group.add_argument(
        "--replicate-top",
        type=at_least(1),
        metavar="K",
        help="number of configurations that --replicates trains again: the best of those that trained to the end "
        f"(default {defaults.REPLICATE_TOP}; all in a comparison)",
    )
    group.add_argument(
        "--confirm",
        type=at_least(1),
        default=0,
        metavar="K",
        help="hold out a part of the validation images; after the search, train the K best configurations and the "
        "default with new seeds, and score them on the held-out images",
    )
    group.add_argument(
        "--confirm-fraction",
        type=_share,
        metavar="X",
        help=f"fraction of the validation images that --confirm holds out (default {defaults.CONFIRM_FRACTION:g})",
    )
    group.add_argument(
        "--screen",
        choices=("on", "off"),
        help="do not train configurations whose anchors do not fit the digits, and prefer anchors that fit while the "
        "sampler draws at random (default "
        f"{'on' if defaults.SCREEN else 'off'}; off in a comparison)",
    )


def _add_folder(parser: argparse.ArgumentParser) -> None:
    """The run folder, its checkpoints and its storage."""
    group = parser.add_argument_group("the run")
    group.add_argument("--out", default="runs", metavar="DIR", help="folder of run folders (default runs)")
    group.add_argument("--name", metavar="NAME", help="of the run folder (default: space and time)")
    group.add_argument(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="RUN",
        help="continue a run (its name or folder; by default the latest), however it ended; --trials, --epochs, "
        "--space, --time-budget, --replicates, --replicate-top, --keep, --disk and --max-failures may ask for "
        "more than before; --address, --slots, --cpus-per-trial, --gpus-per-trial, --mlflow, --trackio, "
        "--dashboard-host and --dashboard-port may change; --data is the new place of the same data; --storage "
        "fetches a run that is not on this machine; space files and addresses of other machines are used only if "
        "you typed them on this machine before, or type them again",
    )
    group.add_argument(
        "--keep", type=at_least(1), metavar="N", help="keep the checkpoints of the best N configurations (default 5)"
    )
    group.add_argument(
        "--disk",
        metavar="SIZE",
        help="maximum size of the run folder: 20G, 500M, ...; no new trial starts that would exceed it",
    )
    group.add_argument(
        "--storage",
        metavar="FOLDER|ADDRESS",
        help="place for checkpoints and for a copy of the run folder: a folder that every node of a cluster can "
        "access, or s3://bucket/folder (default: everything is only in --out)",
    )
    group.add_argument(
        "--max-failures",
        type=at_least(0),
        metavar="N",
        help="maximum number of restarts of a trial from its checkpoint when its process dies, it diverges, or it runs "
        f"out of memory (then with half as many images at once; default {defaults.MAX_FAILURES})",
    )
    group.add_argument(
        "--notify",
        metavar="URL|COMMAND",
        help="tell an address (http:// or https://, a POST with JSON) or a shell command when the search ends, fails "
        f"or stalls; never stored, so give it again with --resume; {NOTIFY_VARIABLE} in the environment has the same "
        "effect, also for an address with credentials",
    )
    group.add_argument("--quiet", action="store_true", help="print only errors and, at the end, the winner")
    group.add_argument(
        "--status",
        nargs="?",
        const=LATEST,
        metavar="RUN",
        help="print the state of a run (by default the latest), from any terminal, and exit",
    )
    group.add_argument(
        "--json", action="store_true", help=f"with --status, --list-spaces or --list-parameters: {JSON_HELP}"
    )
    group.add_argument("--dry-run", action="store_true", help="print what would run and exit")


def _add_machines(parser: argparse.ArgumentParser) -> None:
    """The machines and the services on them."""
    group = parser.add_argument_group("machines")
    group.add_argument(
        "--cpus-per-trial", type=_positive, metavar="X", help="cores of a slot (default 1 without a GPU)"
    )
    group.add_argument(
        "--gpus-per-trial",
        type=_gpus,
        metavar="X|auto",
        help="GPUs of a slot, also fractions; auto trains 1, 2, 4 and 8 trials on one GPU for a few seconds and uses "
        "the fastest number (default: 1 if there is a GPU)",
    )
    group.add_argument(
        "--slots",
        type=at_least(1),
        metavar="N",
        help="trials that run at the same time (default: as many as fit); more let an autoscaling cluster grow",
    )
    group.add_argument(
        "--address",
        metavar="auto|HOST:PORT",
        help="join a running Ray cluster, with the token in ~/.ray/auth_token (default local: start one here)",
    )
    group.add_argument(
        "--dashboard-port", type=port, metavar="N", help="port of the Ray dashboard (default: a free one)"
    )
    group.add_argument(
        "--dashboard-host",
        metavar="HOST",
        help="address that the dashboard listens on (default 127.0.0.1: only this machine); with any other address, "
        "everybody who can connect and has the token can run code here",
    )
    group.add_argument(
        "--mlflow",
        metavar="URI",
        help="log every trial to an MLflow server: http://HOST:PORT (pip install 'digit-search[mlflow]'); if it does "
        "not answer, the search continues without it",
    )
    group.add_argument(
        "--trackio",
        metavar="PROJECT",
        help="log every trial to a project of trackio, on this machine (pip install 'digit-search[trackio]'); if it "
        "fails, the search continues without it",
    )


def _trials(text: str) -> str:
    number = text.removeprefix("+")
    if not number.isdigit() or not number.isascii() or len(number) > 9 or text == "+0":
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, or +N with --resume, got '{text}'")
    return text


def _gpus(text: str) -> float | str:
    if text == AUTO:
        return AUTO
    if text == "0":
        return 0.0
    return _positive(text)
