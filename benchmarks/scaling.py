"""The load of the driver: 1,000 trials of 20 epochs on 100 simulated nodes, with a formula instead of training.

The parts of the driver are real: sampler and study, scheduler, record, kept checkpoints with match tables, views,
progress. Ray's loop is simulated with its own clock. With --ray N, N trials with the same formula run in Ray, to show
what its loop adds per report.

    python benchmarks/scaling.py --trials 1000 --slots 100 -o scaling.json
    python benchmarks/scaling.py --ray 60
"""

import argparse
import heapq
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if sys.path[0] == str(Path(__file__).parent):  # or `search` would be the script of that name beside this one
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from torch import nn

from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import Table
from digits_core.evaluation.evaluate import match_tasks
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import Truth
from digits_core.files import BEST_FOLDER, MATCHES_FILE, STATE_FILE
from digits_core.model.checkpoint import save_model, save_training
from digits_core.model.checkpoint_state import TrainingState
from results.record.log import EventWriter, read_record
from results.tables.matches import StoredMatches, write_matches
from results.views.leaderboard import leaderboard_table, read_leaderboard, write_views
from search.cli.settings import SearchSettings, make_plan
from search.monitor.progress import Progress
from search.monitor.view import SearchView
from search.policy.decisions import Policy
from search.policy.optuna_study import StudyView
from search.storage.storage import Storage
from search.tune.recorder import Recorder
from search.tune.scheduler import PolicyScheduler
from search.tune.searcher import PolicySearcher

EPOCH_SECONDS = 60.0


def value_of(config: dict[str, Any], epoch: int, epochs: int) -> float:
    """A learning curve with a best rate at 1e-3."""
    distance = np.log10(config["optim.lr"] / 1e-3)
    noise = random.Random(f"{config['optim.lr']} {epoch}").gauss(0, 0.005)
    return float((0.6 - 0.1 * distance**2) * (1 - 0.7 * 0.75**epoch) + noise)


def example_checkpoint(folder: Path, images: int) -> None:
    """The files of every trial: a tiny model file and match tables of `images` images."""
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 4, images)
    spot = np.concatenate([np.arange(count) for count in counts])
    boxes = np.stack([spot * 14.0, np.full(len(spot), 5.0), spot * 14.0 + 10, np.full(len(spot), 25.0)], axis=1)
    table = Table(
        image_ids=np.arange(1, images + 1),
        sizes=np.full((images, 2), 64, np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes.astype(np.float32),
        labels=generator.integers(1, 11, len(spot)),
        crowds=np.zeros(len(spot), bool),
    )
    rows = []
    for image in range(images):
        mine = slice(table.box_start[image], table.box_start[image + 1])
        labels = table.labels[mine]
        scores = generator.uniform(0.5, 1.0, len(labels)).astype(np.float32)
        rows.append((table.boxes[mine], scores, labels, np.ones(4, np.float32)))
    detect = TrainConfig().detect
    task1, task2 = match_tasks(Candidates.of_images(rows), SimpleNamespace(table=table), detect)
    (folder / BEST_FOLDER).mkdir(parents=True)
    truth = Truth.from_table(table, detect.reading)
    write_matches(folder / BEST_FOLDER / MATCHES_FILE, StoredMatches(table.image_ids, truth, task1, task2), detect)
    write_models(folder)


def write_models(folder: Path) -> None:
    """A checkpoint with the smallest of models."""
    model = nn.Linear(16, 16)
    for place in (folder, folder / BEST_FOLDER):
        save_model(place, model, TrainConfig())
    state = TrainingState(epoch=0, step=0, best_epoch=0, best_value=None)
    save_training(folder, model, torch.optim.SGD(model.parameters(), lr=0.1), state)


def write_state(folder: Path, epoch: int, value: float) -> None:
    """Write the state of a checkpoint: its epoch, which is also the best one."""
    state = TrainingState(epoch=epoch, step=epoch, best_epoch=epoch, best_value=value)
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)))


@dataclass
class Costs:
    """Seconds by part, for every report in turn."""

    now: dict[str, float] = field(default_factory=dict)
    each: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, part: str, started: float) -> None:
        self.now[part] = self.now.get(part, 0.0) + time.perf_counter() - started

    def close(self) -> None:
        for part, seconds in self.now.items():
            self.each[part].append(seconds)
        self.now = {}


