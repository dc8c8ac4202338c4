"""Malformed input of every kind: one sentence, exit code 2, no traceback, nothing written, nothing run."""

import io
import json
import os
import pickle
import resource
import shlex
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from digits_core import predict
from digits_core.model.build import DRAWN_WEIGHTS
from results import compare, export, leaderboard, plots
from results.record.log import EventWriter
from search import replay, retrain, run
from search.storage.storage import Storage
from searched import Searched

DEEP = "[" * 100_000

pytestmark = pytest.mark.timeout(300)


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(autouse=True)
def little_memory():
    """No input makes a command take more than a gigabyte."""
    pa.array([0])  # so that Arrow's allocator has set its gigabyte of addresses aside
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def annotations(**changes):
    """A COCO file of two images, with changes: `image` and `box` of the first ones, other keys of the file."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in (1, 2)]
    boxes = [{"id": n, "image_id": n, "bbox": [5, 5, 10, 20], "category_id": 3, "iscrowd": 0} for n in (1, 2)]
    images[0] |= changes.pop("image", {})
    boxes[0] |= changes.pop("box", {})
    return {"images": images, "annotations": boxes, "categories": []} | changes


def png(width=60, height=40, seed=0):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def huge_png(width, height):
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.fixture
def data(tmp_path):
    """A sound COCO folder of two and two images."""
    root = tmp_path / "data"
    for part in ("train", "valid"):
        (root / part).mkdir(parents=True)
        (root / f"{part}.json").write_text(json.dumps(annotations()))
        for number in (1, 2):
            (root / part / f"{number}.png").write_bytes(png(seed=10 * number + (part == "valid")))
    return root


def mistake(capsys, main, *arguments, said=""):
    """Run a command on something malformed and see how it ends."""
    try:
        code = main([str(one) for one in arguments])
    except SystemExit as error:
        code = error.code
    out, errors = capsys.readouterr()
    assert code == 2, (code, out, errors)
    assert "Traceback" not in errors
    assert said in errors, errors
    assert len(errors) < 5000
    assert "\x1b" not in errors
    return errors


NAN, BIG = float("nan"), 10**400

COCO = {
    "empty": "",
    "no json": "hello",
    "cut short": json.dumps(annotations())[:-30],
    "null": "null",
    "a number": "3",
    "a list": "[]",
    "deep": DEEP,
    "deep objects": '{"a":' * 50_000,
    "not utf-8": b'{"images": "\xff\xfe"}',
    "a pickle": pickle.dumps(annotations()),
    "images is no list": annotations(images={}),
    "annotations is no list": annotations(annotations="all"),
    "no images": annotations(images=[]),
    "an image is null": annotations(images=[None]),
    "an image is a list": annotations(images=[[1]]),
    "image id as text": annotations(image={"id": "1"}),
    "image id is a fraction": annotations(image={"id": 1.5}),
    "image id is huge": annotations(image={"id": BIG}),
    "image id is true": annotations(image={"id": True}),
    "image id is a list": annotations(image={"id": [1]}),
    "image id twice": annotations(image={"id": 2}),
    "no file name": annotations(image={"file_name": None}),
    "file name up and out": annotations(image={"file_name": "../../secret.png"}),
    "file name absolute": annotations(image={"file_name": "/etc/passwd"}),
    "file name with a null": annotations(image={"file_name": "1\0.png"}),
    "file name very long": annotations(image={"file_name": "a" * 5000 + ".png"}),
    "file name with escapes": annotations(image={"file_name": "\x1b[31m<script>.png"}),
    "file name is a folder": annotations(image={"file_name": "."}),
    "width of nothing": annotations(image={"width": 0}),
    "width is not a number": annotations(image={"width": NAN}),
    "width is huge": annotations(image={"width": 10**12}),
    "width is another": annotations(image={"width": 61}),
    "box of three": annotations(box={"bbox": [1, 2, 3]}),
    "box is text": annotations(box={"bbox": "1,2,3,4"}),
    "box is not a number": annotations(box={"bbox": [NAN, 1, 2, 3]}),
    "box is endless": annotations(box={"bbox": [0, 0, float("inf"), 3]}),
    "box is huge": annotations(box={"bbox": [0, 0, BIG, 3]}),
    "box without width": annotations(box={"bbox": [5, 5, 0, 20]}),
    "box outside": annotations(box={"bbox": [500, 5, 10, 20]}),
    "box of an unknown image": annotations(box={"image_id": 9}),
    "box id twice": annotations(box={"id": 2}),
    "category zero": annotations(box={"category_id": 0}),
    "category as text": annotations(box={"category_id": "3"}),
    "crowd of two": annotations(box={"iscrowd": 2}),
    "crowd is a list": annotations(box={"iscrowd": []}),
    "categories contradict": annotations(categories=[{"id": 1, "name": "9"}]),
    "categories twice": annotations(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
    "categories are huge": annotations(categories=[{"id": n, "name": f"c{n}"} for n in range(3000)]),
}


@pytest.mark.parametrize("name", COCO)
def test_annotations(name, data, capsys, own_cache):
    content = COCO[name]
    if isinstance(content, dict):
        content = json.dumps(content)
    (data / "train.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = {path for path in own_cache.iterdir() if path.suffix != ".lock"}
    mistake(capsys, run.main, "--space", "anchors", "--data", data, "--dry-run", said="train")
    assert {path for path in own_cache.iterdir() if path.suffix != ".lock"} == before


def link(path, target):
    path.unlink()
    path.symlink_to(target)


IMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(png()[:200]),
    "text": lambda path: path.write_text("hello"),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "a bomb": lambda path: path.write_bytes(huge_png(50_000, 50_000)),
    "a wide bomb": lambda path: path.write_bytes(huge_png(2**31 - 1, 3)),
    "another size": lambda path: path.write_bytes(png(61, 40)),
    "broken inside": lambda path: path.write_bytes(png().replace(b"IDAT", b"IDAX")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link out": lambda path: link(path, "/etc/hostname"),
    "a link to itself": lambda path: link(path, path),
    "a device": lambda path: link(path, "/dev/zero"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded"))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images(name, data, capsys):
    IMAGES[name](data / "train" / "1.png")
    mistake(capsys, run.main, "--space", "anchors", "--data", data, "--dry-run", said="train/1.png")
    assert not (data / "train" / "exploded").exists()


CONFIGS = {
    "no toml": "a = = 3",
    "not utf-8": b"\xff\xfe\x00",
    "unknown parameter": "[model]\nanchr_sizes = 3",
    "a table as value": "[optim.lr]\nx = 1",
    "text as number": '[optim]\nlr = "fast"',
    "not a number": "[optim]\nlr = nan",
    "endless": "[optim]\nlr = inf",
    "too large": "[optim]\nbatch_size = 99999999999999999999",
    "a date": "[optim]\nlr = 2026-01-01",
    "a list": "[optim]\nlr = [1, 2]",
    "anchors of nothing": '[model]\nanchor_sizes = ""',
    "anchors of text": '[model]\nanchor_sizes = "1;x;3"',
    "very many anchors": '[model]\nanchor_sizes = "' + ",".join(["9"] * 100_000) + '"',
    "stages of nothing": '[optim]\nstages = ";;;"',
    "stages is a list": "stages = 3",
    "deep": "a = " + "[" * 5000,
    "weights of nowhere": '[model]\nweights = "/nowhere"',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name, tmp_path, capsys):
    content = CONFIGS[name]
    path = tmp_path / "c.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    mistake(capsys, run.main, "--space", "lr_schedules", "--config", path, "--dry-run")


COMMANDS = {
    "a name up and out": ["--space", "anchors", "--name", "../out"],
    "a hidden name": ["--space", "anchors", "--name", ".ssh"],
    "a name with escapes": ["--space", "anchors", "--name", "\x1b[2J"],
    "a long name": ["--space", "anchors", "--name", "a" * 300],
    "resume up and out": ["--resume", "../../etc"],
    "resume absolute": ["--resume", "/etc"],
    "resume with a null": ["--resume", "a\0b"],
    "a parameter without a value": ["--space", "anchors", "--set", "optim.lr"],
    "a parameter that is code": ["--space", "lr_schedules", "--set", "model.min_size=__import__('os')"],
    "an endless time": ["--space", "anchors", "--time-budget", "9" * 400 + "h"],
    "trials beyond number": ["--space", "anchors", "--trials", "9" * 5000],
    "a negative disk": ["--space", "anchors", "--disk", "-3G"],
    "an address with a path": ["--space", "anchors", "--address", "http://x/../y"],
    "a space that is a folder": ["--space", "/etc.py"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lines(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake(capsys, run.main, *COMMANDS[name])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def searched(tmp_path):
    """A sound run folder with one finished trial."""
    one = Searched(tmp_path / "runs" / "r")
    one.trial("t0000", 0.8)
    return one.done()


def event(**values):
    return json.dumps({"n": 99, "time": "2026-01-01T00:00:00+00:00", **values}) + "\n"


def introduced(**changes):
    from digits_core.config.train_config import TrainConfig

    facts = {
        "kind": "trial", "trial_id": "t9", "space": "s", "config": TrainConfig().to_flat(), "config_hash": "x",
        "seed": 0, "params": {},
    }  # fmt: skip
    return event(**(facts | changes))


EVENTS = {
    "text": "hello\n",
    "null": "null\n",
    "deep": DEEP + "\n",
    "not utf-8": b"\xff\xfe\n",
    "no kind": '{"n": 1}\n',
    "a time of words": '{"n": 1, "time": "today", "kind": "start", "trial_id": "t0000"}\n',
    "a number of words": '{"n": "x", "time": "2026-01-01T00:00:00+00:00", "kind": "start", "trial_id": "t0000"}\n',
    "an unknown trial": event(kind="start", trial_id="t7"),
    "a trial up and out": introduced(trial_id="../../t9"),
    "a trial with escapes": introduced(trial_id="\x1b[2J"),
    "a trial that is a list": introduced(trial_id=["t9"]),
    "a config that is text": introduced(config="all"),
    "a config without epochs": introduced(config={}),
    "a config of lists": introduced(config={"optim.epochs": 3, "optim.lr": [1]}),
    "a role of its own": introduced(role="king"),
    "a seed of words": introduced(seed="x"),
    "a coverage of words": introduced(coverage={"mean_iou": "x"}),
    "an epoch of words": event(kind="report", trial_id="t0000", epoch="x"),
    "an epoch of zero": event(kind="report", trial_id="t0000", epoch=0),
    "a score of words": event(kind="report", trial_id="t0000", epoch=1, val_map="high"),
    "a score that is none": event(kind="report", trial_id="t0000", epoch=1, val_map=NAN),
    "a score above one": event(kind="report", trial_id="t0000", epoch=1, val_map=1.5),
    "a confirmation under zero": event(kind="report", trial_id="t0000", epoch=1, confirm={"val_map": -0.5}),
    "a score beyond number": event(kind="report", trial_id="t0000", epoch=1, val_map=BIG),
    "optima of words": event(kind="report", trial_id="t0000", epoch=1, optima={"task1_nms": "x"}),
    "a checkpoint that is a list": event(kind="checkpoint", trial_id="t0000", path=["home"]),
    "kept nowhere": event(kind="kept", trial_id="t0000"),
    "a kind of its own": event(kind="rumour", trial_id="t0000"),
    "kept up and out": event(kind="kept", trial_id="t0000", path="checkpoints/../../../etc"),
    "an end of its own": event(kind="end", trial_id="t0000", status="glorious"),
    "a fault of lists": event(kind="fault", trial_id="t0000", fault=[], reason="x"),
    "a run without a metric": event(kind="run"),
}

READERS = {
    "leaderboard": lambda folder: (leaderboard.main, folder),
    "export": lambda folder: (export.main, folder, "--format", "csv", "-o", folder / "x.csv"),
    "compare": lambda folder: (compare.main, folder),
    "plots": lambda folder: (plots.main, folder),
    "replay": lambda folder: (replay.main, folder),
    "retrain": lambda folder: (retrain.main, folder),
}


@pytest.mark.parametrize("name", EVENTS)
def test_records(name, searched, capsys):
    content = EVENTS[name]
    number = (searched / "events.jsonl").read_bytes().count(b"\n") + 1
    with (searched / "events.jsonl").open("ab") as file:
        file.write(content if isinstance(content, bytes) else content.replace('"n": 99', f'"n": {number}').encode())
    (searched / "leaderboard.parquet").unlink(missing_ok=True)
    reader = list(READERS)[list(EVENTS).index(name) % len(READERS)]
    error = mistake(capsys, *READERS[reader](searched), said="events.jsonl")
    assert f"digit-search repair {shlex.quote(str(searched))}" in error
    assert "follows event" not in error


def table(path, **columns):
    pq.write_table(pa.table(columns), path)


BOARDS = {
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "noise inside": lambda path: path.write_bytes(b"PAR1" + np.random.default_rng(0).bytes(400) + b"PAR1"),
    "another table": lambda path: table(path, x=[1, 2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nothing": lambda path: link(path, "/nowhere"),
}


@pytest.mark.parametrize("name", BOARDS)
def test_leaderboards(name, searched, capsys):
    leaderboard.main([str(searched)])
    capsys.readouterr()
    assert (searched / "leaderboard.parquet").is_file()
    BOARDS[name](searched / "leaderboard.parquet")
    (searched / "events.jsonl").unlink()
    mistake(capsys, leaderboard.main, searched)


MATCHES = {
    "text": lambda path: path.write_text("hello"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "another table": lambda path: table(path, x=[1]),
}


@pytest.mark.parametrize("name", MATCHES)
def test_match_tables(name, searched, capsys):
    [path] = list((searched / "matches").rglob("t0000*.parquet"))[:1]
    shutil.rmtree(searched / "bootstrap", ignore_errors=True)
    MATCHES[name](path)
    mistake(capsys, compare.main, searched, said="t0000")


RUN_FILES = {
    "text": "hello",
    "a list": "[]",
    "deep": DEEP,
    "no settings": "{}",
    "settings of words": json.dumps({"settings": "all"}),
    "a data folder of lists": json.dumps({"settings": {"data": {"folder": [1]}}, "base_config": {}}),
    "settings of another": json.dumps({"settings": {"space": "anchors", "data": {}, "surprise": 1}}),
    "a space that is a file elsewhere": json.dumps({"settings": {"space": "/nowhere.py", "data": {}}}),
}


@pytest.mark.parametrize("name", RUN_FILES)
def test_run_files(name, searched, capsys):
    (searched / "run.json").write_text(RUN_FILES[name])
    mistake(capsys, run.main, "--resume", "r", "--out", searched.parent)


def tensors(path, header):
    """A safetensors file of such a header and no bytes."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body)


