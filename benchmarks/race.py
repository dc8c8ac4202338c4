"""Time until a search is as good as a loop of full trainings: digit-search against plain scripts.

For every seed the loop runs first: its best val_map is the target. Then each peer searches the same space on the same
data with the same model and initial weights, until it reaches the target or has trained a share of the loop's epochs.
Peers need their own packages: pip install -r benchmarks/peers/requirements.txt

    python benchmarks/race.py --data FOLDER --seeds 5 -o race.json
    python benchmarks/race.py --short
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
SCRIPTS = {
    "loop of full trainings": "loop.py",
    "plain Ray Tune": "ray_tune.py",
    "plain Optuna": "plain_optuna.py",
    "Syne Tune": "syne_tune_asha.py",
}
LOOP, SYNE_TUNE, OURS = "loop of full trainings", "Syne Tune", "digit-search"
NEAR = 0.01
"""Of val_map: a quarter of its interval's half width on a hundred images."""


@dataclass
class Outcome:
    """One search.

    Attributes:
        seconds: until it had reached the mark, or had used up its epochs.
        settings: that it began.
        trace: (seconds, val_map) of every epoch.
    """

    name: str
    seed: int
    mark: float
    seconds: float
    settings: int
    trace: list[list[float]]

    @property
    def best(self) -> float:
        """Highest val_map."""
        return max(value for _, value in self.trace)

    def reached(self, mark: float) -> float | None:
        """Seconds until some score; None when it was not reached."""
        return next((at for at, value in self.trace if value >= mark), None)


def small_folder(source: Path, folder: Path, num_train: int, num_valid: int) -> Path:
    """The first images of a COCO folder."""
    for part, count in (("train", num_train), ("valid", num_valid)):
        tree = json.loads((source / f"{part}.json").read_text())
        images = sorted(tree["images"], key=lambda image: int(image["id"]))[:count]
        ids = {image["id"] for image in images}
        (folder / part).mkdir(parents=True)
        for image in images:
            shutil.copy(source / part / image["file_name"], folder / part / image["file_name"])
        annotations = [one for one in tree["annotations"] if one["image_id"] in ids]
        (folder / f"{part}.json").write_text(json.dumps({**tree, "images": images, "annotations": annotations}))
    return folder


