"""A search without training: sweeps the thresholds of an existing model."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData
from digits_core.errors import UsageError, WeightsError, printable
from digits_core.model.anchors import setting_digest
from digits_core.model.checkpoint import load_categories, load_config, load_model
from digits_core.terminal import open_console
from results.record.folder import THRESHOLDS
from results.record.log import EventWriter
from results.record.run import RunRecord
from results.record.schema import EPOCH_NUMBERS
from results.tables.matches import matches_path
from results.tables.samples import MissesKeeper
from results.views.leaderboard import write_views
from search.cli.prepare_data import prepare_data
from search.cli.run_folder import write_description
from search.cli.settings import SearchSettings, make_plan
from search.cli.trusted import choices_of, data_choices, refuse_unnamed, remember
from search.models.check import check_best
from search.models.source import Source, find_source
from search.monitor.summary import print_end
from search.policy.plan import Plan

BEST = 5
"""Threshold settings of each task that are printed."""

if TYPE_CHECKING:
    from digits_core.evaluation.evaluate import Evaluation
    from digits_core.evaluation.sweep import Sweep


def rescore(settings: SearchSettings, source: str, *, own_data: bool, dry_run: bool, command: list[str]) -> int:
    """Sweep a trained model, write a run folder and print the result; returns the exit code.

    Args:
        settings: the settings of the search.
        source: RUN, RUN:TRIAL or a checkpoint folder.
        own_data: whether the user gave `settings.data`; otherwise the data of the model's run is used.
        dry_run: only print what would be done.
        command: the command as typed, for run.json.

    Raises:
        UserError: the source has no model, or a space needs training.
    """
    from spaces.catalogue import get_spaces

    for one in get_spaces(settings.space, settings.space_files):
        if not one.after_training:
            raise UsageError(f"--from {printable(source)}: space '{one.name}' needs training; use --space thresholds")
    trained = [name for name in settings.fixed | settings.config if not name.startswith("detect.")]
    if trained:
        raise UsageError(f"--set {trained[0]}: the model of --from is already trained; only detect.* can be set")
    model = find_source(source, "--from", Path(settings.out))
    if model.data is not None and not own_data:
        refuse_unnamed(data_choices(model.data), (), f"--from {source}")
        settings = dataclasses.replace(settings, data=model.data)  # with the same images held out for confirmations
    plan = make_plan(settings)
    config = TrainConfig.from_flat(settings.config | settings.fixed, load_config(model.folder))
    plan = dataclasses.replace(plan, base=config)
    folder = Path(settings.out) / settings.name
    console = open_console()
    if folder.exists():
        raise UsageError(f"--name {settings.name}: {folder} exists; give another name")
    console.print(f"model: {model.words}")
    if not dry_run:
        remember(choices_of(settings))
    data = prepare_data(settings, console)
    if dry_run:
        console.print(f"would sweep this model without any training, into {folder}")
        return 0
    swept = _evaluate(settings, plan, model, data, console)
    record = _write_run(settings, plan, model, data, command, swept)
    for line in best_lines(swept.sweep):
        console.print(line, soft_wrap=True)
    return print_end(settings, plan, folder, record, None, console).code


def best_lines(found: "Sweep") -> list[str]:
    """The best thresholds of each task, as lines."""
    lines = []
    for task, score, words in ((1, "map", "mAP"), (2, "number_accuracy", "of the numbers read correctly")):
        rows = found.ranked(score)[:BEST]
        if rows:
            lines.append(f"best thresholds for Task {task}, selected on these validation images:")
        for row in rows:
            one, value = found.task(row), float(getattr(found, score)[row])
            kind = "across classes" if one.class_agnostic else "within classes"
            reached = f"{value:.4f} {words}" if task == 1 else f"{value:.1%} {words}"
            lines.append(f"  nms {one.nms:<4g} {kind}, score above {one.score:<4g}  {reached}")
    return lines


class _Swept(NamedTuple):
    """A model evaluated once, and its threshold sweep."""

    scores: "Evaluation"
    sweep: "Sweep"
    model: dict[str, object]
    device: str
    seconds: float


def _evaluate(settings: SearchSettings, plan: Plan, source: Source, data: DigitData, console: Console) -> _Swept:
    """Evaluate a model on the validation images and sweep its thresholds.

    Raises:
        WeightsError: the model detects other categories than the data has.
    """
    from digits_core.data.augment import Processing
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.evaluation.sweep import sweep
    from digits_core.model.build import build_model, read_back
    from digits_core.training.device import choose_device, choose_dtype
    from search.tune.trainable import tasks_of

    config, known = plan.base, load_categories(source.folder)
    if known != data.categories:
        raise WeightsError(
            f"{source.words} detects {printable(known.words)}, the data at {settings.data.folder} has "
            f"{printable(data.categories.words)}; sweep it on data with the same categories"
        )
    model, _ = build_model(TrainConfig.from_flat({"model.weights": "none"}, config), num_classes=known.num_classes)
    load_model(source.folder, model)
    device = choose_device("cpu" if settings.gpus_per_trial == 0 else "auto")
    tasks = [config.detect.task1, config.detect.task2, *tasks_of(config, plan.sweep)]
    started = time.perf_counter()
    scores = evaluate(
        model.to(device),
        data.valid,
        config.detect,
        min([SCORE_FLOOR, *(task.score for task in tasks)]),
        batch_size=config.runtime.eval_batch_size,
        dtype=choose_dtype(config.runtime.precision, device),
        change=Processing(config.augment),
    )
    evaluated = time.perf_counter()
    swept = sweep(scores.found, data.valid.table, config.detect, tasks)
    console.print(
        f"evaluated once in {evaluated - started:.1f} s, {len(swept):,} settings scored in "
        f"{time.perf_counter() - evaluated:.1f} s"
    )
    return _Swept(scores, swept, read_back(model), device.type, evaluated - started)


def _write_run(
    settings: SearchSettings, plan: Plan, source: Source, data: DigitData, command: list[str], swept: _Swept
) -> RunRecord:
    """Write the run folder of a sweep, with one trial; returns its record."""
    from search.tune.trainable import optima, write_evaluation, write_sweep

    config, name, folder = plan.base, "t0000", Path(settings.out) / settings.name
    folder.mkdir(parents=True)
    for path in (folder / THRESHOLDS, matches_path(folder, name, "val").parent):
        path.mkdir()
    write_description(folder, settings, plan, data, command)
    write_sweep(swept.sweep, folder / THRESHOLDS / f"{name}.parquet", epoch=source.epoch)
    write_evaluation(swept.scores, data.valid, config.detect, matches_path(folder, name, "val"), epoch=source.epoch)
    events = EventWriter(folder, settings.name)
    events.write("run", metric=settings.metric, trials=1, resumed=False)
    events.write(
        "trial",
        trial_id=name,
        space=settings.space,
        role="search",
        baseline=source.words,
        config=config.to_flat(),
        config_hash=setting_digest(config),
        seed=config.runtime.seed,
        params={},
    )
    events.write("start", trial_id=name)
    values = {f"val_{key}": value for key, value in dataclasses.asdict(swept.scores.scores).items()}
    values["val_loss"] = swept.scores.loss
    events.write(
        "report",
        trial_id=name,
        epoch=source.epoch,
        early_stopped=False,
        **{key: value for key, value in values.items() if key in EPOCH_NUMBERS},
        eval_seconds=swept.seconds,
        model=swept.model,
        optima=optima(swept.sweep),
        device=swept.device,
    )
    events.write("end", trial_id=name, status="finished", reason="swept without training")
    check_best(folder, events)
    events.close()
    write_views(folder, events.record)
    MissesKeeper(folder, data.valid.table, data.valid.image).follow(events.record)
    return events.record
