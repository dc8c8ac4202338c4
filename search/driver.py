"""run_search: runs one search, from its settings to its run folder."""

import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rich.console import Console

from digits_core.config.parameter import Flat
from digits_core.data.cache import DigitData, open_data
from digits_core.errors import DataError, UsageError, UserError
from digits_core.terminal import open_console
from results.record.folder import read_record_of
from results.record.lock import lock_run
from results.record.run import RunRecord
from results.views.leaderboard import write_views
from search.cli.forecast import Done, done_of, forecast, measured_training, workload
from search.cli.prepare_data import prepare_data
from search.cli.run_folder import check_folder, is_comparison, make_longer, open_folder, planned
from search.cli.settings import SearchSettings, length_notes, make_plan, trial_words
from search.cli.trusted import choices_of, remember
from search.defaults import GRACE_EPOCHS, LOOPBACK, REDUCTION_FACTOR
from search.machine.cost import measured
from search.machine.probe import Probe
from search.models.check import check_best
from search.monitor.mlflow import MLflow, check_mlflow
from search.monitor.notify import Notifier
from search.monitor.progress import Progress
from search.monitor.ray_metrics import Gauges
from search.monitor.ray_output import chatter_to
from search.monitor.summary import Printed, print_end, resume_command, say_resume, this_python
from search.monitor.tensorboard import TensorBoard
from search.monitor.trackio import Trackio, check_trackio
from search.monitor.view import SearchView
from search.monitor.watchers import Watcher, Watchers
from search.policy.decisions import Policy
from search.policy.plan import Plan
from search.policy.replicates import Idle, most_further
from search.policy.screen import Screen
from search.storage.run_copy import Copier
from search.storage.storage import Storage, StorageError
from search.tune.cluster import (
    EXIT_WITHOUT_RAY,
    Cluster,
    check_address,
    check_dashboard,
    check_dashboard_port,
    connected,
    prepare_environment,
    watched,
)
from search.tune.nodes import check_nodes, paths_needed
from search.tune.run_end import Ending
from search.tune.search import Search
from search.tune.slots import plan_slots
from search.tune.token import token_file
from spaces.registry import DEFAULT_BASELINE

LOG_FILE = "ray.log"


class Place(NamedTuple):
    """Where a search runs and writes.

    Attributes:
        storage: the storage of the run folder and its checkpoints.
        warning: a warning about the dashboard, or None.
    """

    storage: Storage
    warning: str | None


def check_place(settings: SearchSettings, *, resume: bool) -> Place:
    """Check that a search can run and write in its places; writes nothing.

    Raises:
        UserError: it cannot.
    """
    if settings.address is not None:
        if settings.share_gpus:
            raise UsageError("--gpus-per-trial auto: measures this machine; with --address give a number")
        check_address(settings.address)
    if settings.mlflow is not None:
        check_mlflow(settings.mlflow)
    if settings.trackio is not None:
        check_trackio(settings.trackio)
    warning = check_dashboard(settings.dashboard_host)
    check_dashboard_port(settings.dashboard_port, settings.dashboard_host)
    folder = Path(settings.out) / settings.name
    check_folder(folder, resume=resume)
    return Place(Storage(folder, settings.storage), warning)


