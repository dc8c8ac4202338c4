"""python -m search.retrain: trains a run's best setting again, on more or longer, and leaves a model folder."""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from digits_core.command import JSON_HELP, CommandParser, at_least, run_command, say_json, stdout_to_stderr
from digits_core.config.reading import parse_assignment
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, UsageError
from results.record.folder import (
    MODELS,
    RETRAIN,
    RUN_HELP,
    find_run,
    read_record_of,
    refuse_links,
)
from results.record.lock import lock_run
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.parquet import write_text
from search.models.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console

    from digits_core.data.cache import DigitData
    from search.cli.settings import SearchSettings
    from search.models.retrained import Retrained

RETRAIN_SEED = 200_000
"""Added to the trial's seed for its first retraining; the next ones use the numbers after it."""

JOINED = "train+valid"
"""Value of `--on` without validation."""

PLAN_FILE = "plan.json"

_EPILOG = """
examples:
  digit-search retrain runs/my-search
  digit-search retrain runs/my-search --trial t0003 --epochs 20 --replicates 3
  digit-search retrain runs/my-search --on train+valid

After an interruption, the same command continues the training.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.retrain",
        description="Train the best configuration of a run again, with new seeds, and write a model folder.",
        epilog=_EPILOG,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)
    parser.add_argument(
        "--trial",
        default="best",
        metavar="best|ID",
        help="the trial (default: the best by the run's metric, or by its confirmation if there is one)",
    )
    parser.add_argument("--epochs", type=at_least(1), metavar="N", help="epochs (default: the trial's)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the run's data is now (default: as in the search; an address that you have not given on this "
        "machine before must be given again)",
    )
    parser.add_argument(
        "--on",
        choices=("train", "train+valid"),
        default="train",
        help="training images (default train); train+valid has no validation: number of epochs and thresholds come "
        "from the search",
    )
    parser.add_argument(
        "--replicates", type=at_least(1), default=1, metavar="R", help="trainings, each with another seed (default 1)"
    )
    parser.add_argument("--gpus", type=at_least(0), metavar="N", help="GPUs that train together (default: 1 if any)")
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes that train together on CPU cores (default 1)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="PARAMETER=VALUE", help="change a parameter; repeatable"
    )
    parser.add_argument(
        "--init-from", metavar="RUN[:TRIAL]|CHECKPOINT", help="start from the weights of a trained model"
    )
    parser.add_argument(
        "--notify", metavar="URL|COMMAND", help="tell an address or a command when it ends or fails, as in a search"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("search.retrain", lambda: _retrain(args))


def choose_trial(record: RunRecord, folder: Path, name: str) -> tuple[TrialRecord, str]:
    """The trial to retrain, and why it was chosen, in words.

    Raises:
        RunError: there is no such trial, or none with a score.
    """
    from results.verdicts.comparison import Board

    if name != "best":
        trial = record.named(name, "--trial")
        if trial.role == "retrain":
            raise RunError(f"--trial {name}: is a retraining of {trial.parent} itself; give {trial.parent} instead")
        if record.value(trial) is None:
            raise RunError(f"--trial {name}: it has no score ({trial.status}); give a finished trial")
        return trial, "named"
    winner = record.winner()
    if winner is None:
        raise RunError(f"run '{record.run}' has no finished trial; see digit-search board {folder}")
    board = Board(record, folder, record.metric, "confirm")
    confirmed = [lead for lead in record.settings() if board.fresh(lead)]
    if confirmed:

        def mean(lead: TrialRecord) -> float:
            points = [board.point(one) or 0.0 for one in board.fresh(lead)]
            return sum(points) / len(points)

        short = record.short()
        best = max(confirmed, key=lambda lead: (lead.trial_id not in short, mean(lead)))
        return best, f"best of the {len(confirmed)} confirmed configurations, {mean(best):.3f} on the held-out images"
    value = record.standing(winner)
    return winner, f"best by {record.metric}" + ("" if value is None else f", {value:.3f}")


def changes(config: TrainConfig, trial: TrialRecord) -> list[str]:
    """The parameters that a retraining changes from its trial, without the seed and the thresholds."""
    from results.views.parameters import value_words

    flat = config.to_flat()
    return [
        f"{name} = {value_words(value)} (was {value_words(trial.config.get(name))})"
        for name, value in flat.items()
        if value != trial.config.get(name) and not name.startswith(("detect.task", "runtime.seed"))
    ]


def _retrain(args: argparse.Namespace) -> int:
    with stdout_to_stderr(active=args.json):
        done = _train_again(args)
    if args.json:
        say_json(done.document())
    else:
        done.print()
    return 0


def _train_again(args: argparse.Namespace) -> "Retrained":
    """Check the arguments, train, and print what is trained."""
    from digits_core.terminal import open_console
    from search.cli.prepare_data import prepare_data
    from search.machine.probe import Probe
    from search.models.retrained import Retrained
    from search.models.source import check_unchanged
    from search.monitor.notify import Notifier, notify_target
    from search.tune.cluster import prepare_environment

    notify = notify_target(args.notify)
    folder = find_run(args.run).resolve()
    refuse_links(folder)
    record = read_record_of(folder)
    lock_run(folder).close()  # a running search would keep the result from being recorded
    trial, why = choose_trial(record, folder, args.trial)
    config = retrain_config(trial, args, folder)
    settings = _settings_of(folder, args)
    console = open_console()
    console.print(f"retraining {trial.trial_id} of {folder}: {why}", soft_wrap=True)
    for line in changes(config, trial):
        console.print(f"  {line}")
    probe = Probe({trial.trial_id: config})
    data = prepare_data(settings, console)
    check_unchanged(folder, data, settings.data)
    data.check(config)
    found = probe.findings(data.categories.num_classes)
    workers, gpus = crew(found.resources(), args.gpus, args.workers)
    found.check(None if gpus else 0)
    _check_batches(config, workers, gpus=gpus)
    if found.left_out is not None:
        console.print(found.left_out, soft_wrap=True)
    until = _last_epoch(record, trial, config, args)
    for line in _length_words(config, data, args.on, until):
        console.print(line, soft_wrap=True)
    warning = prepare_environment(joins=False)
    if warning is not None:
        console.print(warning, style="yellow", soft_wrap=True)
    run = RetrainedRun(folder, record, settings, data, found.resources())
    names: list[str] = []
    with Notifier(notify, record, lambda text: console.print(text, soft_wrap=True)) as notifier:
        for step in range(args.replicates):
            seeded = TrainConfig.from_flat({"runtime.seed": (trial.seed + RETRAIN_SEED + step) % (2**31 - 1)}, config)
            plan = Plan(trial.trial_id, seeded.to_flat(), args.on, until, workers, gpus)
            names.append(train_one(run, plan, console))
        notifier.end("finished", f"Retrained {trial.trial_id}: {', '.join(names)}.")
    return Retrained(folder, trial.trial_id, why, changes(config, trial), names)


def _settings_of(folder: Path, args: argparse.Namespace) -> "SearchSettings":
    """The settings of a run, with its data at the place of `--data`."""
    from search.cli.run_folder import resumed_settings
    from search.cli.trusted import data_choices, refuse_unnamed, remember
    from search.cli.values import data_source

    settings = resumed_settings(str(folder.parent), folder.name)
    if args.data is None:
        refuse_unnamed(data_choices(settings.data), (), f"digit-search retrain {folder}")
    else:
        settings = replace(settings, data=replace(settings.data, folder=data_source(args.data).folder))
    remember(data_choices(settings.data))
    return settings


def _check_batches(config: TrainConfig, workers: int, *, gpus: bool) -> None:
    """Check that each process gets at least one image of a step.

    Raises:
        UsageError: there are more processes than images in a step.
    """
    fewest = min(stage.config.optim.batch_size for stage in config.stages)
    if workers > fewest:
        raise UsageError(
            f"{'--gpus' if gpus else '--workers'} {workers}: a step has {fewest} images (optim.batch_size) and each "
            "process needs at least one; use fewer processes, or larger steps with --set optim.batch_size"
        )


def _last_epoch(record: RunRecord, trial: TrialRecord, config: TrainConfig, args: argparse.Namespace) -> int | None:
    """The epoch after which a training without validation ends: its trial's best; None trains all epochs."""
    best = trial.best(record.metric)
    given = args.epochs is not None or config.optim.epochs != int(trial.config["optim.epochs"])
    return int(best["epoch"]) if args.on == JOINED and not given and best is not None else None


