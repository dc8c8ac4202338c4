"""A search without training: thresholds swept on a model that is there already."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from digits_core.config.train_config import TrainConfig
from digits_core.errors import UsageError, WeightsError, printable
from digits_core.model.anchors import setting_digest
from digits_core.model.checkpoint import load_categories, load_config, load_model
from digits_core.terminal import open_console
from results.record.folder import THRESHOLDS
from results.record.log import EventWriter
from results.record.schema import EPOCH_NUMBERS
from results.tables.matches import matches_path
from results.tables.samples import MissesKeeper
from results.views.leaderboard import write_views
from search.cli.prepare_data import prepare_data
from search.cli.run_folder import write_description
from search.cli.settings import SearchSettings, make_plan
from search.cli.trusted import choices_of, data_choices, refuse_unnamed, remember
from search.models.source import Source, find_source
from search.monitor.summary import print_end
from search.policy.plan import Plan


def rescore(settings: SearchSettings, source: str, *, own_data: bool, dry_run: bool) -> int:
    """Sweep a trained model and write a run folder about it.

    Args:
        settings: what was asked.
        source: RUN, RUN:TRIAL or a checkpoint folder.
        own_data: whether `settings.data` was named; else a run's own data is taken.
        dry_run: say what would be done, and end.

    Raises:
        UserError: the source has no model, or a space asked for needs training.
    """
    from spaces.catalogue import get_spaces

    for one in get_spaces(settings.space, settings.space_files):
        if not one.after_training:
            raise UsageError(
                f"--from {printable(source)}: space '{one.name}' needs trainings of its own; name thresholds"
            )
    trained = [name for name in settings.fixed | settings.config if not name.startswith("detect.")]
    if trained:
        raise UsageError(f"--set {trained[0]}: the model of --from is trained already; only detect.* can be set")
    model = find_source(source, Path(settings.out), "--from")
    if model.data is not None and not own_data:
        refuse_unnamed(data_choices(model.data), (), f"--from {source}")
        settings = dataclasses.replace(settings, data=model.data)  # what was set apart to confirm stays apart
    plan = make_plan(settings)
    config = TrainConfig.from_flat(settings.config | settings.fixed, load_config(model.folder))
    plan = dataclasses.replace(plan, base=config)
    folder = Path(settings.out) / settings.name
    console = open_console()
    if folder.exists():
        raise UsageError(f"--name {settings.name}: {folder} exists; name another")
    console.print(f"model: {model.words}")
    if not dry_run:
        remember(choices_of(settings))
    data = prepare_data(settings, console)
    if dry_run:
        console.print(f"would sweep this model without any training, into {folder}")
        return 0
    return _sweep(settings, plan, model, data, folder, console)


def _sweep(settings: SearchSettings, plan: Plan, model: Source, data: Any, folder: Path, console: Any) -> int:
    from digits_core.data.augment import Processing
    from digits_core.evaluation.detect import SCORE_FLOOR
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.evaluation.sweep import sweep
    from digits_core.model.build import build_model, read_back
    from digits_core.training.device import choose_device, choose_dtype
    from search.tune.trainable import optima, tasks_of, write_evaluation, write_sweep

    config, name = plan.base, "t0000"
    known = load_categories(model.folder)
    if known != data.categories:
        raise WeightsError(
            f"{model.words} detects {printable(known.words)}, the data at {settings.data.folder} has "
            f"{printable(data.categories.words)}; sweep it on data of its own categories"
        )
    detector, _ = build_model(TrainConfig.from_flat({"model.weights": "none"}, config), num_classes=known.num_classes)
    load_model(model.folder, detector)
    device = choose_device("cpu" if settings.gpus_per_trial == 0 else "auto")
    tasks = [config.detect.task1, config.detect.task2, *tasks_of(config, plan.sweep)]
    started = time.perf_counter()
    found = evaluate(
        detector.to(device),
        data.valid,
        config.detect,
        min([SCORE_FLOOR, *(task.score for task in tasks)]),
        batch_size=config.runtime.eval_batch_size,
        dtype=choose_dtype(config.runtime.precision, device),
        change=Processing(config.augment),
    )
    evaluated = time.perf_counter()
    swept = sweep(found.found, data.valid.table, config.detect, tasks)
    console.print(
        f"evaluated once in {evaluated - started:.1f} s, {len(swept):,} settings scored in "
        f"{time.perf_counter() - evaluated:.1f} s"
    )
    folder.mkdir(parents=True)
    for path in (folder / THRESHOLDS, matches_path(folder, name, "val").parent):
        path.mkdir()
    write_description(folder, settings, plan, data, None)
    write_sweep(swept, folder / THRESHOLDS / f"{name}.parquet", epoch=model.epoch)
    write_evaluation(found, data.valid, config.detect, matches_path(folder, name, "val"), epoch=model.epoch)
    events = EventWriter(folder, settings.name)
    events.write("run", metric=settings.metric, trials=1, resumed=False)
    events.write(
        "trial",
        trial_id=name,
        space=settings.space,
        role="search",
        baseline=model.words,
        config=config.to_flat(),
        config_hash=setting_digest(config),
        seed=config.runtime.seed,
        params={},
    )
    events.write("start", trial_id=name)
    values = {f"val_{key}": value for key, value in dataclasses.asdict(found.scores).items()}
    events.write(
        "report",
        trial_id=name,
        epoch=model.epoch,
        early_stopped=False,
        **{key: value for key, value in (values | {"val_loss": found.loss}).items() if key in EPOCH_NUMBERS},
        eval_seconds=evaluated - started,
        model=read_back(detector),
        optima=optima(swept),
        device=device.type,
    )
    events.write("end", trial_id=name, status="finished", reason="swept without training")
    events.close()
    write_views(folder, events.record)
    MissesKeeper(folder, data.valid.table, data.valid.image).follow(events.record)
    return print_end(settings, plan, folder, events.record, None, console)