def run_search(
    settings: SearchSettings,
    *,
    resume: bool = False,
    command: list[str] | None = None,
    quiet: bool = False,
    notify: str | None = None,
) -> int:
    """Run a search to its end and print its leaderboard.

    Args:
        settings: the settings; `name` is the name of the run folder.
        resume: whether to continue the run in that folder.
        command: the command as typed, for run.json.
        quiet: print only errors and, at the end, the winner.
        notify: the address or command to tell when the search ends or stalls.

    Returns:
        0; 1 if no trial has a score; 128 + N if signal N interrupted it (130 after Ctrl-C, 143 after SIGTERM).

    Raises:
        UserError: the user can correct the error; nothing is written before.
    """
    console = open_console(quiet=quiet)
    plan = make_plan(settings)
    place = check_place(settings, resume=resume)
    remember(choices_of(settings))
    if place.warning is not None:
        console.print(place.warning, style="yellow", soft_wrap=True)
    storage, folder = place.storage, place.storage.folder
    lock = lock_run(folder) if resume else None
    try:
        storage.check_access(resume=resume)
        probe = Probe(plan.first_settings())
        data = prepare_data(settings, console)
        check_data(plan, data)
        if not resume:
            for line in (f"configurations: {trial_words(plan)}", *length_notes(settings)):
                console.print(line, soft_wrap=True)
        warning = prepare_environment(joins=settings.address is not None)
        if warning is not None:
            console.print(warning, style="yellow", soft_wrap=True)
        import ray.tune  # noqa: F401  # takes seconds; the probe runs at the same time

        machine = check_machine(settings, probe, data, console)
        share = None
        if settings.share_gpus and machine.get("GPU"):
            share = measured_share(plan, settings, data, machine, console)
        shared = settings if share is None else replace(settings, gpus_per_trial=share)
        ahead = partial(forecast_of, shared, plan, data, machine)
        events = open_folder(settings, plan, data, folder, lock=lock, command=command, forecast=ahead)
        settings = shared  # not stored in run.json: a resume on another machine measures again
    except BaseException:
        storage.release()
        if lock is not None:
            lock.close()
        raise

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    with Copier(storage, say) as copier, Notifier(notify, events.record, say) as notifier:
        return _run(Search(settings, plan, data, events, copier), notifier, console, resume=resume, machine=machine)


def has_nothing_left(settings: SearchSettings, folder: Path) -> bool:
    """Whether a run has trained everything that its settings ask for; Ray is not started.

    False also if the run or its data cannot be read; to resume it then says why.
    """
    try:
        plan = make_plan(settings)
        if planned(folder).epochs != plan.base.optim.epochs:
            return False
        policy = Policy(plan, Screen(open_data(settings.data).train.table, active=settings.screen))
        return policy.next_action(read_record_of(folder)) is Idle.DONE
    except UserError:
        return False


def _run(search: Search, notifier: Notifier, console: Console, *, resume: bool, machine: dict[str, float]) -> int:
    """Run a search in its open run folder and print the leaderboard; returns the exit code."""
    settings, plan, events, folder = search.settings, search.plan, search.events, search.folder
    ending = Ending(settings.time_budget_s)
    try:
        events.write(
            "run",
            metric=settings.metric,
            aims=settings.costs,
            until_settled=settings.until_settled,
            gain=settings.gain,
            scheduler=settings.scheduler,
            trials=plan.trials,
            epochs=plan.base.optim.epochs,
            resumed=resume,
            comparison=is_comparison(settings, plan),
            asha=[GRACE_EPOCHS, REDUCTION_FACTOR],
            space=settings.space,
            sampler=settings.sampler,
            seed=settings.seed,
            screen=settings.screen,
            replicates=plan.replicates,
            replicate_top=plan.replicate_top,
            confirm=plan.confirm,
        )
        not_extended = make_longer(search.storage, events, plan.base.optim.epochs)
        if not_extended:
            console.print(
                f"not trained for more epochs, because the last checkpoint was not kept (--keep): "
                f"{', '.join(not_extended)}",
                soft_wrap=True,
            )
        with chatter_to(folder / LOG_FILE) as terminal:
            _tune(search, notifier, terminal, ending, machine=machine, quiet=console.quiet)
            if ending.signal is None:
                check_best(folder, events)
    except KeyboardInterrupt:  # the second signal; the record is already on disk
        say_resume(console, "interrupted", settings)
        return ending.exit_code or 128 + signal.SIGINT
    except StorageError as error:
        raise UsageError(f"--storage {settings.storage}: {error}; resume with {resume_command(settings)}") from None
    except UserError:
        if not resume and not search.record.trials:  # an empty run folder would block the next attempt
            events.close()
            search.copier.forget()
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        events.close()
    printed = print_end(settings, plan, folder, search.record, ending.reason(), console)
    _tell_end(notifier, ending, printed)
    return ending.exit_code or printed.code