def memory() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def simulate(folder: Path, *, trials: int, epochs: int, slots: int, images: int, scheduler: str, sampler: str) -> Any:
    """Run a complete search and return its costs."""
    settings = SearchSettings(
        space="lr_schedules", name=folder.name, out=str(folder.parent), trials=trials, epochs=epochs,
        scheduler=scheduler, sampler=sampler,
    )  # fmt: skip
    plan = make_plan(settings)
    folder.mkdir(parents=True)
    example = folder.parent / "example"
    example_checkpoint(example, images)
    (folder / "run.json").write_text(json.dumps({"name": folder.name, "settings": settings.to_json()}))
    events = EventWriter(folder, folder.name)
    events.write("run", metric="val_map", scheduler=scheduler, trials=trials, epochs=epochs, resumed=False)
    policy = Policy(plan)
    rules = PolicyScheduler(policy, events.record, "val_map")
    storage = Storage(folder)
    with (folder / "terminal.txt").open("w") as terminal:
        progress = Progress(terminal, SearchView(plan.base.to_flat(), trials=trials, epochs=epochs, slots=slots))
        costs = Costs()

        def watch(record: Any, name: str) -> None:
            started = time.perf_counter()
            progress.update(record, name)
            costs.take("progress", started)

        recorder = Recorder(
            events, storage, policy, keep=5, watcher=watch, views=(StudyView(folder, plan.space).follow,),
        )  # fmt: skip
        searcher = PolicySearcher(
            policy,
            recorder,
            metric="val_map",
            start=lambda trial: {"starts": 0, "resume_from": None},
        )
        began = time.perf_counter()
        marks = run(searcher, rules, recorder, events, folder, example, costs, slots, epochs)
        recorder.finish()
        took = time.perf_counter() - began
        events.close()
    return plan, costs, marks, took


def run(
    searcher: Any, rules: Any, recorder: Any, events: Any, folder: Path, example: Path, costs: Costs, slots: int,
    epochs: int,
) -> list[dict[str, float]]:  # fmt: skip
    """Simulate Ray's loop with its own clock."""
    clock: list[tuple[float, int, SimpleNamespace, int]] = []
    jitter, marks, order = random.Random(0), [], 0
    total = 0

    def fill(now: float) -> None:
        nonlocal order
        while len(clock) < slots:
            started = time.perf_counter()
            config = searcher.suggest(f"ray{order}")
            costs.take("sampler", started)
            if not isinstance(config, dict):
                return
            trial = SimpleNamespace(config=config, trial_id=f"ray{order}", error_file=None)
            recorder.on_trial_start(0, [], trial)
            heapq.heappush(clock, (now + EPOCH_SECONDS * jitter.uniform(0.8, 1.2), order, trial, 1))
            order += 1

    fill(0.0)
    while clock:
        now, number, trial, epoch = heapq.heappop(clock)
        value = value_of(trial.config["config"], epoch, epochs)
        result = {
            "epoch": epoch, "early_stopped": False, "val_map": value, "val_map_50": value, "val_map_75": value,
            "train_loss": 1.0, "val_number_accuracy": value, "train_seconds": 50.0, "epoch_seconds": 60.0,
            "eval_seconds": 5.0, "images_per_second": 40.0, "peak_memory_bytes": 10**9, "lr": 1e-3,
        }  # fmt: skip
        begun = time.perf_counter()
        decision = rules.on_trial_result(None, trial, result)
        costs.take("scheduler", begun)
        begun = time.perf_counter()
        searcher.on_trial_result(trial.trial_id, result)
        costs.take("study", begun)
        done = epoch >= epochs
        begun = time.perf_counter()
        recorder.on_trial_result(0, [], trial, result)
        costs.take("record", begun)
        name = trial.config["trial_id"]
        place = folder / "tune" / "001" / name / f"checkpoint_{epoch - 1:06d}"
        shutil.copytree(example, place)
        write_state(place, epoch, value)
        if epoch > 1:
            shutil.rmtree(place.with_name(f"checkpoint_{epoch - 2:06d}"), ignore_errors=True)
        begun = time.perf_counter()
        recorder.on_checkpoint(0, [], trial, SimpleNamespace(path=str(place.resolve())))
        costs.take("record", begun)
        if decision == "STOP" or done:
            begun = time.perf_counter()
            searcher.on_trial_complete(trial.trial_id, result)
            costs.take("study", begun)
            begun = time.perf_counter()
            recorder.on_trial_complete(0, [], trial)
            costs.take("ends", begun)
        else:
            heapq.heappush(clock, (now + EPOCH_SECONDS * jitter.uniform(0.8, 1.2), number, trial, epoch + 1))
        begun = time.perf_counter()
        recorder.on_step_end(0, [])
        costs.take("views", begun)
        fill(now)
        costs.close()
        total += 1
        if total % 500 == 0:
            marks.append({"reports": total, "trials": order, "memory_bytes": memory()})
    marks.append({"reports": total, "trials": order, "memory_bytes": memory()})
    return marks