def _length_words(config: TrainConfig, data: "DigitData", trained_on: str, until: int | None) -> Iterator[str]:
    """How long the training is, where this is not obvious."""
    from digits_core.data.cache import images_per_epoch

    joined = trained_on == JOINED
    if joined:
        yield "no images are left for validation, so the training ends after " + (
            f"the requested {config.optim.epochs} epochs" if until is None else f"epoch {until}, its trial's best"
        )
    num_images = len((data.joined() if joined else data).train)
    an_epoch = images_per_epoch(num_images, config.data.images_per_epoch)
    if an_epoch < num_images:
        yield (
            f"an epoch has {an_epoch:,} of the {num_images:,} images, as in the search; --set data.images_per_epoch=0 "
            "uses all of them"
        )


def retrain_config(trial: TrialRecord, args: argparse.Namespace, folder: Path) -> TrainConfig:
    """The trial's config with its best swept thresholds, changed by the flags.

    Raises:
        UserError: a parameter that cannot be set here, or an invalid value.
    """
    from results.views.winner import swept_thresholds
    from search.models.folder import in_order
    from search.models.source import initial_weights

    changed = dict(parse_assignment(text) for text in args.set)
    for name in changed:
        if name == "runtime.seed":
            raise UsageError("--set runtime.seed: each retraining has its own new seed; omit it")
        if name.startswith("detect.task"):
            raise UsageError(
                f"--set {name}: thresholds are chosen on the validation images after the training, or come from the "
                "search with --on train+valid; digit-search predict accepts others as --score-1 and --score-2"
            )
    if args.init_from is not None:
        changed["model.weights"] = initial_weights(args.init_from, str(folder.parent), changed)
    if args.epochs is not None:
        if "optim.epochs" in changed:
            raise UsageError(f"--epochs {args.epochs}: --set optim.epochs also sets it; give one of them")
        changed["optim.epochs"] = args.epochs
    config = TrainConfig.from_flat({**trial.config, **swept_thresholds(trial.optima), **changed})
    return replace(config, detect=in_order(config.detect))