CHECKPOINTS = {
    "weights missing": lambda folder: (folder / "model.safetensors").unlink(),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "weights of text": lambda folder: (folder / "model.safetensors").write_text("hello"),
    "weights cut short": lambda folder: os.truncate(folder / "model.safetensors", 5000),
    "weights of another model": lambda folder: tensors(folder / "model.safetensors", {}),
    "weights beyond the file": lambda folder: tensors(
        folder / "model.safetensors", {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ),
    "a header beyond the file": lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**60)),
    "a deep header": lambda folder: tensors(folder / "model.safetensors", DEEP.encode()),
    "weights that are a pickle": lambda folder: (folder / "model.safetensors").write_bytes(
        pickle.dumps(Bomb(folder / "exploded"))
    ),
    "config missing": lambda folder: (folder / "config.json").unlink(),
    "config of text": lambda folder: (folder / "config.json").write_text("hello"),
    "config is a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config is deep": lambda folder: (folder / "config.json").write_text(DEEP),
    "config of unknown parameters": lambda folder: (folder / "config.json").write_text('{"a.b": 1}'),
    "config of lists": lambda folder: (folder / "config.json").write_text('{"optim.lr": [1]}'),
    "config is a pickle": lambda folder: (folder / "config.json").write_bytes(pickle.dumps(Bomb(folder / "exploded"))),
    "classes of text": lambda folder: (folder / "classes.json").write_text("hello"),
    "classes of words": lambda folder: (folder / "classes.json").write_text('{"ids": "x", "names": 3}'),
    "classes beyond number": lambda folder: (folder / "classes.json").write_text(
        json.dumps({"ids": list(range(100_000)), "names": ["x"] * 100_000})
    ),
    "classes is deep": lambda folder: (folder / "classes.json").write_text(DEEP),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name, data, tmp_path, capsys):
    folder = shutil.copytree(DRAWN_WEIGHTS, tmp_path / "model")
    CHECKPOINTS[name](folder)
    mistake(capsys, predict.main, folder, data / "valid", "-o", tmp_path / "out", "--device", "cpu")
    assert not (tmp_path / "out").exists()
    assert not (folder / "exploded").exists()