def _tell_end(notifier: Notifier, ending: Ending, printed: Printed) -> None:
    """Tell of the end of a search that was not broken off."""
    reason = ending.reason()
    words = "The time budget was used up." if reason == "time budget" else None
    verdict = " ".join(one for one in (words, printed.verdict) if one) or None
    notifier.end("stopped" if reason == "interrupted" else "failed" if printed.code else "finished", verdict)


def check_data(plan: Plan, data: DigitData) -> None:
    """Check that the configurations that are trained first can train on the data.

    Raises:
        DataError: one cannot; the message names its baseline.
    """
    for name, config in plan.first_settings().items():
        try:
            data.check(config)
        except DataError as error:
            if name == DEFAULT_BASELINE.name:
                raise
            raise DataError(f"baseline '{name}': {error}") from None


def check_machine(settings: SearchSettings, probe: Probe, data: DigitData, console: Console) -> dict[str, float]:
    """Check that this machine can run the search; returns the cores and GPUs that it may use.

    For a cluster, whose nodes are not known yet, only the models are checked, and the result is empty.

    Raises:
        UserError: torch is broken, a model cannot be built, or the requested slots do not fit.
    """
    found = probe.findings(data.categories.num_classes)
    if settings.address is not None:
        found.check_models()
        return {}
    found.check(settings.gpus_per_trial)
    if found.left_out is not None:
        console.print(found.left_out, soft_wrap=True)
    machine = found.resources()
    plan_slots([machine], settings.cpus_per_trial, settings.gpus_per_trial)
    return {**machine, "GPU": 0.0} if settings.gpus_per_trial == 0 else machine


def forecast_of(
    settings: SearchSettings, plan: Plan, data: DigitData, machine: dict[str, float], record: RunRecord | None
) -> dict[str, Any]:
    """The entry of the forecast in run.json.

    It has seconds if `--dry-run` has measured the same training on this machine before.

    Args:
        settings: the settings of the search.
        plan: the same, resolved.
        data: the opened data.
        machine: cores and GPUs of this machine; empty for a cluster, whose nodes are not known yet.
        record: the record of a run to resume; None for a new one.
    """
    done = Done() if record is None else done_of(record, plan)
    if not machine:
        return forecast(workload(settings, plan, data, 1, done), done, None)
    slots = plan_slots([machine], settings.cpus_per_trial, settings.gpus_per_trial, settings.slots)
    training = measured_training(settings, plan, data, gpu=bool(slots.gpus))
    speed = measured(training, threads=max(int(slots.cpus), 1))
    return forecast(workload(settings, plan, data, slots.count, done), done, speed)