def crew(machine: dict[str, float], gpus: int | None, workers: int | None) -> tuple[int, bool]:
    """How many processes train together, and whether on GPUs.

    Raises:
        UsageError: the machine does not have so many GPUs or cores.
    """
    available = int(machine["GPU"])
    if gpus and gpus > available:
        raise UsageError(f"--gpus {gpus}: this machine has {available or 'none'}")
    if gpus and workers:
        raise UsageError("--gpus and --workers both set the number of processes; give one of them")
    if workers is not None:
        if workers > machine["CPU"]:
            raise UsageError(f"--workers {workers}: there are {machine['CPU']:g} cores")
        return workers, False
    count = min(available, 1) if gpus is None else gpus
    return (count, True) if count else (1, False)


@dataclass(frozen=True, slots=True)
class RetrainedRun:
    """A run whose trial is retrained.

    Attributes:
        folder: the run folder.
        record: the record of the run.
        settings: the settings of the run.
        data: the data of the run.
        machine: cores and GPUs of this machine, under Ray's names.
    """

    folder: Path
    record: RunRecord
    settings: "SearchSettings"
    data: "DigitData"
    machine: dict[str, float]


def train_one(run: RetrainedRun, plan: Plan, console: "Console") -> str:
    """Train one retraining, or continue an interrupted one; returns its name in the run.

    Raises:
        RunError: another process trains it, or the training failed.
    """
    from search.models.record import keep_retraining
    from search.models.train_loop import MODEL_FOLDER, read_epochs
    from search.models.trainer import run_trainer

    name = place_for(run.folder, run.record, plan)
    state = run.folder / RETRAIN / name
    known = run.record.trials.get(name)
    if known is not None and known.status == "finished" and (run.folder / MODELS / name).is_dir():
        console.print(f"{name}: already finished")
        return name
    state.mkdir(parents=True, exist_ok=True)
    with lock_run(state):
        write_text(state / PLAN_FILE, json.dumps(asdict(plan), indent=2))
        epochs = read_epochs(state)
        if not (state / MODEL_FOLDER).is_dir():
            epochs = run_trainer(state, plan, run.settings, run.data, run.machine, metric=run.record.metric)
        keep_retraining(run.folder, name, plan, epochs, run.settings, run.data)
    return name


def place_for(folder: Path, record: RunRecord, plan: Plan) -> str:
    """The name of a retraining: that of an earlier one with the same plan, or the next free one of its trial."""
    number = 1
    while True:
        name = f"{plan.parent}-r{number}"
        path = folder / RETRAIN / name / PLAN_FILE
        if not path.is_file() and name not in record.trials:
            return name
        try:
            if json.loads(path.read_text(encoding="utf-8")) == asdict(plan):
                return name
        except (OSError, ValueError):
            pass
        number += 1


if __name__ == "__main__":
    raise SystemExit(main())