def timed(action: Any) -> float:
    """Seconds of the fastest of three."""
    found = []
    for _ in range(3):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return min(found)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run a search, then measure reading and resuming its folder."""
    plan, costs, marks, took = simulate(
        folder, trials=args.trials, epochs=args.epochs, slots=args.slots, images=args.images,
        scheduler=args.scheduler, sampler=args.sampler,
    )  # fmt: skip
    record = read_record(folder, folder.name)
    tenth = max(1, marks[-1]["reports"] // 10)
    parts = {
        part: {"first_tenth_ms": 1e3 * float(np.mean(seconds[:tenth])), "last_tenth_ms": 1e3 * float(
            np.mean(seconds[-tenth:])), "worst_ms": 1e3 * max(seconds), "all_seconds": sum(seconds)}
        for part, seconds in costs.each.items()
    }  # fmt: skip
    sizes = {
        part: sum(path.stat().st_size for path in (folder / part).rglob("*") if path.is_file())
        if (folder / part).is_dir() else (folder / part).stat().st_size
        for part in ("events.jsonl", "study.journal", "leaderboard.parquet", "epochs.parquet", "matches", "bootstrap",
                     "checkpoints", "tune")
    }  # fmt: skip

    def reopen() -> None:
        events = EventWriter(folder, folder.name)
        Policy(plan).next_action(events.record)
        StudyView(folder, plan.space).follow(events.record)
        events.close()

    return {
        "trials": args.trials, "reports": marks[-1]["reports"], "driver_seconds": took,
        "driver_ms_per_report": 1e3 * took / marks[-1]["reports"], "parts": parts, "memory": marks,
        "sizes_bytes": sizes, "leaderboard_seconds": timed(lambda: leaderboard_table(record, folder)),
        "views_seconds": timed(lambda: write_views(folder, record)),
        "read_seconds": timed(lambda: read_leaderboard(folder)), "resume_seconds": timed(reopen),
    }  # fmt: skip


def formula_trial(params: dict[str, Any]) -> None:
    """The trainable of `--ray`: the same reports and checkpoints without training."""
    from ray import tune

    with tempfile.TemporaryDirectory() as scratch:
        for epoch in range(1, params["config"]["optim.epochs"] + 1):
            place = Path(scratch) / f"{epoch}"
            value = value_of(params["config"], epoch, params["config"]["optim.epochs"])
            write_models(place)
            write_state(place, epoch, value)
            report = {"epoch": epoch, "early_stopped": False, "val_map": value, "val_map_50": value}
            report |= {"train_loss": 1.0, "train_seconds": 0.0, "epoch_seconds": 0.0, "images_per_second": 40.0}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(place)))


def through_ray(folder: Path, trials: int, epochs: int, slots: int) -> dict[str, Any]:
    """Seconds from the first report to the last, over the reports: Ray's loop is the only one at work."""
    import search.tune.fit
    from digits_core.data.cache import open_data
    from digits_core.data.source import DataSource
    from search.storage.run_copy import Copier
    from search.tune.cluster import connected, prepare_environment
    from search.tune.search import Search
    from search.tune.slots import plan_slots

    prepare_environment(joins=False)
    search.tune.fit.run_trial = formula_trial
    settings = SearchSettings(
        space="lr_schedules", name=folder.name, out=str(folder.parent), trials=trials, epochs=epochs, scheduler="none"
    )
    plan = make_plan(settings)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"name": folder.name, "settings": settings.to_json()}))
    events = EventWriter(folder, folder.name)
    events.write("run", metric="val_map", scheduler="none", trials=trials, epochs=epochs, resumed=False)
    marks: list[dict[str, int]] = []

    def watch(record: Any, name: str) -> None:
        if len(record.trials) >= len(marks) * max(1, trials // 10):
            marks.append({"trials": len(record.trials), "memory_bytes": memory()})

    with connected(None, machine={"CPU": slots, "GPU": 0}) as cluster, Copier(Storage(folder), print) as copier:
        search.tune.fit.fit(
            Search(settings, plan, open_data(DataSource()), events, copier),
            plan_slots(list(cluster.nodes.values())), watcher=watch, ending=lambda: None, say=print,
            progress=folder.name,
        )  # fmt: skip
    times = [
        epoch["reported_at"].timestamp() for trial in events.record.trials.values() for epoch in trial.epochs.values()
    ]
    events.close()
    return {
        "ray_trials": trials, "ray_slots": slots, "ray_ms_per_report": 1e3 * (max(times) - min(times)) / len(times),
        "memory": marks,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--images", type=int, default=200, help="validation images in each match table")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--ray", type=int, metavar="N", help="run N trials in Ray on eight slots instead")
    parser.add_argument("-o", dest="out", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        place = Path(base) / "runs" / "sim"
        found = through_ray(place, args.ray, args.epochs, 8) if args.ray else measure(args, place)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