def measured_share(
    plan: Plan, settings: SearchSettings, data: DigitData, machine: dict[str, float], console: Console
) -> float:
    """The share of a GPU for each trial, measured by training several trials on one GPU."""
    from search.machine.sharing import best_sharing, try_sharing
    from search.machine.subprocesses import Training

    tried = try_sharing(
        Training(plan.probe_config(), settings.data, data.fingerprint),
        cores=int(machine["CPU"] // machine["GPU"]) or 1,
        cores_each=settings.cpus_per_trial,
        most=None if settings.slots is None else math.ceil(settings.slots / machine["GPU"]),
        say=lambda text: console.print(text),
    )
    return 1 / best_sharing(tried).trials


def _tune(
    search: Search, notifier: Notifier, terminal: TextIO, ending: Ending, *, machine: dict[str, float], quiet: bool
) -> None:
    """Start or join Ray and run the search there."""
    from search.tune.fit import fit
    from search.tune.progress import ProgressFollower

    console = open_console(terminal, quiet=quiet)
    settings, plan, copier, folder = search.settings, search.plan, search.copier, search.folder
    cluster_of_run = connected(
        settings.address, machine=machine, host=settings.dashboard_host, port=settings.dashboard_port
    )
    with ending.on_signals(lambda text: console.print(text)), cluster_of_run as cluster:
        slots = plan_slots(
            list(cluster.nodes.values()),
            settings.cpus_per_trial,
            settings.gpus_per_trial,
            settings.slots,
            grows=settings.address is not None,
        )
        console.print(f"slots: {slots.description}")
        needed = paths_needed(settings, plan, search.storage)
        check_nodes(cluster.nodes, needed, search.data.fingerprint, settings.data.folder)
        for line in _where(search, cluster):
            console.print(line, soft_wrap=True)
        base = {**plan.base.to_flat(), **plan.space.fixed}
        follower = ProgressFollower(folder, search.record)
        view = SearchView(
            base,
            trials=plan.trials + most_further(plan, plan.trials),
            epochs=plan.base.optim.epochs,
            slots=slots.count,
            folder=folder,
            reached=follower.reached,
        )
        progress = Progress(terminal, view, quiet=quiet)

        def say(text: str) -> None:
            progress.console.print(text, soft_wrap=True)

        def on_ray_killed(text: str) -> None:
            if ending.signal is None:
                terminal.write(f"\n{text}; resume with {resume_command(settings)}\n")
                terminal.flush()
                notifier.end("failed", text)
                return
            # systemd and Slurm also send the signal to Ray's processes, so Ray cannot end the trials in order.
            progress.__exit__()
            write_views(folder, search.record)
            _tell_end(notifier, ending, print_end(settings, plan, folder, search.record, ending.reason(), console))
            terminal.flush()

        watchers = _watchers(search, notifier, base, say)

        def watch(record: RunRecord, trial_id: str) -> None:
            progress.update(record, trial_id)
            watchers.update(record, trial_id)

        on_death = watched(on_ray_killed, lambda: ending.exit_code or EXIT_WITHOUT_RAY)
        with progress, follower, on_death, copier.telling(say), notifier.telling(say):
            fit(search, slots, watcher=watch, ending=ending.reason, say=say, progress=follower.place)
            watchers.close(search.record)


def _watchers(search: Search, notifier: Notifier, base: Flat, say: Callable[[str], None]) -> Watchers:
    """The other tools that follow a search."""
    settings = search.settings
    tools: list[Watcher] = [notifier, Gauges(base), TensorBoard(search.folder, base, settings.metric)]
    for tracker, place in ((MLflow, settings.mlflow), (Trackio, settings.trackio)):
        if place is not None:
            tools.append(tracker(place, settings.name, search.plan.space.name, base, settings.metric, say))
    return Watchers(tools, say)


def _where(search: Search, cluster: Cluster) -> list[str]:
    """Lines about the dashboard, the run folder and the storage."""
    settings, storage = search.settings, search.storage
    lines = []
    if cluster.dashboard and settings.address is None:
        ray = Path(this_python()).with_name("ray")
        only = " (this machine only)" if settings.dashboard_host == LOOPBACK else ""
        token = (
            f"`{ray} get-auth-token` prints the token it asks for"
            if token_file().is_file()
            else "its token is in RAY_AUTH_TOKEN, because the home folder is not writable"
        )
        lines.append(f"dashboard: http://{cluster.dashboard}{only}; {token}")
    elif cluster.dashboard:
        lines.append(f"dashboard: http://{cluster.dashboard}")
    lines.append(f"run folder: {search.folder} (Ray's own messages in {LOG_FILE})")
    if storage.is_remote:
        lines.append(f"checkpoints, and a copy of the run folder: {storage.address}")
    return lines
