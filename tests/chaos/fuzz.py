"""Fuzzing of every reader of files from strangers: each input ends in a result or in a sentence.

    python tests/chaos/fuzz.py --minutes 60 --seed 0

Sound files are damaged at random: bytes flipped, cut out, doubled; nodes of JSON replaced by what no one expects. A
finding is any other exception, ten seconds, a gigabyte more, or the death of the process; its input is kept.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


from digits_core.config.reading import read_toml
from digits_core.config.train_config import TrainConfig
from digits_core.data.coco import read_part
from digits_core.data.drawn import write_drawn_folder
from digits_core.data.source import DataSource, check_data, decode_image
from digits_core.errors import UserError
from digits_core.model.build import DRAWN_WEIGHTS
from digits_core.model.checkpoint import load_categories, load_config, load_tensors
from digits_core.model.checkpoint_state import load_state
from digits_core.submission.files import Detection, check_file, write_submission
from results.compare import check_tables
from results.record.events import check_event
from results.record.folder import read_run_file
from results.record.log import EVENTS_FILE, read_record
from results.record.run import RunRecord
from results.repair import affected_lines, look, lost_lines
from results.tables.matches import matches_path, read_matches
from results.tables.parquet import read_arrow
from results.verdicts.comparison import Board
from results.views.leaderboard import leaderboard_table
from search.cli.run_folder import resumed_settings
from search.cli.settings import SearchSettings, make_plan
from search.replay import replay
from searched import Searched

MOST_SECONDS, MOST_BYTES = 10, 2**30

NASTY = [
    None, True, 0, -1, 1.5, 2**31, 2**63, -(2**70), 10**400, float("nan"), float("inf"), "", "x" * 5000, "../../x",
    "/etc/x", "\0", "\x1b[2J", "<script>", [], {}, [[]], [None], {"a": {"b": []}}, "NaN", "1e999", "0x10", "２",
    [1] * 1000,
]  # fmt: skip


def sound(folder):
    """Sound files of every kind, and what reads each."""
    data = folder / "data"
    write_drawn_folder(data, 3, 2, seed=1)
    one = Searched(folder / "runs" / "r")
    for number in range(2):
        one.trial(f"t{number:04d}", 0.5 + 0.2 * number, **{"optim.lr": 1e-3 * (number + 1)})
    run = one.done()
    settings = SearchSettings(space="lr_schedules", name="r", out=str(folder / "runs"))
    plan = make_plan(settings)
    about = {"settings": settings.to_json(), "base_config": plan.base.to_flat(), "data": {"fingerprint": "x"}}
    (run / "run.json").write_text(json.dumps(about))
    model = shutil.copytree(DRAWN_WEIGHTS, folder / "model")
    classes = {"ids": list(range(1, 11)), "names": [str(digit) for digit in range(10)]}
    (model / "classes.json").write_text(json.dumps(classes))
    state = {"epoch": 1, "step": 2, "best_epoch": 1, "best_value": 0.5}
    (model / "state.json").write_text(json.dumps(state))
    (folder / "c.toml").write_text(TrainConfig().to_toml())
    sizes = {1: (60, 40), 2: (60, 40)}
    predictions = folder / "pred"
    predictions.mkdir()
    write_submission(predictions, [Detection(1, (1.0, 2.0, 9.0, 9.0), 0.5, 3)] * 9, {1: "2", 2: "-1"})
    table = matches_path(run, "t0000", "val")
    (folder / "board").mkdir()
    from results.tables.parquet import write_table

    write_table(folder / "board" / "leaderboard.parquet", leaderboard_table(read_record(run, "r"), run))

    def record(path):
        found = read_record(path.parent, "r")
        leaderboard_table(found, path.parent, make=False)
        found.ranked()
        replay(path.parent)

    def record_or_repair(path):
        try:
            record(path)
        except UserError:
            saved = look(path.parent)
            again = RunRecord("r")
            for event in [*saved.events, saved.repaired("x", "2026-01-01T00:00:00+00:00")]:
                again.apply(check_event(json.loads(json.dumps(event))))
            leaderboard_table(again, path.parent, make=False)
            lost_lines(saved)
            affected_lines(saved)
            raise

    def compared(path):
        found = read_record(run, "r")
        read_matches(path)
        check_tables(found, run)
        Board(found, run, "val_map", "val")

    return {
        "coco": (data / "train.json", lambda path: read_part("train", path, path.read_bytes())),
        "data": (data / "valid.json", lambda path: check_data(DataSource(folder=str(path.parent)))),
        "image": (data / "train" / "1.png", decode_image),
        "config.json": (model / "config.json", lambda path: load_config(path.parent)),
        "classes.json": (model / "classes.json", lambda path: load_categories(path.parent)),
        "state.json": (model / "state.json", lambda path: load_state(path.parent)),
        "model.safetensors": (model / "model.safetensors", lambda path: load_tensors(path.parent)),
        "config.toml": (folder / "c.toml", lambda path: TrainConfig.from_flat(read_toml(path))),
        "events.jsonl": (run / EVENTS_FILE, record_or_repair),
        "run.json": (run / "run.json", lambda path: (read_run_file(run), resumed_settings(str(run.parent), "r"))),
        "leaderboard.parquet": (
            folder / "board" / "leaderboard.parquet",
            lambda path: read_arrow(path, "").to_pylist(),
        ),
        "matches.parquet": (table, compared),
        "pred.json": (predictions / "pred.json", lambda path: list(check_file(path, sizes))),
        "pred.csv": (predictions / "pred.csv", lambda path: list(check_file(path, sizes))),
        "submission.zip": (predictions / "submission.zip", lambda path: list(check_file(path, sizes))),
    }


def damaged(content, draw):
    """Bytes with a few random faults."""
    if draw.random() < 0.5:
        with contextlib.suppress(ValueError, RecursionError):
            return damaged_json(content, draw)
    found = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        if not found:
            break
        at, many = draw.randrange(len(found)), draw.choice([1, 1, 4, 64, 1000])
        match draw.randrange(6):
            case 0:
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at] = draw.choice([0, 255, 10, 34, 44, 45, 123, 91, draw.randrange(256)])
            case 2:
                del found[at : at + many]
            case 3:
                found[at:at] = found[at : at + many]
            case 4:
                found[at:at] = draw.randbytes(many)
            case 5:
                del found[at:]
    return bytes(found)


def damaged_json(content, draw):
    """A line of JSON with a node replaced, removed, doubled or renamed."""
    lines = content.decode().splitlines() if content[:1] == b"{" and content.count(b"\n") > 1 else [content.decode()]
    at = draw.randrange(len(lines))
    tree = json.loads(lines[at])
    for _ in range(draw.choice([1, 1, 2, 4])):
        node = tree
        while isinstance(node, dict | list) and node:
            key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
            inner = node[key]
            if isinstance(inner, dict | list) and inner and draw.random() < 0.75:
                node = inner
                continue
            match draw.randrange(4):
                case 0 | 1:
                    node[key] = draw.choice(NASTY)
                case 2:
                    del node[key]
                case 3 if isinstance(node, dict):
                    node[str(draw.choice(NASTY))] = node.pop(key)
                case _:
                    node.append(inner)
            break
    lines[at] = json.dumps(tree)
    return "\n".join(lines).encode() + (b"\n" if content.endswith(b"\n") else b"")


class TooLongError(Exception):
    """An input took more than its seconds."""


def too_long(number, frame):
    """End an input that does not end."""
    raise TooLongError


def hunt(folder, seed, until, report, keep):
    """Feed damaged files to their readers, one after another, until the time is up."""
    readers, draw = sound(folder), random.Random(seed)
    contents = {name: path.read_bytes() for name, (path, _) in readers.items()}
    signal.signal(signal.SIGALRM, too_long)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, resource.RLIM_INFINITY))
    while time.time() < until:
        name = draw.choice(list(readers))
        path, read = readers[name]
        content = damaged(contents[name], draw)
        path.write_bytes(content)
        keep.write_bytes(pickle.dumps((name, content)))  # ours, for a process that dies
        outcome = "read"
        signal.alarm(MOST_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                read(path)
        except UserError:
            outcome = "sentence"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:200] + "\n" + traceback.format_exc()[-1500:]
        finally:
            signal.alarm(0)
        path.write_bytes(contents[name])
        os.write(report, (json.dumps([name, outcome]) + "\n").encode())


def main():
    """Hunt for so long and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    until, seed = time.time() + 60 * args.minutes, args.seed
    counts, findings, deaths = Counter(), {}, 0
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    while time.time() < until:
        take, give = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(take)
            with tempfile.TemporaryDirectory() as folder:
                hunt(Path(folder), seed, until, give, scratch / "last")
            os._exit(0)
        os.close(give)
        with os.fdopen(take) as lines:
            for line in lines:
                name, outcome = json.loads(line)
                kind = outcome if outcome in ("read", "sentence") else "finding"
                counts[name, kind] += 1
                if kind == "finding":
                    key = name + " " + outcome.split("\n")[0][:80]
                    if key not in findings:
                        findings[key] = outcome
                        print(f"FINDING in {name}: {outcome}", flush=True)
                        shutil.copy(scratch / "last", scratch / f"finding{len(findings)}")
        _, status = os.waitpid(child, 0)
        if status:
            deaths += 1
            shutil.copy(scratch / "last", scratch / f"death{deaths}")
            print(f"DEATH of the process by {status}: {scratch / f'death{deaths}'}", flush=True)
        seed += 1
    for name in sorted({name for name, _ in counts}):
        print(
            f"{name:22}", {kind: counts[name, kind] for kind in ("read", "sentence", "finding") if counts[name, kind]}
        )
    print(
        f"{sum(counts.values())} inputs, {len(findings)} kinds of findings, {deaths} deaths of the process; {scratch}"
    )
    return 1 if findings or deaths else 0


if __name__ == "__main__":
    sys.exit(main())
