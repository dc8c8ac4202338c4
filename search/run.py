"""python -m search.run: searches one space or several and keeps a leaderboard."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from digits_core.command import CALLED_AS, PROGRAM, run_command, say
from digits_core.data.command import LAYOUT
from digits_core.errors import UsageError
from search import defaults
from search.cli.flags import AUTO, LATEST, build_parser
from search.cli.lists import list_parameters, list_spaces

if TYPE_CHECKING:
    from search.cli.settings import Manner, SearchSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    typed = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(typed)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("search.run", lambda: _handle(args, typed))


def _handle(args: argparse.Namespace, typed: list[str]) -> int:
    if args.json and args.status is None and not (args.list_spaces or args.list_parameters or args.list_knobs):
        raise UsageError("--json: has an effect only together with --status, --list-spaces or --list-parameters")
    if args.list_spaces:
        return list_spaces(as_json=args.json)
    if args.list_knobs:
        say("--list-knobs is now --list-parameters; the next version will refuse the old name", error=True)
    if args.list_parameters or args.list_knobs:
        return list_parameters(as_json=args.json)
    if args.status is not None:
        from search.monitor.status import print_status

        _refuse_others(args, {"status", "json", "out"}, "has no effect with --status, which only prints")
        return print_status(args.status or None, Path(args.out), as_json=args.json)
    if args.resume is not None:
        return _resume(args, typed)
    if args.space is None:
        raise UsageError("--space is missing; --list-spaces prints the spaces")
    from search.cli.settings import make_plan, manner, with_baselines
    from search.monitor.notify import notify_target

    how = manner(args.space, args.sampler, args.scheduler, args.replicates, args.screen)
    for flag, value, other, needs in (
        ("--replicate-top", args.replicate_top, "--replicates", how.replicates > 1),
        ("--confirm-fraction", args.confirm_fraction, "--confirm", args.confirm > 0),
    ):
        if value is not None and not needs:
            raise UsageError(f"{flag} {value:g}: has an effect only together with {other}")
    if args.source is not None:
        allowed = {"space", "source", "data", *LAYOUT, "skip_bad", "set", "config", "out", "name", "metric", "dry_run"}
        _refuse_others(args, {*allowed, "gpus_per_trial"}, "has no effect with --from, which trains nothing")
    settings = with_baselines(_new_settings(args, how), plain_trials(args.trials))
    if args.learn_from is not None:
        from search.cli.learn import learn_from

        learned, notes = learn_from(settings, args.learn_from)
        for note in notes:
            say(note, error=True)
        settings = replace(settings, learned=learned)
        make_plan(settings)  # raises if the search cannot learn
    if how.replicate_all and args.replicate_top is None:
        settings = replace(settings, replicate_top=make_plan(settings).trials)
    if args.source is not None:
        from search.models.rescore import rescore

        own_data = args.data is not None
        return rescore(settings, args.source, own_data=own_data, dry_run=args.dry_run, command=_as_typed(typed))
    notify = notify_target(args.notify)
    if args.dry_run:
        from search.dry_run import dry_run

        return dry_run(settings)
    from search.driver import run_search

    return run_search(settings, command=_as_typed(typed), quiet=args.quiet, notify=notify)


def _as_typed(typed: list[str]) -> list[str]:
    """The command with its arguments, for run.json."""
    return [*([PROGRAM, "run"] if CALLED_AS.get() else ["python", "-m", "search.run"]), *typed]


def _new_settings(args: argparse.Namespace, how: "Manner") -> "SearchSettings":
    """The settings of a new run, from the flags."""
    from digits_core.data.source import DRAWN
    from search.cli.settings import SearchSettings
    from search.cli.values import (
        data_source,
        parse_duration,
        parse_size,
        read_beliefs,
        read_metric,
        read_parameters,
        read_until,
        run_name,
        storage_address,
    )
    from spaces.catalogue import space_files

    fixed, config = read_parameters(args.set, args.config)
    until_settled, gain = read_until(args.until)
    metric, aims = read_metric(args.metric)
    init_from = None
    if args.init_from is not None:
        from search.models.source import initial_weights

        init_from = initial_weights(args.init_from, args.out, fixed)
    return SearchSettings(
        space=args.space,
        space_files=space_files(args.space),
        data=data_source(
            args.data or DRAWN,
            **{name: getattr(args, name) for name in LAYOUT},
            skip_bad=args.skip_bad,
            confirm_fraction=(args.confirm_fraction or defaults.CONFIRM_FRACTION) if args.confirm else 0.0,
        ),
        out=args.out,
        name=run_name(args.name, args.space),
        epochs=args.epochs,
        images_per_epoch=args.images_per_epoch,
        time_budget_s=None if args.time_budget is None else parse_duration(args.time_budget),
        sampler=how.sampler,
        scheduler=how.scheduler,
        metric=metric,
        aims=aims,
        seed=args.seed,
        replicates=how.replicates,
        replicate_top=args.replicate_top or defaults.REPLICATE_TOP,
        confirm=args.confirm,
        screen=how.screen,
        keep=args.keep or defaults.KEEP,
        max_failures=defaults.MAX_FAILURES if args.max_failures is None else args.max_failures,
        disk_bytes=None if args.disk is None else parse_size(args.disk),
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=None if args.gpus_per_trial == AUTO else args.gpus_per_trial,
        share_gpus=args.gpus_per_trial == AUTO,
        storage=None if args.storage is None else storage_address(args.storage),
        slots=args.slots,
        address=None if args.address == "local" else args.address,
        dashboard_port=args.dashboard_port,
        dashboard_host=args.dashboard_host or defaults.LOOPBACK,
        mlflow=args.mlflow,
        trackio=args.trackio,
        init_from=init_from,
        fixed=fixed,
        config=config,
        believed=read_beliefs(args.believe),
        until_settled=until_settled,
        gain=gain,
    )


def _resume(args: argparse.Namespace, typed: list[str]) -> int:
    only = (
        "a resumed run keeps its settings; start a new run with digit-search run for other ones (resume takes "
        f"{', '.join(_flag(one) for one in CHANGEABLE)})"
    )
    _refuse_others(args, {"resume", "quiet", "notify", "dry_run", *CHANGEABLE}, only)
    from search.cli.run_folder import planned, resumed_settings
    from search.cli.settings import make_plan, with_baselines
    from search.cli.trusted import choices_of, refuse_unnamed
    from search.cli.values import storage_address
    from search.driver import has_nothing_left, run_search
    from search.monitor.notify import notify_target
    from search.storage.storage import Storage
    from spaces.catalogue import space_files

    asked = None if args.storage is None else storage_address(args.storage)
    folder = _named_run(args.resume, Path(args.out))
    if asked is not None and not folder.exists():
        Storage(folder, asked).fetch_run()
        say(f"fetched {folder.name} from {asked} into {folder.parent}", error=True)
    before = resumed_settings(str(folder.parent), folder.name)
    if asked is not None and asked != before.storage:
        raise UsageError(
            f"--storage {args.storage}: the checkpoints of {folder.name} are in {before.storage or 'its run folder'}; "
            "omit the flag"
        )
    extent = planned(folder)
    settings = changed_settings(before, args, trials=extent.trials, epochs=extent.epochs)
    settings = replace(settings, space_files=space_files(settings.space))
    given = {_flag(name) for name in CHANGEABLE if name != "out" and getattr(args, name) is not None}
    refuse_unnamed(choices_of(settings), given, f"--resume {folder.name}")
    if args.trials is not None and not args.trials.startswith("+"):
        settings = with_baselines(settings, int(args.trials))
    if before.replicate_top >= extent.trials and args.replicate_top is None:  # all were replicated: also the new ones
        settings = replace(settings, replicate_top=make_plan(settings).trials)
    notify = notify_target(args.notify)
    if args.dry_run:
        from search.dry_run import dry_run

        return dry_run(settings, folder)
    if has_nothing_left(settings, folder):
        say(f"{folder}: nothing to do, every trial has ended; add trials with --trials +N, or epochs with --epochs N")
        return 0
    return run_search(settings, resume=True, command=_as_typed(typed), quiet=args.quiet, notify=notify)


def _named_run(name: str, out: Path) -> Path:
    """The folder of the run that `--resume` names; it may be missing here, then `--storage` fetches it."""
    from results.record.folder import RUN_FILE, latest_run

    if name == LATEST:
        return latest_run(out)
    path, inside = Path(name), out / name
    is_path = path.name != name or (path / RUN_FILE).is_file()
    return path if is_path and not inside.exists() else inside


CHANGEABLE = (
    "out",
    "dashboard_port",
    "trials",
    "epochs",
    "space",
    "data",
    "time_budget",
    "until",
    "replicates",
    "replicate_top",
    "keep",
    "disk",
    "max_failures",
    "storage",
    "slots",
    "address",
    "cpus_per_trial",
    "gpus_per_trial",
    "dashboard_host",
    "mlflow",
    "trackio",
)
"""Flags that --resume takes."""


def changed_settings(
    before: "SearchSettings", args: argparse.Namespace, *, trials: int, epochs: int
) -> "SearchSettings":
    """The settings of a resumed run: those of before, changed by the flags.

    Args:
        before: the settings of before.
        args: the flags.
        trials: configurations that the run has planned to train.
        epochs: epochs of its full trainings.

    Raises:
        UsageError: fewer epochs than before.
    """
    from search.cli.values import data_source, parse_duration, parse_size, read_until
    from spaces.catalogue import get_spaces, space_files
    from spaces.registry import combine

    now = before
    if args.space is not None:
        fields = combine(get_spaces(args.space, space_files(args.space))).fields()
        kept = {name: value for name, value in now.believed.items() if name in fields}
        now = replace(now, space=args.space, believed=kept)
    if args.data is not None:
        now = replace(now, data=replace(now.data, folder=data_source(args.data).folder))
    if args.trials is not None and args.trials.startswith("+"):
        now = replace(now, trials=trials + int(args.trials))
    if args.epochs is not None:
        if args.epochs < epochs:
            raise UsageError(f"--epochs {args.epochs}: the run trains for {epochs} epochs; give at least as many")
        now = replace(now, epochs=args.epochs)
    if args.time_budget is not None:
        now = replace(now, time_budget_s=parse_duration(args.time_budget))
    if args.until is not None:
        until_settled, gain = read_until(args.until)
        now = replace(now, until_settled=until_settled, gain=gain)
    if args.disk is not None:
        now = replace(now, disk_bytes=parse_size(args.disk))
    if args.gpus_per_trial is not None:
        shared = args.gpus_per_trial == AUTO
        now = replace(now, gpus_per_trial=None if shared else args.gpus_per_trial, share_gpus=shared)
    given = ("slots", "address", "cpus_per_trial", "dashboard_port", "dashboard_host", "mlflow", "trackio")
    for name in ("replicates", "replicate_top", "keep", "max_failures", *given):
        if getattr(args, name) is not None:
            now = replace(now, **{name: getattr(args, name)})
    return replace(now, address=None) if now.address == "local" else now


def plain_trials(text: str | None) -> int | None:
    """The number of `--trials` of a new run.

    Raises:
        UsageError: it has the form +N.
    """
    if text is not None and text.startswith("+"):
        raise UsageError(f"--trials {text}: +N needs --resume; a new run takes a plain number")
    return None if text is None else int(text)


def _refuse_others(args: argparse.Namespace, allowed: set[str], reason: str) -> None:
    """Raise UsageError if a flag was given that is not allowed here."""
    defaults_of = vars(build_parser().parse_args([]))
    for name, value in vars(args).items():
        if name not in allowed and value != defaults_of[name]:
            raise UsageError(f"{_flag(name)}: {reason}")


def _flag(name: str) -> str:
    return {"source": "--from"}.get(name, "--" + name.replace("_", "-"))


if __name__ == "__main__":
    raise SystemExit(main())
