"""A storm over a search: kills at random, then what was lost, repeated or decided otherwise.

python tests/chaos/storm.py --kills 50 --seed 0
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from digits_core.data.drawn import write_drawn_folder
from results.record.log import EVENTS_FILE, read_events, read_record
from results.record.run import RunRecord
from results.tables.parquet import read_arrow
from results.views.leaderboard import leaderboard_table
from search.replay import replay, training_table

ROOT = Path(__file__).parents[2]

SPACE = """
from spaces.registry import space

@space("toy", summary="a few rates and shapes")
def toy(trial):
    return {
        "optim.lr": trial.suggest_categorical("lr", [1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3]),
        "optim.batch_size": trial.suggest_categorical("batch", [4, 8, 16]),
        "optim.weight_decay": trial.suggest_categorical("decay", [1e-4, 1e-3]),
    }
"""

FLAGS = [
    *("--sampler", "random", "--scheduler", "asha", "--max-failures", "1000", "--keep", "2", "--screen", "off"),
    *("--set", "model.min_size=32", "--set", "model.max_size=96"),
]

VICTIMS = ("driver", "worker", "worker", "worker", "raylet", "gcs", "disk")
"""The search itself, a process that trains, Ray's node manager, its head, and the storage: whatever was being written
when everything dies at once is cut short, as by a power cut."""

DEATH_S = 90
"""A driver whose Ray is gone must end by itself within so long."""


@dataclass
class Damage:
    """What a storm did.

    Attributes:
        kills: how often each victim was killed.
        hung: drivers that had to be killed because they did not end without their Ray.
        reports: epochs reported, each counted as often as it was.
        repeated: of them, those reported before.
        most_repeated: the most epochs that any kill cost, over all slots.
        lost: epochs or trials that stood in the record once and do not at its end, or holes in a trial's epochs.
        different: decisions that a fresh scheduler takes otherwise, and epochs whose repetition, or whose twin in a
            run without any kill, gave other weights.
        compared: epochs whose weights were compared with the twin's.
        torn: reads of the leaderboard that found it broken or shrunk.
        reads: how many there were.
        seconds: all of it.
    """

    kills: Counter = field(default_factory=Counter)
    hung: int = 0
    reports: int = 0
    repeated: int = 0
    most_repeated: int = 0
    lost: list = field(default_factory=list)
    different: list = field(default_factory=list)
    compared: int = 0
    torn: int = 0
    reads: int = 0
    seconds: float = 0.0


class Search:
    """One search in a folder, started again after each kill."""

    def __init__(self, folder, *, name, trials, epochs):
        self.folder, self.name = folder, name
        self.run = folder / "runs" / name
        self._first = [
            *("--space", str(folder / "toy.py"), "--data", str(folder / "data"), "--name", name),
            *("--trials", str(trials - 1), "--epochs", str(epochs), *FLAGS),
        ]
        self.process = None

    def start(self):
        """Start it, or go on with it where it stands."""
        known = (self.run / EVENTS_FILE).is_file()
        if not known:
            shutil.rmtree(self.run, ignore_errors=True)  # killed before it had begun
        flags = ["--resume", self.name] if known else self._first
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "search.run", *flags, "--out", str(self.folder / "runs")],
            cwd=ROOT,
            env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def family(self, victim):
        """Processes of a kind under this driver."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        found = []
        for one in below:
            try:
                line = " ".join(one.cmdline())
            except psutil.Error:
                continue
            kinds = {"worker": "ray::", "raylet": "raylet/raylet", "gcs": "gcs_server"}
            if line.startswith(kinds[victim]) if victim == "worker" else kinds[victim] in line.split(" ")[0]:
                found.append(one)
        return found

    def bury(self):
        """Kill whatever is left of a driver's processes."""
        for one in psutil.process_iter(["environ"]):
            if one.pid == self.process.pid:
                continue
            try:
                if os.getsid(one.pid) == self.process.pid or str(self.run) in " ".join(one.cmdline()):
                    one.kill()
            except (psutil.Error, ProcessLookupError):
                continue


def epochs_of(run):
    """Every (trial, epoch) in the record, and the trials."""
    try:
        record = read_record(run, "storm")
    except Exception:
        return set(), set()
    return {(name, epoch) for name, trial in record.trials.items() for epoch in trial.epochs}, set(record.trials)


def storm(folder, *, kills, seed, trials=12, epochs=4, victims=VICTIMS, pause=3.0, say=lambda text: None):
    """Search under fire, to the end."""
    began, draw, damage = time.monotonic(), random.Random(seed), Damage()
    (folder / "toy.py").write_text(SPACE)
    write_drawn_folder(folder / "data", 48, 24, seed=9)
    search = Search(folder, name="storm", trials=trials, epochs=epochs)
    seen, rows = (set(), set()), 0
    search.start()
    while sum(damage.kills.values()) < kills:
        ended = wait(search, draw, pause)
        rows = poll(search.run, rows, damage)
        if ended:
            if search.process.returncode == 0:
                break  # it was too quick for us
            search.start()
            continue
        victim = victims[sum(damage.kills.values())] if len(victims) == kills else draw.choice(victims)
        before = epochs_of(search.run)
        seen = (seen[0] | before[0], seen[1] | before[1])
        if not strike(search, victim, draw, damage):
            continue
        damage.kills[victim] += 1
        say(f"{sum(damage.kills.values()):3} {victim:7} {len(seen[0])} epochs of {len(seen[1])} trials")
        rows = poll(search.run, rows, damage)
        if search.process.poll() is not None:
            search.start()
    code = None
    for _ in range(5):
        code = search.process.wait(timeout=900)
        if code == 0:
            break
        search.start()
    assert code == 0, (folder / "log").read_text()[-2000:]
    judge(search.run, seen, damage)
    damage.seconds = time.monotonic() - began
    return search, damage


