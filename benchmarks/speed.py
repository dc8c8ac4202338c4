"""The time of each part of a search, compared with a plain implementation in the same run.

    python benchmarks/speed.py step [--data FOLDER] [--equal 5]   training steps against torchvision's reference loop
    python benchmarks/speed.py evaluation [--data FOLDER]         scoring against torchmetrics' default
    python benchmarks/speed.py slots [--data FOLDER]              a whole search: start and use of the slots
    python benchmarks/speed.py memory [--data FOLDER]             memory of a second, fourth, eighth trial
    python benchmarks/speed.py bound [--data FOLDER]              operations and bytes of a step, and the machine's peak
    python benchmarks/speed.py profile [--data FOLDER]            operations of a step and an evaluation
    python benchmarks/speed.py all --short                        all of these, short, with a short race and replay

The training step and the evaluation run on one thread, as a slot of one core does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).parent / "peers"))

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import epoch_batches, load_batch
from digits_core.data.cache import DigitData, open_data
from digits_core.data.drawn import write_drawn_folder
from digits_core.data.source import DataSource
from digits_core.evaluation.evaluate import detect_split, match_tasks
from digits_core.evaluation.matching import Candidates
from digits_core.evaluation.metrics import Truth, score
from digits_core.submission.inference import kept_at
from digits_core.training.device import choose_dtype
from digits_core.training.train import Run, open_run, train, train_one_epoch, train_step

FIXED = {"model.fresh_rpn": True}
"""What the space `anchors` fixes."""

Row = dict[str, Any]


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def in_turn(first: Callable[[], float], second: Callable[[], float], repeats: int) -> tuple[list[float], list[float]]:
    """Both measured once unrecorded, then in turn."""
    first(), second()
    pairs = [(first(), second()) for _ in range(repeats)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def opened(config: TrainConfig, data: DigitData) -> Run:
    """A training that has not begun."""
    return open_run(config, data, device="cpu")


def step(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Training images a second, data loading included."""
    from detector import Training

    data = open_data(DataSource(folder=str(folder)))
    rows = []
    for precision in ("auto", "float32"):
        config = TrainConfig.from_flat({**FIXED, "optim.epochs": 50, "runtime.precision": precision})
        run, epoch = opened(config, data), iter(range(1, 50))
        plain = Training({}, folder, 50)

        def ours(run: Run = run, epoch: Any = epoch) -> float:
            started = time.perf_counter()
            _, count = train_one_epoch(run, next(epoch))
            return count / (time.perf_counter() - started)

        def theirs(plain: Training = plain) -> float:
            plain.train_one_epoch()
            return plain.images_per_second

        mine, other = in_turn(ours, theirs, args.repeats)
        name = str(run.dtype).removeprefix("torch.")
        rows.append(
            {
                "figure": f"training step, images/s ({name})",
                "digit-search": spread(mine),
                "plain": spread(other),
                "ratio": spread([a / b for a, b in zip(mine, other, strict=True)], 2),
            }
        )
    if args.equal:
        rows.append(equal(args, folder, data))
    return rows


def equal(args: argparse.Namespace, folder: Path, data: DigitData) -> Row:
    """val_map at the end of whole trainings of both, and their difference with its 95 % interval (t)."""
    from detector import Training
    from scipy.stats import t

    mine, other = [], []
    for seed in range(args.equal):
        ends: list[float] = []
        config = TrainConfig.from_flat({**FIXED, "runtime.seed": seed})
        train(config, data, lambda report, ends=ends: ends.append(report.metrics.val_map or 0.0), device="cpu")
        mine.append(ends[-1])
        other.append(list(Training({}, folder, config.optim.epochs, seed).epochs())[-1])
    difference = np.subtract(mine, other)
    half = float(t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5)
    return {
        "figure": f"val_map after {TrainConfig().optim.epochs} epochs, {args.equal} seeds",
        "digit-search": spread(mine, 3),
        "plain": spread(other, 3),
        "ratio": f"difference {difference.mean():+.3f} ± {half:.3f}",
    }


