"""A search without training: sweeps the thresholds of an existing model, and compares ways to merge its boxes."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from digits_core.config.parameter import Flat
from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData
from digits_core.errors import UsageError, WeightsError, printable
from digits_core.model.anchors import setting_digest
from digits_core.model.checkpoint import load_categories, load_config, load_model
from digits_core.terminal import open_console
from results.record.folder import THRESHOLDS
from results.record.log import EventWriter
from results.record.run import RunRecord
from results.record.schema import EPOCH_NUMBERS, SWEPT
from results.tables.matches import matches_path
from results.tables.samples import MissesKeeper
from results.views.leaderboard import write_views
from search.cli.prepare_data import prepare_data
from search.cli.run_folder import write_description
from search.cli.settings import SearchSettings, make_plan, merging_part
from search.cli.trusted import choices_of, data_choices, refuse_unnamed, remember
from search.models.best_thresholds import print_merged, print_swept
from search.models.check import check_best
from search.models.source import Source, find_source
from search.policy.plan import Plan
from spaces.registry import Overrides

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
            raise UsageError(
                f"--from {printable(source)}: space '{one.name}' needs training; use thresholds or box_merging"
            )
    if settings.aims:
        raise UsageError(f"--metric {settings.metric},{settings.aims}: --from trains nothing, so give only a metric")
    trained = [name for name in settings.fixed | settings.config if not name.startswith("detect.")]
    if trained:
        raise UsageError(f"--set {trained[0]}: the model of --from is already trained; only detect.* can be set")
    model = find_source(source, "--from", Path(settings.out))
    if model.data is not None and not own_data:
        refuse_unnamed(data_choices(model.data), (), f"--from {source}")
        settings = dataclasses.replace(settings, data=model.data)  # with the same images held out for confirmations
    plan = make_plan(settings, trained=True)
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
    if len(swept.rows) == 1:
        return print_swept(settings, model, folder, record, swept.rows[0].sweep, console)
    return print_merged(folder, record, console)


class _Row(NamedTuple):
    """The model with one way to merge its boxes: a row of the leaderboard."""

    config: TrainConfig
    params: Flat
    scores: "Evaluation"
    sweep: "Sweep"


class _Swept(NamedTuple):
    """A model evaluated once; the first row has its own configuration."""

    rows: list[_Row]
    model: dict[str, object]
    device: str
    seconds: float


def _evaluate(settings: SearchSettings, plan: Plan, source: Source, data: DigitData, console: Console) -> _Swept:
    """Run a model once on the validation images, and sweep its thresholds for each way to merge its boxes.

    Raises:
        WeightsError: the model detects other categories than the data has.
    """
    from digits_core.data.augment import Processing
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.evaluation.evaluate import detect_split, evaluate_found, refined
    from digits_core.evaluation.sweep import sweep
    from digits_core.model.build import build_model, read_back
    from digits_core.training.device import choose_device, choose_dtype
    from search.models.folder import with_optima
    from search.tune.trainable import optima, tasks_of

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
    floor = min([SCORE_FLOOR, *(task.score for task in tasks)])
    started = time.perf_counter()
    raw, loss = detect_split(
        model.to(device),
        data.valid,
        floor,
        batch_size=config.runtime.eval_batch_size,
        dtype=choose_dtype(config.runtime.precision, device),
        change=Processing(config.augment),
    )
    evaluated = time.perf_counter()
    rows = []
    for number, merging in enumerate([{}, *mergings(plan.sweep)]):
        one = TrainConfig.from_flat(merging, config)
        found = refined(raw, one.detect)
        swept = sweep(found, data.valid.table, one.detect, tasks)
        if number:  # each way has its own best thresholds
            one = dataclasses.replace(one, detect=with_optima(one.detect, optima(swept)))
        rows.append(_Row(one, merging, evaluate_found(found, data.valid, one.detect, loss), swept))
    console.print(
        f"evaluated once in {evaluated - started:.1f} s, {sum(len(row.sweep) for row in rows):,} settings scored in "
        f"{time.perf_counter() - evaluated:.1f} s"
    )
    return _Swept(rows, read_back(model), device.type, evaluated - started)


def mergings(sweep: list[Overrides]) -> list[Flat]:
    """The different ways to merge boxes in `detect.*` settings, without those that have none."""
    found = {json.dumps(part, sort_keys=True): part for one in sweep if (part := merging_part(one))}
    return list(found.values())


def _write_run(
    settings: SearchSettings, plan: Plan, source: Source, data: DigitData, command: list[str], swept: _Swept
) -> RunRecord:
    """Write the run folder of a sweep, with a trial for each row; returns its record."""
    from search.tune.trainable import optima, write_evaluation, write_sweep

    folder = Path(settings.out) / settings.name
    folder.mkdir(parents=True)
    for path in (folder / THRESHOLDS, matches_path(folder, "t0000", "val").parent):
        path.mkdir()
    write_description(folder, settings, plan, data, command)
    events = EventWriter(folder, settings.name)
    events.write("run", metric=settings.metric, trials=len(swept.rows), resumed=False)
    for number, row in enumerate(swept.rows):
        name = f"t{number:04d}"
        write_sweep(row.sweep, folder / THRESHOLDS / f"{name}.parquet", epoch=source.epoch)
        write_evaluation(
            row.scores, data.valid, row.config.detect, matches_path(folder, name, "val"), epoch=source.epoch
        )
        events.write(
            "trial",
            trial_id=name,
            space=settings.space,
            role="search",
            baseline=None if number else source.words,
            config=row.config.to_flat(),
            config_hash=setting_digest(row.config),
            seed=row.config.runtime.seed,
            params=row.params,
        )
        events.write("start", trial_id=name)
        values = {f"val_{key}": value for key, value in dataclasses.asdict(row.scores.scores).items()}
        values["val_loss"] = row.scores.loss
        events.write(
            "report",
            trial_id=name,
            epoch=source.epoch,
            early_stopped=False,
            **{key: value for key, value in values.items() if key in EPOCH_NUMBERS},
            eval_seconds=swept.seconds,
            model=swept.model,
            optima=optima(row.sweep),
            device=swept.device,
        )
        events.write("end", trial_id=name, status="finished", reason=SWEPT)
    check_best(folder, events)
    events.close()
    write_views(folder, events.record)
    MissesKeeper(folder, data.valid.table, data.valid.image).follow(events.record)
    return events.record
