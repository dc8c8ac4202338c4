"""python -m search.run: searches one space or several and keeps a leaderboard."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from digits_core.command import CommandParser, at_least, run_command
from digits_core.data import LAYOUT, add_layout_flags
from digits_core.errors import UsageError
from search import defaults

if TYPE_CHECKING:
    from search.settings import SearchSettings

_EPILOG = """
examples:
  python -m search.run --space anchors
  python -m search.run --space anchors,lr_schedules --data FOLDER --trials 40 --epochs 12
  python -m search.run --space lr_schedules --set model.min_size=96 --time-budget 30m
  python -m search.run --resume anchors-20260131-120000
  python -m search.run --resume anchors-20260131-120000 --trials +20 --epochs 12

exit codes: 0 fine, 1 no trial has a score, 2 a mistake in what was asked, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command: search settings alone; hyperparameters belong to spaces, --set and --config."""
    parser = CommandParser(
        prog="python -m search.run",
        description="Search hyperparameters of a Faster R-CNN digit detector and keep a leaderboard.",
        epilog=_EPILOG,
    )
    what = parser.add_argument_group("what to search")
    what.add_argument(
        "--space",
        metavar="NAME[,NAME]",
        help="spaces to search together, or a file of yours (FILE.py), which is run as code",
    )
    what.add_argument("--list-spaces", action="store_true", help="print the spaces and end")
    what.add_argument(
        "--list-knobs", action="store_true", help="print every knob of --set, its limits and default, and end"
    )
    what.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="fix a knob; may be repeated")
    what.add_argument("--config", metavar="FILE.toml", help="the same, kept in a file; a space may vary what it sets")

    what.add_argument(
        "--from",
        dest="source",
        metavar="RUN[:TRIAL]|CHECKPOINT",
        help="sweep a trained model instead of training one; with spaces like thresholds alone",
    )

    what.add_argument(
        "--init-from",
        metavar="RUN[:TRIAL]|CHECKPOINT",
        help="start every training from the weights of a trained model; what does not fit is left out, and listed",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="FOLDER",
        help="COCO folder, or 'drawn', the built-in data (default; with --from RUN: the run's)",
    )
    add_layout_flags(data)
    data.add_argument("--skip-bad", action="store_true", help="leave out images and boxes that the check refuses")
    data.add_argument(
        "--images-per-epoch", type=at_least(1), metavar="N", help="an epoch is N images, so that reports come sooner"
    )

    how = parser.add_argument_group("how to search")
    how.add_argument(
        "--trials",
        type=_trials,
        metavar="N|+N",
        help=f"settings to train (default {defaults.TRIALS}; a grid: all); with --resume, +N adds so many",
    )
    how.add_argument(
        "--epochs", type=at_least(1), metavar="N", help="epochs of a whole training (default: the config's)"
    )
    how.add_argument("--time-budget", metavar="T", help="end after so long: 30m, 2h, 1h30m")
    how.add_argument(
        "--sampler",
        choices=defaults.SAMPLERS,
        help="proposes settings (default tpe); grid walks a finite space, and is the default of a comparison",
    )
    how.add_argument(
        "--scheduler", choices=defaults.SCHEDULERS, help="stops the weak (default asha; none in a comparison)"
    )
    how.add_argument("--metric", choices=defaults.METRICS, default="val_map", help="what to raise (default val_map)")
    how.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the sampler and of every training")

    real = parser.add_argument_group("what is real")
    real.add_argument(
        "--replicates",
        type=at_least(1),
        metavar="R",
        help="train the best settings R times in all, each time with another seed (default 1, in a comparison "
        f"{defaults.COMPARISON_REPLICATES}; verdicts on settings need 3; the default is judged as a setting only when "
        "it is among them, or with --confirm)",
    )
    real.add_argument(
        "--replicate-top",
        type=at_least(1),
        metavar="K",
        help="how many settings that is: the best of those that trained to the end (default "
        f"{defaults.REPLICATE_TOP}; all in a comparison)",
    )
    real.add_argument(
        "--confirm",
        type=at_least(1),
        default=0,
        metavar="K",
        help="set a part of valid apart, and after the search train the K best settings and the default on fresh "
        "seeds and score them there",
    )
    real.add_argument(
        "--confirm-fraction",
        type=_share,
        metavar="X",
        help=f"share of valid that is set apart (default {defaults.CONFIRM_FRACTION:g})",
    )
    real.add_argument(
        "--screen",
        choices=("on", "off"),
        help="leave settings untrained whose anchors miss the digits (default "
        f"{'on' if defaults.SCREEN else 'off'}; off in a comparison)",
    )

    where = parser.add_argument_group("where to run and write")
    where.add_argument("--out", default="runs", metavar="DIR", help="folder of run folders (default runs)")
    where.add_argument("--name", metavar="NAME", help="of the run folder (default: space and time)")
    where.add_argument(
        "--resume",
        metavar="NAME",
        help="go on with a run, however it ended; --trials, --epochs, --space, --time-budget, --replicates, --keep, "
        "--disk and --max-failures may then ask for more than before",
    )
    where.add_argument(
        "--keep", type=at_least(1), default=5, metavar="N", help="checkpoints of the best N stay (default 5)"
    )
    where.add_argument(
        "--disk",
        metavar="SIZE",
        help="the run folder takes no more than 20G, 500M, ...: no new trial starts that would not fit",
    )
    where.add_argument(
        "--max-failures",
        type=at_least(0),
        default=defaults.MAX_FAILURES,
        metavar="N",
        help="times that a trial is started again from its checkpoint when its process dies, it diverges, or it runs "
        f"out of memory, then with half as many images at once (default {defaults.MAX_FAILURES})",
    )
    where.add_argument(
        "--cpus-per-trial", type=_positive, metavar="X", help="cores of a slot (default 1 without a GPU)"
    )
    where.add_argument(
        "--gpus-per-trial",
        type=_gpus,
        metavar="X|auto",
        help="GPUs of a slot, fractions too (default: 1 where there is one)",
    )
    where.add_argument("--address", metavar="auto|HOST:PORT", help="join a running Ray cluster")
    where.add_argument("--dashboard-port", type=_port, metavar="N", help="of the Ray dashboard (default: a free one)")
    where.add_argument("--dry-run", action="store_true", help="print what would run and end")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    typed = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(typed)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("search.run", lambda: _handle(args, typed))


def _handle(args: argparse.Namespace, typed: list[str]) -> int:
    if args.list_spaces:
        return _list_spaces()
    if args.list_knobs:
        return _list_knobs()
    if args.resume is not None:
        return _resume(args, typed)
    if args.space is None:
        raise UsageError("--space is missing; --list-spaces prints what there is")
    from search.settings import (
        SearchSettings,
        data_source,
        make_plan,
        manner,
        parse_duration,
        parse_size,
        read_knobs,
        run_name,
    )

    how = manner(args.space, args.sampler, args.scheduler, args.replicates, args.screen)
    for flag, value, other, needs in (
        ("--replicate-top", args.replicate_top, "--replicates", how.replicates > 1),
        ("--confirm-fraction", args.confirm_fraction, "--confirm", args.confirm > 0),
    ):
        if value is not None and not needs:
            raise UsageError(f"{flag} {value:g}: has a meaning with {other} alone")
    if args.source is not None:
        allowed = {"space", "source", "data", *LAYOUT, "skip_bad", "set", "config", "out", "name", "metric", "dry_run"}
        _refuse_others(
            args, {*allowed, "gpus_per_trial"}, "nothing is trained with --from, so this flag has no meaning"
        )
    from digits_core.source import DRAWN

    fixed, config = read_knobs(args.set, args.config)
    init_from = None
    if args.init_from is not None:
        from search.model_source import initial_weights

        init_from = initial_weights(args.init_from, args.out, fixed)
    settings = SearchSettings(
        space=args.space,
        data=data_source(
            args.data or DRAWN,
            **{name: getattr(args, name) for name in LAYOUT},
            skip_bad=args.skip_bad,
            confirm_fraction=(args.confirm_fraction or defaults.CONFIRM_FRACTION) if args.confirm else 0.0,
        ),
        out=args.out,
        name=run_name(args.name, args.space),
        trials=plain_trials(args.trials),
        epochs=args.epochs,
        images_per_epoch=args.images_per_epoch,
        time_budget_s=None if args.time_budget is None else parse_duration(args.time_budget),
        sampler=how.sampler,
        scheduler=how.scheduler,
        metric=args.metric,
        seed=args.seed,
        replicates=how.replicates,
        replicate_top=args.replicate_top or defaults.REPLICATE_TOP,
        confirm=args.confirm,
        screen=how.screen,
        keep=args.keep,
        max_failures=args.max_failures,
        disk_bytes=None if args.disk is None else parse_size(args.disk),
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=args.gpus_per_trial,
        address=args.address,
        dashboard_port=args.dashboard_port,
        init_from=init_from,
        fixed=fixed,
        config=config,
    )
    if how.replicate_all and args.replicate_top is None:
        settings = replace(settings, replicate_top=make_plan(settings).trials)
    if args.source is not None:
        from search.rescore import rescore

        return rescore(settings, args.source, own_data=args.data is not None, dry_run=args.dry_run)
    if args.dry_run:
        return _dry_run(settings)
    from search.driver import run_search

    return run_search(settings, command=["python", "-m", "search.run", *typed])


def _resume(args: argparse.Namespace, typed: list[str]) -> int:
    only = f"a resumed run keeps its settings; with --resume only {', '.join(_flag(one) for one in CHANGEABLE)} go"
    _refuse_others(args, {"resume", *CHANGEABLE}, only)
    from search.driver import resumed_settings, run_search

    settings = changed_settings(resumed_settings(args.out, args.resume), args)
    return run_search(settings, resume=True, command=["python", "-m", "search.run", *typed])


CHANGEABLE = (
    "out",
    "dashboard_port",
    "trials",
    "epochs",
    "space",
    "time_budget",
    "replicates",
    "replicate_top",
    "keep",
    "disk",
    "max_failures",
)
"""Flags that go with --resume."""


def changed_settings(before: "SearchSettings", args: argparse.Namespace) -> "SearchSettings":
    """The settings of a run with what the flags beside --resume ask for.

    Raises:
        UsageError: fewer epochs than before.
    """
    from search.settings import make_plan, parse_duration, parse_size

    now = before
    if args.space is not None:
        now = replace(now, space=args.space)
    if args.trials is not None:
        more = args.trials.startswith("+")
        now = replace(now, trials=int(args.trials) + (make_plan(before).trials if more else 0))
    if args.epochs is not None:
        known = make_plan(before).base.optim.epochs
        if args.epochs < known:
            raise UsageError(f"--epochs {args.epochs}: the run has trained for {known}; it can only be made longer")
        now = replace(now, epochs=args.epochs)
    if args.time_budget is not None:
        now = replace(now, time_budget_s=parse_duration(args.time_budget))
    if args.disk is not None:
        now = replace(now, disk_bytes=parse_size(args.disk))
    usual = build_parser().parse_args([])
    for name in ("replicates", "replicate_top", "keep", "max_failures", "dashboard_port"):
        if getattr(args, name) != getattr(usual, name):
            now = replace(now, **{name: getattr(args, name)})
    return now


def plain_trials(text: str | None) -> int | None:
    """`--trials` of a new run.

    Raises:
        UsageError: it says how many more there should be.
    """
    if text is not None and text.startswith("+"):
        raise UsageError(f"--trials {text}: adds to a run, with --resume; a new run takes a plain number")
    return None if text is None else int(text)


def _refuse_others(args: argparse.Namespace, allowed: set[str], reason: str) -> None:
    """Raises UsageError where a flag was given that would do nothing."""
    left_alone = vars(build_parser().parse_args([]))
    for name, value in vars(args).items():
        if name not in allowed and value != left_alone[name]:
            raise UsageError(f"{_flag(name)}: {reason}")


def _flag(name: str) -> str:
    return {"source": "--from"}.get(name, "--" + name.replace("_", "-"))


def _list_spaces() -> int:
    from spaces.catalogue import SPACES

    for space in SPACES.values():
        print(f"{space.name:15} {space.summary}" + (" (a comparison)" if space.comparison else ""))
        print(f"{'':15}   varies {', '.join(sorted(space.fields()))}")
        if space.baselines:
            print(f"{'':15}   baselines: default; {'; '.join(baseline.name for baseline in space.baselines)}")
    return 0


def _list_knobs() -> int:
    from digits_core.config import knobs

    for knob in knobs().values():
        print(f"{knob.name}  (default {knob.default}; {knob.limits})\n    {knob.help}")
    return 0


def _dry_run(settings: Any) -> int:
    from digits_core.anchors import setting_digest
    from digits_core.cache import images_per_epoch
    from digits_core.config import TrainConfig
    from digits_core.sweep import NUM_SWEPT
    from results.record import RunRecord
    from results.terminal import open_console
    from search.cluster import plan_slots
    from search.driver import prepare_data
    from search.further import FurtherTrials
    from search.probe import Probe
    from search.settings import make_plan
    from spaces.registry import DEFAULT_BASELINE

    plan = make_plan(settings)
    console = open_console()
    data = prepare_data(settings, console)
    epochs = plan.base.optim.epochs
    images = images_per_epoch(len(data.train), plan.base.data.images_per_epoch)
    further = FurtherTrials(
        RunRecord(settings.name), replicates=settings.replicates, top=settings.replicate_top, confirm=settings.confirm
    ).most(plan.trials)
    most = (plan.trials + further) * epochs
    tried: dict[str, str] = {}
    for baseline in (DEFAULT_BASELINE, *plan.space.baselines):
        config = TrainConfig.from_flat({**plan.space.fixed, **baseline.overrides}, plan.base)
        tried.setdefault(setting_digest(config), baseline.name)
    names = list(tried.values())[: plan.trials]
    which = "every setting" if settings.replicate_top >= plan.trials else "the best settings"
    if settings.address is None:
        found = Probe(plan.probe_config()).findings(data.categories.num_classes)
        found.check(settings.gpus_per_trial)
        slots = plan_slots(found.resources(), settings.cpus_per_trial, settings.gpus_per_trial).description
    else:
        slots = f"those of the cluster at {settings.address}"
    console.print(
        f"would train: {plan.trials} setting{'s' * (plan.trials > 1)} of space {settings.space}, baselines first "
        f"({'; '.join(names)})\n"
        f"each at most {epochs} epochs of {images} images; "
        + ("none is stopped early" if settings.scheduler == "none" else f"{settings.scheduler} stops the weak")
        + f", sampler {settings.sampler}\n"
        + (f"then at most {further} more trainings: further seeds of {which}\n" if further else "")
        + f"at most {most} epochs and {most * images:,} images in all\nslots: {slots}\n"
        f"swept on each trained model: {NUM_SWEPT + len(plan.sweep):,} threshold settings\n"
        f"run folder: {settings.out}/{settings.name}",
        markup=False,
    )
    return 0


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got '{text}'")
    return number


def _trials(text: str) -> str:
    number = text.removeprefix("+")
    if not number.isdigit() or not number.isascii() or len(number) > 9 or int(number) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, or +N with --resume, got '{text}'")
    return text


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got '{text}'")
    return number


def _port(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1024 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 1024 to 65535, got '{text}'")
    return number


def _gpus(text: str) -> float | None:
    if text == "auto":
        return None
    if text == "0":
        return 0.0
    return _positive(text)


if __name__ == "__main__":
    raise SystemExit(main())
