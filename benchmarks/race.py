"""Time until a search is as good as a loop of full trainings: digit-search against plain scripts.

For every seed the loop runs first. Then each peer searches the same space on the same data with the same model and
initial weights, and trains a share of the loop's epochs. The target is the first model that is not significantly worse
than the loop's best one, by the paired test over the validation images that a leaderboard uses.
Peers need their own packages: pip install -r benchmarks/peers/requirements.txt

    python benchmarks/race.py --data FOLDER --seeds 5 -o race.json
    python benchmarks/race.py --short
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import open_data
from digits_core.data.source import DataSource
from digits_core.errors import RunError
from digits_core.evaluation.bootstrap import bootstrap_ap, resample_weights
from digits_core.evaluation.matching import Candidates, NmsSetting, match
from digits_core.evaluation.metrics import MatchTable, Truth
from results.statistics import LEVEL, model_difference
from results.tables.matches import read_matches

PEERS = Path(__file__).parent / "peers"
SCRIPTS = {
    "loop of full trainings": "loop.py",
    "plain Ray Tune": "ray_tune.py",
    "plain Optuna": "plain_optuna.py",
    "Syne Tune": "syne_tune_asha.py",
}
RESAMPLES = 1000
LOOP, SYNE_TUNE, OURS = "loop of full trainings", "Syne Tune", "digit-search"


@dataclass
class Outcome:
    """One search.

    Attributes:
        seconds: until it had used up its epochs.
        settings: that it began.
        trace: (seconds, val_map) of every epoch.
        target: seconds until the first model that is not significantly worse than the loop's best; None without one.
    """

    name: str
    seed: int
    seconds: float
    settings: int
    trace: list[list[float]]
    target: float | None = None

    @property
    def best(self) -> float:
        """Highest val_map."""
        return max(value for _, value in self.trace)


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


@dataclass(frozen=True)
class Line:
    """One epoch of a search.

    Attributes:
        at: seconds since the epoch of the clock.
        trial, epoch: which.
        value: val_map.
    """

    at: float
    trial: str
    epoch: int
    value: float


def lines_of(path: Path) -> list[Line]:
    """Every epoch, from a peer's trace or a run folder's events, in the order of time."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        one = json.loads(line)
        if one.get("kind", "report") == "report" and one.get("val_map") is not None:
            at = one["time"] if isinstance(one["time"], float) else datetime.fromisoformat(one["time"]).timestamp()
            found.append(Line(at, str(one.get("trial", one.get("trial_id"))), int(one["epoch"]), float(one["val_map"])))
    return sorted(found, key=lambda line: line.at)


@dataclass(frozen=True)
class Scored:
    """A model's val_map, and that of each resample of the images."""

    value: float
    resampled: NDArray[np.float64]

    def is_worse_than(self, other: "Scored", num_images: int) -> bool:
        """Whether it is significantly worse, by the test of a leaderboard."""
        found = model_difference(other.value, self.value, other.resampled, self.resampled, num_images)
        return found.estimate > 0 and found.p < 1 - LEVEL


class Judge:
    """Scores models on the validation images, from the detections that each search left."""

    def __init__(self, folder: Path) -> None:
        """Open the data of the race."""
        self.table = open_data(DataSource(folder=str(folder))).valid.table
        self.detect = TrainConfig().detect
        self.truth = Truth.from_table(self.table, self.detect.reading)
        self.num_images = len(self.table.image_ids)
        self.weights = resample_weights(self.num_images, RESAMPLES)

    def model(self, scratch: Path, line: Line) -> Scored | None:
        """The model of an epoch; None if nothing of it was kept: digit-search keeps the best epoch of a trial."""
        peers = scratch / f"found-{line.trial}-{line.epoch}.npz"
        ours = scratch / "ours" / "matches" / f"{line.trial}.parquet"
        if peers.exists():
            return self._scored(self._matched(np.load(peers)))
        try:
            return self._scored(read_matches(ours, line.epoch).task1)
        except RunError:
            return None

    def _matched(self, found: Any) -> MatchTable:
        rows = {int(number): row for row, number in enumerate(found["ids"])}
        parts = []
        for number in self.table.image_ids.tolist():
            mine = found["image"] == rows[number]
            boxes, scores = found["boxes"][mine], found["scores"][mine]
            parts.append((boxes, scores, found["labels"][mine].astype(np.int64), np.ones(4, np.float32)))
        candidates = Candidates.of_images(parts)
        return MatchTable.of(candidates, match(candidates, self.table, [NmsSetting(1.0, False)]), 0)

    def _scored(self, table: MatchTable) -> Scored:
        kept = table.above(self.detect.task1.score, self.detect.task1.max_detections)
        ones = np.ones((1, self.num_images), dtype=np.int16)
        both = [bootstrap_ap(kept, self.truth, weights) for weights in (ones, self.weights)]
        return Scored(float(both[0].mean()), both[1].mean(axis=1))