def test_a_stranger_cannot_have_files_deleted_by_a_link(tmp_path):
    from results.record.trial import TrialRecord

    outside = tmp_path / "home"
    outside.mkdir()
    folder = tmp_path / "run"
    (folder / "tune").mkdir(parents=True)
    (folder / "tune" / "checkpoint_000000").symlink_to(outside)
    trial = TrialRecord("t0", "s", None, {"optim.epochs": 1}, "x", 0, {})
    for path in ("tune/checkpoint_000000", "../home", str(outside), "a\0b", ""):
        trial.saved = path
        assert Storage(folder).saved(trial) is None
    (folder / "tune" / "checkpoint_000001").mkdir()
    trial.saved = "tune/checkpoint_000001"
    assert Storage(folder).saved(trial) == "tune/checkpoint_000001"


def test_a_second_writer_is_refused_and_a_dead_one_leaves_no_lock(tmp_path, capsys):
    import subprocess
    import sys

    code = (
        "import sys, time; from pathlib import Path; from results.record.log import EventWriter\n"
        "writer = EventWriter(Path(sys.argv[1]), 'r'); print('held', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[1]
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Exception, match=f"is being written by process {holder.pid} on "):
        EventWriter(tmp_path, "r")
    holder.kill()
    holder.wait()
    EventWriter(tmp_path, "r").close()
    assert (tmp_path / "events.jsonl").read_bytes() == b""