def evaluation(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Scoring the same detections, and an epoch's whole evaluation."""
    from detector import Training
    from torchmetrics.detection import MeanAveragePrecision

    data = open_data(DataSource(folder=str(folder)))
    config, split = TrainConfig.from_flat({**FIXED, "optim.epochs": 2, "data.images_per_epoch": 600}), data.valid
    run, plain = opened(config, data), Training({}, folder, 4)
    train_one_epoch(run, 1)
    plain.model.load_state_dict(run.model.state_dict())
    batch, dtype = config.runtime.eval_batch_size, choose_dtype("auto", run.device)
    found, _ = detect_split(run.model, split, 0.01, batch_size=batch, dtype=dtype)
    truth = Truth.from_table(split.table, config.detect.reading)
    kept, table = kept_at(found, config.detect.task1), split.table
    predictions, targets = [], []
    for image, one in enumerate(kept.split()):
        mine = slice(table.box_start[image], table.box_start[image + 1])
        predictions.append(
            {
                "boxes": torch.from_numpy(one.original_boxes),
                "scores": torch.from_numpy(one.scores),
                "labels": torch.from_numpy(one.labels),
            }
        )
        targets.append({"boxes": torch.from_numpy(table.boxes[mine]), "labels": torch.from_numpy(table.labels[mine])})
    maps: list[tuple[float, float]] = []

    def scored(some: Candidates = kept) -> float:
        started = time.perf_counter()
        scores = score(*match_tasks(some, split, config.detect), truth, config.detect)
        maps.append((scores.map or 0.0, maps[-1][1] if maps else 0.0))
        return time.perf_counter() - started

    def torchmetrics() -> float:
        started, metric = time.perf_counter(), MeanAveragePrecision()
        metric.update(predictions, targets)
        maps[-1] = maps[-1][0], float(metric.compute()["map"])
        return time.perf_counter() - started

    def whole() -> float:
        started = time.perf_counter()
        some, _ = detect_split(run.model, split, 0.01, batch_size=batch, dtype=dtype)
        score(*match_tasks(some, split, config.detect), truth, config.detect)
        return time.perf_counter() - started

    def plain_whole() -> float:
        plain.evaluate()
        return plain.eval_seconds

    rows = []
    for what, first, second in (
        (f"scoring {len(kept.scores)} detections of {len(split)} images, s", scored, torchmetrics),
        (
            f"the same from {len(found.scores)} raw detections, with the NMS of both tasks, s",
            lambda: scored(found),
            torchmetrics,
        ),
        (f"an epoch's evaluation of {len(split)} images, s", whole, plain_whole),
    ):
        mine, other = in_turn(first, second, args.repeats)
        ratios = [b / a for a, b in zip(mine, other, strict=True)]
        rows.append(
            {"figure": what, "digit-search": spread(mine, 3), "plain": spread(other, 3), "ratio": spread(ratios)}
        )
    rows[0]["figure"] += f" (val_map {maps[-1][0]:.4f} and {maps[-1][1]:.4f}; ours gives both tasks)"
    return rows


def slots(args: argparse.Namespace, folder: Path) -> list[Row]:
    """A whole search in processes of its own: from the command to the first step, and what its slots do then."""
    sizes = ["--trials", str(args.trials), "--epochs", str(args.epochs), "--data", str(folder)]
    spent: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.searches):
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "search.run", "--space", "anchors", "--scheduler", "none", "--quiet"]
            launched = time.time()
            done = subprocess.run([*command, *sizes, "--out", scratch, "--name", "speed"], check=False)
            if done.returncode:
                sys.exit(f"the search ended with exit code {done.returncode}")
            events = [json.loads(line) for line in (Path(scratch) / "speed" / "events.jsonl").read_text().splitlines()]
        for name, value in of_events(events, launched).items():
            spent[name].append(value)
    return [{"figure": name, "digit-search": spread(values, 2)} for name, values in spent.items()]


def of_events(events: list[dict[str, Any]], launched: float) -> dict[str, float]:
    """What a run's record says of its start and its slots."""

    def at(event: dict[str, Any]) -> float:
        return datetime.fromisoformat(event["time"]).timestamp()

    starts = {event["trial_id"]: at(event) for event in events if event["kind"] == "start"}
    reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["kind"] == "report":
            reports[event["trial_id"]].append(event)
    first_step = {name: at(mine[0]) - mine[0]["epoch_seconds"] for name, mine in reports.items()}
    last = {name: at(mine[-1]) for name, mine in reports.items()}
    working = {name: sum(one["train_seconds"] + one["eval_seconds"] for one in mine) for name, mine in reports.items()}
    # Which trial followed which in a slot: the one whose slot fell free the longest before.
    free, gaps, order = list[float](), [], sorted(starts, key=lambda name: first_step[name])
    count = sum(first_step[name] < min(last.values()) for name in order)
    for name in order[:count]:
        free.append(last[name])
    for name in order[count:]:
        before = min(free)
        free.remove(before)
        free.append(last[name])
        gaps.append(first_step[name] - before)
    begun, ended = min(first_step.values()), min(free)  # while every slot had a trial
    share = sum(working[name] * overlap(first_step[name], last[name], begun, ended) for name in order) / (
        count * (ended - begun)
    )
    run = at(events[0])
    return {
        "command to run folder, s (imports, data, probe of the machine)": run - launched,
        "run folder to first trial handed to a slot, s (Ray)": min(starts.values()) - run,
        "first trial handed over to first step, s (imports of a slot)": begun - min(starts.values()),
        "start: command to first training step, s": begun - launched,
        "seconds of training and evaluation of a trial": statistics.mean(working.values()),
        "share of slot time in training and evaluation, %": 100 * share,
        "a further trial in a warm slot: last report to next first step, s": statistics.median(gaps),
    }