def lines_of(path: Path) -> Iterator[tuple[float, str, float]]:
    """(time, trial, val_map) of every epoch, from a peer's trace or a run folder's events."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            one = json.loads(line)
        except ValueError:  # being written
            continue
        if one.get("kind", "report") == "report" and one.get("val_map") is not None:
            at = one["time"] if isinstance(one["time"], float) else datetime.fromisoformat(one["time"]).timestamp()
            yield at, str(one.get("trial", one.get("trial_id"))), float(one["val_map"])


def run(name: str, args: argparse.Namespace, folder: Path, seed: int, mark: float | None) -> Outcome:
    """Run one search in separate processes; stop it at the target unless it is to continue."""
    scratch = Path(tempfile.mkdtemp())
    whole = args.trials * args.epochs
    budget = whole if mark is None else max(1, round(whole * args.share))
    sizes = ["--trials", str(args.trials), "--epochs", str(args.epochs), "--seed", str(seed), "--data", str(folder)]
    if name == OURS:
        sizes[1] = str(args.trials - 3)  # the baselines of anchors come in addition
        trace = scratch / "ours" / "events.jsonl"
        command = [sys.executable, "-m", "search.run", "--space", "anchors", *sizes, "--out", str(scratch)]
        command += ["--name", "ours", "--quiet", *args.ours.split()]
    else:
        trace = scratch / "trace.jsonl"
        command = [args.python, str(PEERS / SCRIPTS[name]), *sizes, "--budget", str(budget), "--trace", str(trace)]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "NO_ALBUMENTATIONS_UPDATE": "1"}
    started = time.time()
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        while process.poll() is None:
            time.sleep(0.2)
            values = [value for _, _, value in lines_of(trace)]
            if mark is not None and (len(values) >= budget or max(values, default=-1.0) >= mark):
                break
    seconds = time.time() - started
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    lines = sorted(line for line in lines_of(trace) if line[0] - started <= seconds)
    if not lines:
        sys.exit(f"{name}: trained nothing\n{(scratch / 'log').read_text()[-3000:]}")
    shutil.rmtree(scratch)
    best = max(value for _, _, value in lines)
    return Outcome(
        name,
        seed,
        best if mark is None else mark,
        seconds,
        len({trial for _, trial, _ in lines}),
        [[at - started, value] for at, _, value in lines],
    )


def table(outcomes: list[Outcome]) -> str:
    """Medians over the seeds, and ratios to ours of the same seed.

    If the target is not reached, the whole time counts, so such a ratio is too small. The loop always counts whole,
    because it knows its best score only at the end.
    """
    ours = {one.seed: one for one in outcomes if one.name == OURS}
    rows = [
        f"| search | seconds to the target | ratio to ours | within {NEAR} of it | ratio to ours | seconds an epoch "
        "| ratio to ours | settings an hour | best val_map |"
    ]
    rows.append("|---" * 9 + "|")

    def until(one: Outcome, margin: float) -> float:
        return one.seconds if one.name == LOOP else one.reached(one.mark - margin) or one.seconds

    def each(one: Outcome) -> float:
        return one.seconds / len(one.trace)

    for name in dict.fromkeys(one.name for one in outcomes):
        mine = [one for one in outcomes if one.name == name]
        paired = [(one, ours[one.seed]) for one in mine if one.seed in ours]
        cells = [name]
        for margin in (0.0, NEAR):
            count = sum(one.reached(one.mark - margin) is not None for one in mine)
            cells.append(f"{spread([until(one, margin) for one in mine], 0)}, {count} of {len(mine)} reached it")
            cells.append(spread([until(one, margin) / until(other, margin) for one, other in paired], 1))
        cells.append(spread([each(one) for one in mine], 1))
        cells.append(spread([each(one) / each(other) for one, other in paired], 1))
        cells.append(spread([3600 * one.settings / one.seconds for one in mine], 0))
        cells.append(spread([one.best for one in mine], 3))
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def spread(values: list[float], digits: int) -> str:
    """Median and range."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="COCO folder (default: drawn house numbers)")
    parser.add_argument("--train", type=int, default=200, help="number of training images")
    parser.add_argument("--valid", type=int, default=100, help="number of validation images")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.5, help="share of the loop's epochs for the other searches")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--only", nargs="+", choices=[*SCRIPTS, OURS], help="searches to run (default: all with installed packages)"
    )
    parser.add_argument("--python", default=sys.executable, help="Python of the peers' environment")
    parser.add_argument("--ours", default="", help="more flags of search.run")
    parser.add_argument("--known", type=Path, help="continue with the outcomes of an earlier output file")
    parser.add_argument("--short", action="store_true", help="a test run: one seed, two configurations")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.only is None:
        has = subprocess.run([args.python, "-c", "import syne_tune"], capture_output=True, check=False).returncode == 0
        args.only = [name for name in [*SCRIPTS, OURS] if name != SYNE_TUNE or has]
    if args.short:
        args.train, args.valid, args.trials, args.epochs, args.seeds = 64, 40, 2, 2, 1
    with tempfile.TemporaryDirectory() as scratch:
        source = args.data
        if source is None:
            from digits_core.data.drawn import write_drawn_folder

            source = Path(scratch) / "drawn"
            write_drawn_folder(source, args.train, args.valid)
        folder = small_folder(source, Path(scratch) / "data", args.train, args.valid)
        known = [] if args.known is None else json.loads(args.known.read_text())["outcomes"]
        outcomes = [Outcome(**one) for one in known]
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            mark = next((one.best for one in outcomes if one.seed == seed and one.name == LOOP), None)
            for name in args.only:
                if any(one.seed == seed and one.name == name for one in outcomes):
                    continue
                outcomes.append(run(name, args, folder, seed, mark if name != LOOP else None))
                print(f"{name}, seed {seed}: {outcomes[-1].seconds:.0f} s, best {outcomes[-1].best:.3f}", flush=True)
                mark = outcomes[-1].best if name == LOOP else mark
                if args.out is not None:
                    settings: dict[str, Any] = {key: str(value) for key, value in vars(args).items()}
                    text = json.dumps({"args": settings, "outcomes": [asdict(one) for one in outcomes]}, indent=1)
                    args.out.write_text(text)
    print(table(outcomes))


if __name__ == "__main__":
    main()
