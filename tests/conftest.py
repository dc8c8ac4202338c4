"""Fixtures shared by all tests: a small data set, a small config, a report that remembers."""

import json
import os
from pathlib import Path

import pytest

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache folder of the test session's own."""
    before = os.environ.get("DIGIT_SEARCH_CACHE")
    os.environ["DIGIT_SEARCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["DIGIT_SEARCH_CACHE"])
    if before is None:
        del os.environ["DIGIT_SEARCH_CACHE"]
    else:
        os.environ["DIGIT_SEARCH_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A COCO folder of 8 + 4 drawn images; train's first image has no digits."""
    from digits_core.synthetic import write_drawn_folder

    folder = tmp_path_factory.mktemp("data") / "tiny"
    write_drawn_folder(folder, 8, 4, seed=7)
    tree = json.loads((folder / "train.json").read_text())
    tree["annotations"] = [row for row in tree["annotations"] if row["image_id"] != 1]
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="session")
def tiny_data(tiny_folder, own_cache):
    from digits_core.cache import DataSource, open_data

    return open_data(DataSource(folder=str(tiny_folder)))


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
