"""run_search: one search from its settings to its run folder."""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from digits_core.cache import DRAWN, DigitData, open_data
from digits_core.config import TrainConfig
from digits_core.errors import RunError, UsageError
from results.leaderboard import print_board
from results.record import EventWriter, RunRecord
from results.store import BEST_FILE, RUN_FILE, leaderboard_table, read_run_file, write_text
from results.terminal import open_console
from search.cluster import chatter_to, connected, free_port, plan_slots, prepare_environment
from search.probe import Probe
from search.progress import Progress
from search.settings import Plan, SearchSettings, make_plan

MIN_FREE_BYTES = 2**30
"""A search does not start on a disk with less."""

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


def run_search(settings: SearchSettings, *, resume: bool = False, command: list[str] | None = None) -> int:
    """Run a search to its end and print its leaderboard.

    Args:
        settings: what to do; `name` is the folder's.
        resume: go on with the run folder of that name.
        command: as typed, for run.json.

    Returns:
        0; 1 when no trial has a score; 130 when it was interrupted.

    Raises:
        UserError: whatever a user can mend, before anything is written.
    """
    console = open_console()
    plan = make_plan(settings)
    port = free_port(settings.dashboard_port)
    folder = Path(settings.out) / settings.name
    _check_folder(folder, resume=resume)
    probe = Probe(plan.probe_config()) if settings.address is None else None
    data = prepare_data(settings, console)
    prepare_environment()
    import ray.tune  # noqa: F401  # takes seconds, which the probe takes anyway

    num_gpus = 0 if probe is None else check_machine(settings, probe)
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        known = read_run_file(folder)
        if known["data"]["fingerprint"] != data.fingerprint:
            raise RunError(
                f"--resume {settings.name}: the data at {settings.data.folder} has changed since the run began"
            )
    else:
        write_text(folder / RUN_FILE, json.dumps(describe_run(settings, plan, data, command), indent=2) + "\n")
    events = EventWriter(folder, settings.name)
    try:
        events.write("run", metric=settings.metric, trials=plan.trials, resumed=resume)
        with chatter_to(folder / LOG_FILE) as terminal:
            ending = _tune(settings, plan, data, folder, events, terminal, port=port, num_gpus=num_gpus)
    finally:
        events.close()
    return _tell(settings, plan, folder, events.record, ending, console)


def check_machine(settings: SearchSettings, probe: Probe) -> int:
    """See that this machine can run the search; returns the GPUs it may use.

    Raises:
        UserError: torch is broken, or the slots asked for are not there.
    """
    found = probe.findings()
    found.check(settings.gpus_per_trial)
    plan_slots(found.resources(), settings.cpus_per_trial, settings.gpus_per_trial)
    return 0 if settings.gpus_per_trial == 0 else found.num_gpus


def prepare_data(settings: SearchSettings, console: Console) -> DigitData:
    """Open the data, saying so where it takes a while."""
    what = "the built-in drawn house numbers" if settings.data.folder == DRAWN else settings.data.folder
    started = time.monotonic()
    data = open_data(settings.data)
    took = time.monotonic() - started
    sizes = f"{len(data.train)} training and {len(data.valid)} validation images"
    console.print(f"data: {what}, {sizes}" + (f" (decoded in {took:.0f} s)" if took > 1 else ""))
    left_out = [f"{count} {name.replace('_', ' ')}" for name, count in data.notes.items() if count]
    if left_out:
        console.print(f"data: {', '.join(left_out)}")
    return data