def run(name: str, args: argparse.Namespace, judge: Judge, folder: Path, seed: int, best: Scored | None) -> Any:
    """Run one search in processes of its own.

    Args:
        name: of the search.
        args: the sizes.
        judge: of the validation images.
        folder: the data.
        seed: of the search.
        best: the loop's best model; None for the loop.

    Returns:
        The outcome, and the best model of the search.
    """
    scratch = Path(tempfile.mkdtemp())
    whole = args.trials * args.epochs
    budget = whole if best is None else max(1, round(whole * args.share))
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
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
    lines = lines_of(trace)[:budget]
    if not lines:
        sys.exit(f"{name}: trained nothing\n{(scratch / 'log').read_text()[-3000:]}")
    models = [(line, judge.model(scratch, line)) for line in lines]
    shutil.rmtree(scratch)
    scored = [(line, model) for line, model in models if model is not None]
    reached = [] if best is None else [one for one, model in scored if not model.is_worse_than(best, judge.num_images)]
    outcome = Outcome(
        name,
        seed,
        lines[-1].at - started,
        len({line.trial for line in lines}),
        [[line.at - started, line.value] for line in lines],
        reached[0].at - started if reached else None,
    )
    return outcome, max((model for _, model in scored), key=lambda model: model.value)


def table(outcomes: list[Outcome]) -> str:
    """Medians over the seeds, and ratios to ours of the same seed.

    If the target is not reached, the whole time counts, so such a ratio is too small. The loop always counts whole,
    because it knows its best score only at the end.
    """
    ours = {one.seed: one for one in outcomes if one.name == OURS}
    rows = [
        "| search | seconds to the target | ratio to ours | seconds an epoch | ratio to ours | settings an hour "
        "| best val_map |"
    ]
    rows.append("|---" * 7 + "|")

    def until(one: Outcome) -> float:
        return one.seconds if one.name == LOOP or one.target is None else one.target

    def each(one: Outcome) -> float:
        return one.seconds / len(one.trace)

    for name in dict.fromkeys(one.name for one in outcomes):
        mine = [one for one in outcomes if one.name == name]
        paired = [(one, ours[one.seed]) for one in mine if one.seed in ours]
        count = sum(one.name == LOOP or one.target is not None for one in mine)
        cells = [name, f"{spread([until(one) for one in mine], 0)}, {count} of {len(mine)} reached it"]
        cells.append(spread([until(one) / until(other) for one, other in paired], 1))
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
    parser.add_argument("--valid", type=int, default=500, help="number of validation images")
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
    parser.add_argument("--short", action="store_true", help="a test run: one seed, five configurations")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.only is None:
        has = subprocess.run([args.python, "-c", "import syne_tune"], capture_output=True, check=False).returncode == 0
        args.only = [name for name in [*SCRIPTS, OURS] if name != SYNE_TUNE or has]
    if args.short:
        args.train, args.valid, args.trials, args.epochs, args.seeds = 64, 40, 5, 2, 1
    with tempfile.TemporaryDirectory() as scratch:
        source = args.data
        if source is None:
            from digits_core.data.drawn import write_drawn_folder

            source = Path(scratch) / "drawn"
            write_drawn_folder(source, args.train, args.valid)
        folder = small_folder(source, Path(scratch) / "data", args.train, args.valid)
        judge = Judge(folder)
        outcomes: list[Outcome] = []
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            best: Scored | None = None
            for name in args.only:
                outcome, model = run(name, args, judge, folder, seed, best)
                outcomes.append(outcome)
                best = model if name == LOOP else best
                at = "" if outcome.target is None else f", target after {outcome.target:.0f} s"
                print(f"{name}, seed {seed}: {outcome.seconds:.0f} s, best {outcome.best:.3f}{at}", flush=True)
                if args.out is not None:
                    settings: dict[str, Any] = {key: str(value) for key, value in vars(args).items()}
                    text = json.dumps({"args": settings, "outcomes": [asdict(one) for one in outcomes]}, indent=1)
                    args.out.write_text(text)
    print(table(outcomes))


if __name__ == "__main__":
    main()
