"""What `--dry-run` prints: what a search would train and what it would cost. Starts nothing."""

from dataclasses import replace
from pathlib import Path

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData, images_per_epoch
from digits_core.evaluation.sweep import NUM_SWEPT
from digits_core.files import size_words
from digits_core.model.anchors import setting_digest
from digits_core.terminal import open_console
from results.record.folder import read_record_of
from search.cli.forecast import Done, done_of, measured_training, workload
from search.cli.prepare_data import prepare_data
from search.cli.settings import SearchSettings, length_notes, make_plan, trial_words
from search.driver import check_data, check_place
from search.machine.cost import Cost, Workload, cost_of, hours_words, measure
from search.machine.probe import Findings, Probe
from search.policy.plan import Plan
from search.policy.prefix import repeated_epochs
from search.policy.replicates import most_further
from search.tune.slots import plan_slots
from spaces.registry import enumerate_settings


def dry_run(settings: SearchSettings, resumed: Path | None = None) -> int:
    """Print what a search would train and what it would cost.

    Args:
        settings: of the search.
        resumed: the run folder that would be continued; None for a new run.
    """
    plan = make_plan(settings)
    console = open_console()
    storage = check_place(settings, resume=resumed is not None).storage
    data = prepare_data(settings, console)
    check_data(plan, data)
    epochs, further = plan.base.optim.epochs, most_further(plan, plan.trials)
    done = Done() if resumed is None else done_of(read_record_of(resumed), plan)
    images = images_per_epoch(len(data.train), plan.base.data.images_per_epoch)
    found = Probe(plan.first_settings()).findings(data.categories.num_classes)
    slots, lines = _slots_and_cost(settings, plan, data, found, done)
    which = "every configuration" if settings.replicate_top >= plan.trials else "the best configurations"
    stopping = "no early stopping" if settings.scheduler == "none" else f"early stopping by {settings.scheduler}"
    most = (plan.trials + further) * epochs
    for line in (
        f"would train: {trial_words(plan)}, of space {settings.space}",
        *([f"of these, {done.trials} have ended already"] if resumed is not None else []),
        f"each at most {epochs} epochs of {images} images; {stopping}, sampler {settings.sampler}",
        *length_notes(settings),
        *([f"then at most {further} more trainings: replicates of {which}"] if further else []),
        f"in total at most {most} epochs and {most * images:,} images",
        *_repeated_lines(plan, len(data.train)),
        f"slots: {slots}",
        *lines,
        f"swept on each trained model: {NUM_SWEPT + len(plan.sweep):,} threshold settings",
        f"run folder: {settings.out}/{settings.name}",
        *([f"checkpoints, and a copy of the run folder: {storage.address}"] if storage.is_remote else []),
        *([f"missing before the start: {found.download_fault}"] if found.download_fault else []),
    ):
        console.print(line)
    return 0


def _repeated_lines(plan: Plan, num_images: int) -> list[str]:
    """A line about epochs that several configurations have in common, if all configurations are known ahead."""
    configs = {setting_digest(config): config for config in plan.first_settings().values()}
    if plan.sampler == "grid":
        listed = (TrainConfig.from_flat(overrides, plan.base) for _, overrides in enumerate_settings(plan.space))
        configs |= {setting_digest(config): config for config in listed}
    repeated = repeated_epochs([*configs.values()], num_images)
    if not repeated:
        return []
    known = "" if plan.sampler == "grid" else " of the baselines"
    total = sum(one.optim.epochs for one in configs.values())
    return [f"of the {total} epochs{known}, {repeated} are the same as first epochs of another configuration"]


def _slots_and_cost(
    settings: SearchSettings, plan: Plan, data: DigitData, found: Findings, done: Done
) -> tuple[str, list[str]]:
    """The slots, and lines about the epochs and the cost of what has not ended."""
    missing, found = found.download_fault, replace(found, download_fault=None)
    if settings.address is not None:
        found.check_models()
        why = "the nodes of the cluster are not checked before the start"
        return f"those of the cluster at {settings.address}", _unmeasured(workload(settings, plan, data, 1, done), why)
    found.check(settings.gpus_per_trial)
    slots = plan_slots([found.resources()], settings.cpus_per_trial, settings.gpus_per_trial, settings.slots)
    work = workload(settings, plan, data, slots.count, done)
    if missing:
        return slots.description, _unmeasured(work, "the initial weights are missing")
    speed = measure(measured_training(settings, plan, data, gpu=bool(slots.gpus)), threads=max(int(slots.cpus), 1))
    later = "; how many trials share a GPU is measured at the start" if settings.share_gpus and slots.gpus else ""
    lines = cost_lines(work, cost_of(speed, work))
    lines[-1] += (
        f" (measured with the default configuration: {speed.train_per_second:.0f} training and "
        f"{speed.eval_per_second:.0f} validation images/s per slot)"
    )
    return slots.description + later, lines


def _unmeasured(work: Workload, why: str) -> list[str]:
    """The lines about the cost if no speed could be measured."""
    budget = [] if work.budget_s is None else [f"time budget: ends after {hours_words(work.budget_s)}"]
    return [f"forecast: about {work.expected_epochs:.0f} epochs", *budget, f"would take: not measured, because {why}"]


def cost_lines(work: Workload, cost: Cost) -> list[str]:
    """The lines about the expected epochs, the time budget, the time and the sizes."""
    epochs, most = f"{cost.epochs:.0f}", f"{work.expected_epochs:.0f}"
    lines = [f"forecast: about {most} epochs"]
    if work.budget_s is not None:
        ends = f"enough for about {epochs} of these epochs" if epochs != most else "more than these epochs need"
        lines.append(f"time budget: {hours_words(work.budget_s)}, {ends}")
    likely, longest = hours_words(cost.seconds), hours_words(cost.most_seconds)
    took = likely if likely == longest else f"{likely}, at most {longest},"
    sizes = f"{size_words(cost.disk_bytes)} of disk, {size_words(cost.memory_bytes)} of memory"
    return [*lines, f"would take: about {took} of training after the start; {sizes}"]
