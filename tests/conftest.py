"""Fixtures shared by all tests: a small data set, a report that remembers, a run folder made of events alone."""

import contextlib
import json
import os
import random

import hypothesis
import pytest

pytest_plugins = ["needs"]

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Two test processes run beside each other on two cores: more threads in each only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may stop for seconds, so no example has a deadline. Continuous integration draws the same examples
# every time; elsewhere the seed is printed.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Draw hypothesis' seed here, so that it can be printed."""
    if config.getoption("--hypothesis-seed", None) is None and not os.environ.get("CI"):
        config.option.hypothesis_seed = random.SystemRandom().randrange(10**6)


def pytest_report_header(config):
    seed = config.getoption("--hypothesis-seed", None)
    return None if seed is None else f"hypothesis: repeat these examples with --hypothesis-seed={seed}"


def pytest_terminal_summary(terminalreporter):
    """Each failure in words at the end, whole: pytest's own summary cuts them at the width of the terminal."""
    failed = [one for kind in ("failed", "error") for one in terminalreporter.stats.get(kind, [])]
    if failed:
        terminalreporter.section("why")
    for one in failed:
        crash = getattr(one.longrepr, "reprcrash", None)
        terminalreporter.write_line(f"{one.nodeid}: {crash.message if crash is not None else one.longreprtext}")


@contextlib.contextmanager
def environment(**names):
    """The environment with other values for a while."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder of the test session's own."""
    folder = tmp_path_factory.mktemp("cache")
    with environment(DIGIT_SEARCH_CACHE=str(folder)):
        yield folder


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """A state folder of the test session's own: what its searches name is not remembered in the user's home."""
    folder = tmp_path_factory.mktemp("state")
    with environment(XDG_STATE_HOME=str(folder)):
        yield folder


@pytest.fixture(autouse=True)
def called_by_its_own_name():
    """No test leaves behind how it called a command."""
    from digits_core.command import CALLED_AS

    token = CALLED_AS.set(None)
    yield
    CALLED_AS.reset(token)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A COCO folder of 8 + 4 drawn images; train's first image has no digits."""
    from digits_core.data.drawn import write_drawn_folder

    folder = tmp_path_factory.mktemp("data") / "tiny"
    write_drawn_folder(folder, 8, 4, seed=7)
    tree = json.loads((folder / "train.json").read_text())
    tree["annotations"] = [row for row in tree["annotations"] if row["image_id"] != 1]
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="session")
def tiny_data(tiny_folder, own_cache):
    from digits_core.data.cache import open_data
    from digits_core.data.source import DataSource

    return open_data(DataSource(folder=str(tiny_folder)))


SHAPES = {3: "circle", 7: "square", 42: "triangle"}
"""Category ids of a data set that is no digits; not dense, as annotation files often are."""


def write_shapes_folder(folder, num_train, num_valid, seed=0):
    """A COCO folder of bright shapes on dark ground, one to three in each image."""
    import numpy as np
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(seed)
    for part, count in (("train", num_train), ("valid", num_valid)):
        (folder / part).mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, count + 1):
            picture = Image.fromarray(generator.integers(0, 70, (64, 96, 3), dtype=np.uint8))
            draw = ImageDraw.Draw(picture)
            for place in generator.permutation(3)[: generator.integers(1, 4)].tolist():
                category = int(generator.choice(list(SHAPES)))
                side = int(generator.integers(18, 28))
                left, top = 2 + place * 32, int(generator.integers(2, 60 - side))
                box = [left, top, left + side, top + side]
                color = tuple(generator.integers(150, 256, 3).tolist())
                if SHAPES[category] == "circle":
                    draw.ellipse(box, fill=color)
                elif SHAPES[category] == "square":
                    draw.rectangle(box, fill=color)
                else:
                    draw.polygon([(left + side / 2, top), (left, top + side), (left + side, top + side)], fill=color)
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": image_id, "category_id": category,
                        "bbox": [left, top, side, side], "area": side * side, "iscrowd": 0,
                    }
                )  # fmt: skip
            images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 96, "height": 64})
            picture.save(folder / part / f"{image_id}.png")
        categories = [{"id": number, "name": name} for number, name in SHAPES.items()]
        tree = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{part}.json").write_text(json.dumps(tree))


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes_folder(folder, 96, 24)
    return folder


@pytest.fixture
def spy_report():
    """A report callable that keeps what it was told, in `.seen`."""

    class Spy:
        def __init__(self):
            self.seen = []

        def __call__(self, report):
            self.seen.append(report)

    return Spy()


@pytest.fixture
def one_thread():
    """One CPU thread, on which sums have one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def report(epoch, val_map, **more):
    return {
        "epoch": epoch,
        "train_loss": 1.0 / epoch,
        "loss_classifier": 0.1,
        "loss_box_reg": 0.2,
        "loss_objectness": 0.3,
        "loss_rpn_box_reg": 0.4,
        "lr": 1e-3,
        "val_loss": 1.1 / epoch,
        "val_map": val_map,
        "val_map_50": None if val_map is None else min(1.0, val_map * 1.5),
        "val_map_75": val_map,
        "val_digit_accuracy": 0.6,
        "val_number_accuracy": 0.5,
        "images_per_second": 40.0,
        "peak_memory_bytes": 10**9,
        "epoch_seconds": 2.0,
        "train_seconds": 1.5,
        "eval_seconds": 0.4,
        "early_stopped": False,
        **more,
    }


def introduce(events, trial_id, role="search", **flat):
    from digits_core.config.train_config import TrainConfig
    from digits_core.model.anchors import setting_digest

    config = TrainConfig.from_flat(flat)
    events.write(
        "trial",
        trial_id=trial_id,
        space="lr_schedules",
        role=role,
        baseline=None,
        config=config.to_flat(),
        config_hash=setting_digest(config),
        seed=config.runtime.seed,
        params={},
    )


@pytest.fixture
def run_folder(tmp_path):
    """Five trials: a finished winner, a stopped one, a diverged one that led, one without a score, a running one."""
    from results.record.log import EventWriter

    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    events = EventWriter(folder, "demo")
    events.write("run", metric="val_map", trials=5, resumed=False)
    for number, lr in enumerate((1e-3, 2e-3, 3e-3, 4e-3, 5e-3)):
        introduce(events, f"t{number:04d}", **{"optim.lr": lr})
        events.write("start", trial_id=f"t{number:04d}")
    for epoch, value in enumerate((0.30, 0.42, 0.40), start=1):
        events.write("report", trial_id="t0000", **report(epoch, value), device="cpu", model={"num_parameters": 7})
    events.write("end", trial_id="t0000", status="finished", reason=None)
    events.write("report", trial_id="t0001", **report(1, 0.20))
    events.write("end", trial_id="t0001", status="stopped", reason="asha: too low")
    events.write("report", trial_id="t0002", **report(1, 0.55))
    events.write("end", trial_id="t0002", status="diverged", reason="step 9: loss | not finite")
    events.write("end", trial_id="t0003", status="failed", reason="worker died")
    events.write("report", trial_id="t0004", **report(1, 0.25))
    events.close()
    (folder / "run.json").write_text(json.dumps({"name": "demo"}))
    return folder