def describe_run(settings: SearchSettings, plan: Plan, data: DigitData, command: list[str] | None) -> dict[str, Any]:
    """What run.json holds."""
    packages = (
        "ray",
        "torch",
        "torchvision",
        "torchmetrics",
        "faster-coco-eval",
        "optuna",
        "pyarrow",
        "pandas",
        "numpy",
    )
    return {
        "name": settings.name,
        "command": command,
        "settings": settings.to_json(),
        "base_config": plan.base.to_flat(),
        "space": {"name": plan.space.name, "trials": plan.trials, "swept_settings": len(plan.sweep)},
        "seed": settings.seed,
        "data": {
            "fingerprint": data.fingerprint,
            "num_train": len(data.train),
            "num_valid": len(data.valid),
            **asdict(settings.data),
            "notes": data.notes,
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "git_commit": _git_commit(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _check_folder(folder: Path, *, resume: bool) -> None:
    if resume and not (folder / RUN_FILE).is_file():
        raise RunError(f"--resume {folder.name}: there is no run {folder}")
    if not resume and folder.exists():
        raise UsageError(
            f"--name {folder.name}: {folder} exists; go on with it by --resume {folder.name}, or name another"
        )
    parent = folder.parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        raise UsageError(f"--out {folder.parent}: no permission to write there")
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"--out {folder.parent}: the disk has {free / 2**20:.0f} MiB free, a search needs at least "
            f"{MIN_FREE_BYTES / 2**20:.0f}; make room or name a folder on another disk"
        )


def _tune(
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    folder: Path,
    events: EventWriter,
    terminal: Any,
    *,
    port: int,
    num_gpus: int,
) -> str | None:
    """Hand the search to Ray Tune; returns why it ended early, if it did."""
    console = open_console(terminal)
    cluster_of_run = connected(
        settings.address,
        port=port,
        num_gpus=num_gpus,
        cpus_per_trial=settings.cpus_per_trial,
        gpus_per_trial=settings.gpus_per_trial,
    )
    with cluster_of_run as cluster:
        console.print(f"slots: {cluster.slots.description}")
        if cluster.dashboard:
            console.print(
                f"dashboard: http://{cluster.dashboard} (this machine only); "
                "`ray get-auth-token` prints the token it asks for"
            )
        console.print(f"run folder: {folder} (Ray's own messages in {LOG_FILE})")
        from search.tuning import fit

        ending = Ending(settings.time_budget_s)
        progress = Progress(
            terminal,
            {**plan.base.to_flat(), **plan.space.fixed},
            trials=plan.trials,
            epochs=plan.base.optim.epochs,
            slots=cluster.slots.count,
        )
        with ending.on_signals(lambda text: progress.console.print(text)), progress:
            fit(settings, plan, data, folder, events, cluster.slots, progress.update, ending.reason)
        return ending.reason()


def _tell(
    settings: SearchSettings, plan: Plan, folder: Path, record: RunRecord, ending: str | None, console: Console
) -> int:
    """Print the leaderboard, the winner in words and what to do next."""
    python = this_python()
    resume = f"{python} -m search.run --resume {settings.name}" + (
        f" --out {settings.out}" if settings.out != "runs" else ""
    )
    print_board(leaderboard_table(record).to_pandas(), settings.metric, console)
    winner = record.winner()
    if winner is None:
        console.print("no trial has a score; see the reasons above" if record.trials else "no trial was started")
    else:
        best = TrainConfig.from_flat(winner.config)
        if winner.optima:
            best = TrainConfig.from_flat(_swept_thresholds(winner.optima), best)
        write_text(folder / BEST_FILE, best.to_toml())
        for line in winner_words(record, plan.base):
            console.print(line, markup=False)
        files = f"leaderboard.parquet, epochs.parquet, {BEST_FILE} (the winner's settings), events.jsonl"
        console.print(
            f"""
run folder  {folder}
            {files}{", thresholds/" if plan.sweep else ""}
go on with  {python} -m results.leaderboard {folder}
            {python} -m results.export {folder} --format csv -o leaderboard.csv
            {python} -m search.run {_next_search(settings)} --config {folder / BEST_FILE}""",
            markup=False,
        )
    if ending == "interrupted":
        console.print(f"interrupted; go on with\n            {resume}", markup=False)
        return 130
    return 0 if winner is not None else 1


def _next_search(settings: SearchSettings) -> str:
    """The flags of a search that takes the winner further: another space, the same data."""
    searched = settings.space.split(",")
    space = next((name for name in ("lr_schedules", "anchors", "thresholds") if name not in searched), "aspect_ratios")
    return f"--space {space}" + ("" if settings.data.folder == DRAWN else f" --data {settings.data.folder}")


def this_python() -> str:
    """How to call the interpreter that runs this: `python` where a shell would find it so."""
    found = shutil.which("python")
    if found is not None and Path(found) == Path(sys.executable):
        return "python"
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)


def winner_words(record: RunRecord, base: TrainConfig) -> list[str]:
    """The winner and how it differs from the default, in a few lines."""
    winner = record.winner()
    best = None if winner is None else winner.best(record.metric)
    if winner is None or best is None:
        return []
    numbers = best["val_number_accuracy"]
    name = f" ({winner.baseline})" if winner.baseline else ""
    lines = [
        "",
        f"winner: {winner.trial_id}{name}, best at epoch {best['epoch']} of {winner.num_epochs}: "
        f"mAP {best['val_map']:.2f}, mAP@.5 {best['val_map_50']:.2f}"
        + ("" if numbers is None else f", {numbers:.0%} of the numbers read right"),
    ]
    default = base.to_flat()
    for knob, value in winner.config.items():
        if value != default[knob]:
            lines.append(f"        {knob} = {value}   (default {default[knob]})")
    if winner.optima:
        optima = winner.optima
        lines.append(
            f"        thresholds: Task 1 nms {optima['task1_nms']:g} score {optima['task1_score']:g} -> mAP "
            f"{optima['task1_map']:.2f}; Task 2 nms {optima['task2_nms']:g} score {optima['task2_score']:g} -> "
            f"{optima['task2_number_accuracy']:.0%} of the numbers (both chosen on these validation images)"
        )
    lines.append("        one training each: differences of a few hundredths may be luck")
    return lines


def _swept_thresholds(optima: dict[str, float]) -> dict[str, object]:
    return {
        f"detect.{task}.{name}": optima[f"{task}_{name}"]
        for task in ("task1", "task2")
        for name in ("nms", "score")
        if f"{task}_{name}" in optima
    }


def resumed_settings(out: str, name: str) -> SearchSettings:
    """The settings that a run folder was started with.

    Raises:
        RunError: there is no such run, or its run.json is damaged.
    """
    folder = Path(out) / name
    if not (folder / RUN_FILE).is_file():
        raise RunError(f"--resume {name}: there is no run {folder}")
    tree = read_run_file(folder)
    try:
        settings = SearchSettings.from_json(tree["settings"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / RUN_FILE} is damaged or of another version: {error}") from None
    return SearchSettings.from_json({**settings.to_json(), "out": out, "name": name})


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the code in use, where it lies in a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
