"""run_search: one search from its settings to its run folder."""

import contextlib
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from digits_core.cache import DigitData, open_data
from digits_core.errors import DataError, UsageError, UserError, printable
from digits_core.source import DRAWN
from results.lock import lock_run
from results.record import EventWriter, RunRecord
from results.terminal import open_console
from search.chatter import chatter_to
from search.closing import print_end, resume_command, this_python
from search.cluster import (
    check_address,
    check_dashboard,
    connected,
    free_port,
    prepare_environment,
    watched,
)
from search.copier import Copier
from search.defaults import GRACE_EPOCHS, LOOPBACK, REDUCTION_FACTOR
from search.further import FurtherTrials
from search.gauges import Gauges
from search.mlflow import MLflow, check_mlflow
from search.nodes import check_nodes, paths_needed
from search.probe import Probe
from search.progress import Progress
from search.run_folder import check_folder, is_comparison, make_longer, open_folder
from search.settings import Plan, SearchSettings, make_plan
from search.slots import plan_slots
from search.storage import Storage, StorageError
from search.tensorboard import TensorBoard
from search.watchers import Watcher, Watchers
from spaces.registry import DEFAULT_BASELINE

LOG_FILE = "ray.log"


class Ending:
    """Why the run is ending before its last trial, if it is: Ctrl-C or the time budget."""

    def __init__(self, time_budget_s: float | None) -> None:
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self._interrupted = threading.Event()

    def reason(self) -> str | None:
        """`interrupted`, `time budget` or None."""
        if self._interrupted.is_set():
            return "interrupted"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "time budget"
        return None

    @contextlib.contextmanager
    def on_signals(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take the first Ctrl-C (or SIGTERM) as a wish to end tidily, the second as it is."""

        def handle(number: int, frame: object) -> None:
            if self._interrupted.is_set():
                raise KeyboardInterrupt
            self._interrupted.set()
            say("ending tidily: running trials are set down where they are; again to end at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Place(NamedTuple):
    """Where a search runs and writes.

    Attributes:
        port: of the dashboard.
        storage: of the run folder and its checkpoints.
        warning: what a person should know of the dashboard.
    """

    port: int
    storage: Storage
    warning: str | None


def check_place(settings: SearchSettings, *, resume: bool) -> Place:
    """See that a search can run and write where it is asked to; nothing is written.

    Raises:
        UserError: it cannot.
    """
    if settings.address is not None:
        if settings.share_gpus:
            raise UsageError("--gpus-per-trial auto: is measured on this machine; with --address give a number")
        check_address(settings.address)
    if settings.mlflow is not None:
        check_mlflow(settings.mlflow)
    warning = check_dashboard(settings.dashboard_host)
    port = free_port(settings.dashboard_port, host=settings.dashboard_host)
    folder = Path(settings.out) / settings.name
    check_folder(folder, resume=resume)
    return Place(port, Storage(folder, settings.storage), warning)


def run_search(
    settings: SearchSettings, *, resume: bool = False, command: list[str] | None = None, quiet: bool = False
) -> int:
    """Run a search to its end and print its leaderboard.

    Args:
        settings: what to do; `name` is the folder's.
        resume: go on with the run folder of that name.
        command: as typed, for run.json.
        quiet: say what went wrong, and at the end who won; nothing else.

    Returns:
        0; 1 when no trial has a score; 130 when it was interrupted.

    Raises:
        UserError: whatever a user can mend, before anything is written.
    """
    console = open_console(quiet=quiet)
    plan = make_plan(settings)
    place = check_place(settings, resume=resume)
    if place.warning is not None:
        console.print(place.warning, style="yellow", markup=False, soft_wrap=True)
    storage, folder = place.storage, place.storage.folder
    held = lock_run(folder) if resume else None
    try:
        storage.try_out(resume=resume)
        probe = Probe(plan.first_settings())
        data = prepare_data(settings, console)
        check_data(plan, data)
        prepare_environment(joins=settings.address is not None)
        import ray.tune  # noqa: F401  # takes seconds, which the probe takes anyway

        machine = check_machine(settings, probe, data, console)
        share = None
        if settings.share_gpus and machine.get("GPU"):
            share = measured_share(plan, settings, data, machine, console)
        events = open_folder(settings, plan, data, folder, lock=held, command=command)
        if share is not None:  # of this machine: a resume on another one measures there
            settings = replace(settings, gpus_per_trial=share)
    except BaseException:
        storage.leave()
        if held is not None:
            held.close()
        raise
    with Copier(storage, lambda text: console.print(text, markup=False, soft_wrap=True)) as copier:
        return _run(settings, plan, data, copier, events, console, resume=resume, port=place.port, machine=machine)


def _run(
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    copier: Copier,
    events: EventWriter,
    console: Console,
    *,
    resume: bool,
    port: int,
    machine: dict[str, float],
) -> int:
    """A search in its folder, to the leaderboard; returns the exit code."""
    record, storage = events.record, copier.storage
    folder = storage.folder
    try:
        events.write(
            "run",
            metric=settings.metric,
            scheduler=settings.scheduler,
            trials=plan.trials,
            epochs=plan.base.optim.epochs,
            resumed=resume,
            comparison=is_comparison(settings, plan),
            asha=[GRACE_EPOCHS, REDUCTION_FACTOR],
        )
        shorter = make_longer(storage, events, plan.base.optim.epochs)
        if shorter:
            console.print(
                f"{', '.join(shorter)}: the checkpoint to go on from was not kept (--keep), so what is known of "
                f"{'it' if len(shorter) == 1 else 'them'} stays as it is",
                markup=False,
                soft_wrap=True,
            )
        with chatter_to(folder / LOG_FILE) as terminal:
            ending = _tune(
                settings, plan, data, copier, events, terminal, port=port, machine=machine, quiet=console.quiet
            )
    except KeyboardInterrupt:  # the second Ctrl-C: the record holds what it holds
        console.print(f"interrupted; go on with\n            {resume_command(settings)}", markup=False, soft_wrap=True)
        return 130
    except StorageError as error:
        raise UsageError(f"--storage {settings.storage}: {error}; go on with {resume_command(settings)}") from None
    except UserError:
        if (
            not resume and not record.trials
        ):  # nothing has begun: the folder would only stand in the way of the next try
            events.close()
            copier.forget()
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        events.close()
    return print_end(settings, plan, folder, record, ending, console)


def check_data(plan: Plan, data: DigitData) -> None:
    """See that the settings that are tried first can train on the data.

    Raises:
        DataError: one cannot; names its baseline.
    """
    for name, config in plan.first_settings().items():
        try:
            data.check(config)
        except DataError as error:
            if name == DEFAULT_BASELINE.name:
                raise
            raise DataError(f"baseline '{name}': {error}") from None


def check_machine(settings: SearchSettings, probe: Probe, data: DigitData, console: Console) -> dict[str, float]:
    """See that this machine can run the search; returns the cores and GPUs it may use.

    Of a cluster's nodes nothing is known yet: there only what can work nowhere is refused, and nothing is returned.

    Raises:
        UserError: torch is broken, a model cannot be built, or the slots asked for are not there.
    """
    found = probe.findings(data.categories.num_classes)
    if settings.address is not None:
        found.check_models()
        return {}
    found.check(settings.gpus_per_trial)
    if found.left_out is not None:
        console.print(found.left_out, markup=False, soft_wrap=True)
    machine = found.resources()
    plan_slots([machine], settings.cpus_per_trial, settings.gpus_per_trial)
    return {**machine, "GPU": 0.0} if settings.gpus_per_trial == 0 else machine


def measured_share(
    plan: Plan, settings: SearchSettings, data: DigitData, machine: dict[str, float], console: Console
) -> float:
    """The share of a GPU that a trial gets, from letting more and more of them train on one."""
    from search.sharing import best_sharing, try_sharing

    tried = try_sharing(
        plan.probe_config(),
        settings.data,
        data.fingerprint,
        cores=int(machine["CPU"] // machine["GPU"]) or 1,
        cores_each=settings.cpus_per_trial,
        most=None if settings.slots is None else math.ceil(settings.slots / machine["GPU"]),
        say=lambda text: console.print(text, markup=False),
    )
    return 1 / best_sharing(tried).trials


def prepare_data(settings: SearchSettings, console: Console) -> DigitData:
    """Open the data, saying so where it takes a while."""
    what = "the built-in drawn house numbers" if settings.data.folder == DRAWN else settings.data.folder
    started = time.monotonic()
    data = open_data(settings.data)
    took = time.monotonic() - started
    sizes = f"{len(data.train)} training and {len(data.valid)} validation images"
    if data.confirm is not None:
        sizes += f", {len(data.confirm)} more set apart to confirm"
    console.print(f"data: {what}, {sizes}" + (f" (decoded in {took:.0f} s)" if took > 1 else ""))
    if not data.categories.are_digits:
        console.print(f"data: {printable(data.categories.words)}: no digits, so no number is read", markup=False)
        if settings.metric == "val_number_accuracy":
            raise UsageError(
                "--metric val_number_accuracy: the categories of this data are no digits, so there are no numbers; "
                "take val_map"
            )
    left_out = [f"{count} {name.replace('_', ' ')}" for name, count in data.notes.items() if count]
    if left_out:
        console.print(f"data: {', '.join(left_out)}")
    return data


def _tune(
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    copier: Copier,
    events: EventWriter,
    terminal: Any,
    *,
    port: int,
    machine: dict[str, float],
    quiet: bool,
) -> str | None:
    """Hand the search to Ray Tune; returns why it ended early, if it did."""
    console = open_console(terminal, quiet=quiet)
    ending = Ending(settings.time_budget_s)
    storage = copier.storage
    folder = storage.folder
    cluster_of_run = connected(settings.address, port=port, machine=machine, host=settings.dashboard_host)
    with ending.on_signals(lambda text: console.print(text)), cluster_of_run as cluster:
        slots = plan_slots(
            list(cluster.nodes.values()),
            settings.cpus_per_trial,
            settings.gpus_per_trial,
            settings.slots,
            grows=settings.address is not None,
        )
        console.print(f"slots: {slots.description}")
        check_nodes(cluster.nodes, paths_needed(settings, plan, storage), data.fingerprint, settings.data.folder)
        if cluster.dashboard and settings.address is None:
            ray = Path(this_python()).with_name("ray")
            only = " (this machine only)" if settings.dashboard_host == LOOPBACK else ""
            console.print(
                f"dashboard: http://{cluster.dashboard}{only}; `{ray} get-auth-token` prints the token it asks for",
                soft_wrap=True,
            )
        elif cluster.dashboard:
            console.print(f"dashboard: http://{cluster.dashboard}")
        console.print(f"run folder: {folder} (Ray's own messages in {LOG_FILE})", soft_wrap=True)
        if storage.apart:
            console.print(f"checkpoints, and a copy of the run folder: {storage.address}", markup=False, soft_wrap=True)
        from search.tuning import fit

        progress = Progress(
            terminal,
            {**plan.base.to_flat(), **plan.space.fixed},
            trials=plan.trials,
            further=FurtherTrials(
                events.record,
                replicates=settings.replicates,
                top=settings.replicate_top,
                confirm=settings.confirm,
            ).most(plan.trials),
            epochs=plan.base.optim.epochs,
            slots=slots.count,
            folder=folder,
            quiet=quiet,
        )

        def say(text: str) -> None:
            progress.console.print(text, markup=False, soft_wrap=True)

        def last_words(text: str) -> None:
            _say_last(terminal, f"{text}; go on with {resume_command(settings)}")

        base = {**plan.base.to_flat(), **plan.space.fixed}
        followers: list[Watcher] = [Gauges(base), TensorBoard(folder, base, settings.metric)]
        if settings.mlflow is not None:
            followers.append(MLflow(settings.mlflow, settings.name, plan.space.name, base, settings.metric, say))
        watchers = Watchers(followers, say)

        def follow(record: RunRecord, trial_id: str) -> None:
            progress.update(record, trial_id)
            watchers.update(record, trial_id)

        with progress, watched(last_words), copier.telling(say):
            fit(
                settings,
                plan,
                data,
                folder,
                events,
                slots,
                follow,
                ending.reason,
                say=say,
                storage=storage,
                waits=lambda: copier.fault is not None,
            )
            watchers.close(events.record)
        return ending.reason()


def _say_last(terminal: Any, text: str) -> None:
    """The last words of a process that ends at once."""
    terminal.write(f"\n{text}\n")
    terminal.flush()