def overlap(start: float, end: float, begun: float, ended: float) -> float:
    """Share of an interval that lies in another."""
    return max(0.0, min(end, ended) - max(start, begun)) / (end - start)


HOLD = """
import sys, time
from digits_core.data.cache import open_data
from digits_core.data.source import DataSource
data = open_data(DataSource(folder=sys.argv[1]))
total = sum(int(split.image(index).sum()) for split in (data.train, data.valid) for index in range(len(split)))
print(data.train.pixels.nbytes, flush=True)
sys.stdin.read()
"""


def memory(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Proportional share (PSS) of the mapped images over so many processes that have read them all."""
    rows, alone = [], 0
    for count in (1, 2, 4, 8):
        holders = [
            subprocess.Popen(
                [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(count)
        ]
        sizes = [int(holder.stdout.readline()) for holder in holders]  # once all have read
        total = sum(mapped_bytes(holder.pid) for holder in holders)
        for holder in holders:
            holder.communicate("")
        alone = alone or total
        rows.append(
            {
                "figure": f"images in memory, {count} trial{'s' * (count > 1)} of a {sizes[0] / 1e6:.1f} MB set, MB",
                "digit-search": f"{total / 1e6:.1f}",
                "ratio": f"{100 * (total - alone) / sizes[0]:+.1f} % of the set",
            }
        )
    return rows


def mapped_bytes(pid: int) -> int:
    """A process's proportional share of its mapping of the decoded images."""
    total, mine = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mine = line.endswith("pixels.bin")
        elif mine and line.startswith("Pss:"):
            total += 1024 * int(line.split()[1])
    return total


class Bytes(TorchDispatchMode):
    """Counts what each operation reads and writes, as if nothing stayed in a cache."""

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        """Run the operation and add its tensors up; views move nothing."""
        results = function(*given, **(named or {}))
        if not function.is_view:
            for one in torch.utils._pytree.tree_leaves((given, named, results)):
                if isinstance(one, torch.Tensor):
                    self.total += one.numel() * one.element_size()
        return results


def bound(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Floating-point operations and bytes of a training step, against what the machine does at best."""
    data = open_data(DataSource(folder=str(folder)))
    rows = []
    for precision in ("auto", "float32"):
        run = opened(TrainConfig.from_flat({**FIXED, "runtime.precision": precision}), data)
        batches = [
            load_batch(data.train, one, run.device)
            for one in epoch_batches(data.train, seed=0, epoch=1, batch_size=8, asked=0)[:20]
        ]
        for batch in batches[:3]:
            train_step(run, batch)
        started = time.perf_counter()
        for batch in batches:
            train_step(run, batch)
        seconds = (time.perf_counter() - started) / len(batches)
        with FlopCounterMode(display=False) as flops, Bytes() as moved:
            for batch in batches:
                train_step(run, batch)
        operations, moves = flops.get_total_flops() / len(batches), moved.total / len(batches)
        peak, stream = peak_of(run.dtype), bandwidth()
        name = str(run.dtype).removeprefix("torch.")
        rows.append(
            {
                "figure": f"a step of 8 images ({name})",
                "digit-search": f"{1e3 * seconds:.0f} ms, {operations / 1e9:.2f} GFLOP, {moves / 1e6:.0f} MB",
                "plain": f"peak {peak / 1e9:.0f} GFLOP/s, {stream / 1e9:.1f} GB/s",
                "ratio": f"{100 * operations / seconds / peak:.0f} % of peak arithmetic, "
                f"{100 * moves / seconds / stream:.0f} % of bandwidth",
            }
        )
    return rows


GROUPS = {
    "convolutions, backward": ("aten::convolution_backward", "aten::_slow_conv2d_backward"),
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward"),
    "matrix products (RoI head)": ("aten::mm", "aten::addmm"),
    "RoIAlign": ("aten::_embedding_bag", "aten::_embedding_bag_forward_only", "torchvision::roi_align",
                 "torchvision::_roi_align_backward", "_WeightedRows", "_WeightedRowsBackward"),
    "NMS": ("torchvision::nms",),
    "copies and casts": ("aten::copy_",),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "optimiser": ("aten::_fused_adamw_", "Optimizer.step#AdamW.step"),
}  # fmt: skip


def profile(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Where a training step and an evaluation spend their time, by torch's profiler (self time of each operation)."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    data = open_data(DataSource(folder=str(folder)))
    run = opened(TrainConfig.from_flat({**FIXED, "optim.epochs": 9}), data)
    train_one_epoch(run, 1)
    shares: dict[str, dict[str, float]] = {}
    for what, call in (
        ("step", lambda: train_one_epoch(run, 2)),
        (
            "evaluation",
            lambda: detect_split(run.model, data.valid, 0.01, batch_size=32, dtype=run.dtype),
        ),
    ):
        with profiled(activities=[ProfilerActivity.CPU]) as seen:
            call()
        times = {one.key: one.self_cpu_time_total for one in seen.key_averages()}
        total = sum(times.values())
        grouped = {name: sum(times.get(key, 0.0) for key in keys) / total for name, keys in GROUPS.items()}
        shares[what] = grouped | {"everything else": 1 - sum(grouped.values())}
    return [
        {"figure": f"share of time, %: {name}", "digit-search": f"step {100 * share:.0f}, evaluation {100 * other:.0f}"}
        for (name, share), other in zip(shares["step"].items(), shares["evaluation"].values(), strict=True)
    ]


def peak_of(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product on this thread."""
    a = torch.randn(1024, 1024).to(dtype)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2 * 1024**3 / min(times)


def bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on this thread."""
    a, b = torch.randn(2**26), torch.empty(2**26)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        b.copy_(a)
        times.append(time.perf_counter() - started)
    return 2 * a.numel() * a.element_size() / min(times)


def race(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Whole searches of two settings against plain scripts: seconds of an epoch, starting and waiting included."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "race.json"
        command = [sys.executable, str(Path(__file__).with_name("race.py")), "--short", "-o", str(out)]
        subprocess.run([*command, "--data", str(folder)], check=True, stdout=subprocess.DEVNULL)
        outcomes = json.loads(out.read_text())["outcomes"]
    each = {one["name"]: one["seconds"] / len(one["trace"]) for one in outcomes}
    ours = each.pop("digit-search")
    return [
        {
            "figure": f"a tiny search of 4 epochs, mostly its start, against {name}, s an epoch",
            "digit-search": f"{ours:.1f}",
            "plain": f"{seconds:.1f}",
            "ratio": f"{seconds / ours:.1f}",
        }
        for name, seconds in each.items()
    ]


def replay(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Regret after 24 epochs of replayed searches: the default's against random search without early stopping."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "replay.json"
        command = [sys.executable, str(Path(__file__).with_name("search.py")), "replay", "--repeats", "40"]
        command += ["--pickers", "random", "tpe, start screened 8", "--schedulers", "none", "asha (2, 2)"]
        subprocess.run([*command, "-o", str(out)], check=True, stdout=subprocess.DEVNULL)
        found = {name: one["mean"][23] for name, one in json.loads(out.read_text()).items()}
    ours, plain = found["tpe, start screened 8 / asha (2, 2)"], found["random / none"]
    return [
        {
            "figure": "mean regret after 24 epochs, replayed",
            "digit-search": f"{ours:.4f}",
            "plain": f"{plain:.4f} (random, none stopped)",
            "ratio": f"{plain / ours:.1f}",
        }
    ]


PARTS = {
    "step": step,
    "evaluation": evaluation,
    "slots": slots,
    "memory": memory,
    "bound": bound,
    "profile": profile,
    "race": race,
    "replay": replay,
}


def print_table(rows: list[Row]) -> None:
    """As Markdown."""
    columns = ("figure", "digit-search", "plain", "ratio")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |", flush=True)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "all"])
    parser.add_argument("--data", type=Path, help="COCO folder (default: drawn house numbers)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--equal", type=int, default=0, metavar="SEEDS", help="also train both to the end")
    parser.add_argument("--trials", type=int, default=6, help="trials of the search")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each trial")
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="few repeats, a small search")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.short:
        args = argparse.Namespace(**vars(args) | {"repeats": 3, "trials": 4, "epochs": 2, "searches": 1})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.data
        if folder is None:
            folder = Path(scratch) / "drawn"
            write_drawn_folder(folder, 320, 160)
        rows: list[Row] = []
        for name in PARTS if args.part == "all" else [args.part]:
            rows += PARTS[name](args, folder)
            print(f"{name}: done", file=sys.stderr)
    print_table(rows)
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