def wait(search, draw, pause):
    """Let a search work until it has reported something new, or now and then not even that; whether it ended."""
    before, deadline = len(epochs_of(search.run)[0]), time.monotonic() + 120
    early = pause > 1 and draw.random() < 0.15
    while time.monotonic() < deadline and search.process.poll() is None:
        if search.family("worker") if early else len(epochs_of(search.run)[0]) > before:
            break
        time.sleep(0.1)
    end = time.monotonic() + draw.uniform(0.0, pause)
    while time.monotonic() < end and search.process.poll() is None:
        time.sleep(0.05)
    return search.process.poll() is not None


def strike(search, victim, draw, damage):
    """Kill one; whether there was one to kill."""
    if victim in ("worker", "raylet", "gcs"):
        found = search.family(victim)
        if not found:
            return False
        try:
            draw.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        if victim == "worker":
            return True
        try:
            search.process.wait(timeout=DEATH_S)
        except subprocess.TimeoutExpired:
            damage.hung += 1
            search.process.kill()
            search.process.wait()
        search.bury()
        return True
    search.process.send_signal(signal.SIGKILL)
    search.process.wait()
    search.bury()
    if victim == "disk":  # what the disk had not yet taken is gone: half a line, half a file
        for path, half in ((EVENTS_FILE, b'{"n":99999,"time":"2026'), ("study.journal", b'{"op_code":6,"wor')):
            if (search.run / path).is_file():
                with (search.run / path).open("ab") as file:
                    file.write(half)
        half = search.run / ".leaderboard.parquet.half"
        if search.run.is_dir():
            half.write_bytes(b"PAR1 and no more")
    return True


def poll(run, rows, damage):
    """Read the leaderboard as somebody beside would; it may neither be broken nor shrink."""
    path = run / "leaderboard.parquet"
    if not path.is_file():
        return rows
    damage.reads += 1
    try:
        now = read_arrow(path, "").num_rows
    except Exception:
        damage.torn += 1
        return rows
    damage.torn += now < rows
    return max(rows, now)


def judge(run, seen, damage):
    """Count what a record lost, repeated and decided otherwise."""
    record, known, cost = RunRecord("storm"), {}, 0
    for event in read_events(run, record):
        if event["kind"] in ("run", "fault"):
            cost = 0
        if event["kind"] != "report":
            continue
        key = event["trial_id"], event["epoch"]
        damage.reports += 1
        weights = event.get("weights")
        if key in known:
            damage.repeated += 1
            cost += 1
            damage.most_repeated = max(damage.most_repeated, cost)
            if known[key] != weights:
                damage.different.append(f"{key}: other weights the second time")
        known[key] = weights
    damage.lost += sorted(seen[0] - set(known)) + sorted(seen[1] - set(record.trials))
    for name, trial in record.trials.items():
        if sorted(trial.epochs) != list(range(1, trial.num_epochs + 1)):
            damage.lost.append(f"{name}: holes in its epochs {sorted(trial.epochs)}")
        if trial.status not in ("finished", "stopped"):
            damage.lost.append(f"{name}: ended as {trial.status}, {trial.stop_reason}")
    damage.different += replay(run, training_table(run)).differing
    assert leaderboard_table(record, run).num_rows == len(record.trials)


def compare_with_twin(search, damage, *, trials, epochs):
    """The same settings without any kill: wherever both trained, the weights must be the same bits."""
    twin = Search(search.folder, name="twin", trials=trials, epochs=epochs)
    twin.start()
    assert twin.process.wait(timeout=1200) == 0
    mine, theirs = (read_record(one.run, one.name) for one in (search, twin))
    by_setting = {(t.config_hash, t.seed): t for t in theirs.trials.values()}
    if {(t.config_hash, t.seed) for t in mine.trials.values()} != set(by_setting):
        damage.different.append("the two runs tried other settings")
    for trial in mine.trials.values():
        other = by_setting.get((trial.config_hash, trial.seed))
        for epoch in trial.weights.keys() & (other.weights.keys() if other else set()):
            damage.compared += 1
            if trial.weights[epoch] != other.weights[epoch]:
                damage.different.append(f"{trial.trial_id} epoch {epoch}: other weights than without kills")


def main():
    """Run a storm and print what it did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="storm-"))
    folder.mkdir(exist_ok=True)
    size = {"trials": args.trials, "epochs": args.epochs}
    search, damage = storm(folder, kills=args.kills, seed=args.seed, say=lambda text: print(text, flush=True), **size)
    compare_with_twin(search, damage, **size)
    print(
        json.dumps({"kills": dict(damage.kills), **{k: v for k, v in vars(damage).items() if k != "kills"}}, indent=1)
    )
    return 1 if damage.lost or damage.different or damage.torn or damage.hung else 0


if __name__ == "__main__":
    raise SystemExit(main())
