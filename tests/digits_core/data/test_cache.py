import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digits_core.data import cache
from digits_core.data.cache import open_data
from digits_core.data.source import DRAWN, DataSource
from digits_core.errors import DataError

SMALL = DataSource(folder=DRAWN, drawn_train=6, drawn_valid=3, drawn_seed=11)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DIGIT_SEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_images_are_what_the_files_hold_and_are_not_copied(tiny_folder, tiny_data):
    for index, image_id in enumerate(tiny_data.train.table.image_ids):
        on_disk = np.asarray(Image.open(tiny_folder / "train" / f"{image_id}.png").convert("RGB"))
        assert np.array_equal(tiny_data.train.image(index), on_disk)
    view = tiny_data.train.image(0)
    assert np.shares_memory(view, tiny_data.train.pixels)
    assert not view.flags.writeable


def test_data_is_decoded_once(root, tiny_folder, monkeypatch):
    source = DataSource(folder=str(tiny_folder))
    first = open_data(source)
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("decoded again"))
    assert open_data(source).fingerprint == first.fingerprint


def test_changed_data_is_other_data(root, tiny_folder, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    before = open_data(DataSource(folder=str(copy))).fingerprint
    assert before == open_data(DataSource(folder=str(tiny_folder))).fingerprint  # the location does not matter
    picture = Image.open(copy / "train" / "2.png")
    picture.putpixel((0, 0), (1, 2, 3))
    picture.save(copy / "train" / "2.png")
    changed = open_data(DataSource(folder=str(copy)))
    assert changed.fingerprint != before
    assert changed.train.image(1)[0, 0].tolist() == [1, 2, 3]


def test_a_worker_refuses_data_that_is_not_the_runs(root, tiny_folder):
    with pytest.raises(DataError, match="is not the data of the run"):
        open_data(DataSource(folder=str(tiny_folder)), fingerprint="0" * 32)


def test_a_worker_with_the_cache_needs_no_source(root, tiny_folder):
    known = open_data(DataSource(folder=str(tiny_folder))).fingerprint
    assert open_data(DataSource(folder="/nowhere"), fingerprint=known).fingerprint == known


def test_a_half_built_cache_is_never_used(root):
    whole = open_data(SMALL)
    folder = root / whole.fingerprint
    half = root / f"{whole.fingerprint}.half-99999"
    folder.rename(half)  # like an incomplete cache of a killed process
    (half / "tables.npz").unlink()
    again = open_data(SMALL)
    assert np.array_equal(again.train.image(0), whole.train.image(0))
    assert not half.exists()


def test_a_builder_that_fails_leaves_nothing(root, monkeypatch):
    monkeypatch.setattr(cache.Table, "from_part", lambda part: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_data(SMALL)
    assert [path.suffix for path in root.iterdir()] == [".lock"]


def test_many_processes_build_one_cache(root):
    code = (
        "from tests_source import SMALL; from digits_core.data.cache import open_data; "
        "data = open_data(SMALL); print(data.fingerprint, int(data.train.pixels.astype('int64').sum()))"
    )
    code = code.replace(
        "from tests_source import SMALL;",
        "from digits_core.data.source import DRAWN, DataSource; "
        "SMALL = DataSource(folder=DRAWN, drawn_train=6, drawn_valid=3, drawn_seed=11);",
    )
    environment = os.environ | {"DIGIT_SEARCH_CACHE": str(root)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = {process.communicate(timeout=120)[0] for process in running}
    assert len(told) == 1
    assert told.pop().strip()
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, tiny_folder):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIGIT_SEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="set DIGIT_SEARCH_CACHE"):
        open_data(DataSource(folder=str(tiny_folder)))


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGIT_SEARCH_CACHE", str(tmp_path))
    assert cache.cache_root() == tmp_path
    monkeypatch.delenv("DIGIT_SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.cache_root() == Path("/somewhere/digit-search")


def test_a_part_of_valid_is_set_apart_to_confirm_by_a_hash_of_image_ids(root):
    from dataclasses import replace

    source = DataSource(folder=DRAWN, drawn_train=4, drawn_valid=80, drawn_seed=11)
    whole = open_data(source)
    parted = open_data(replace(source, confirm_fraction=0.4))
    assert whole.confirm is None
    assert len(parted.confirm) == 32
    ids = parted.valid.table.image_ids.tolist() + parted.confirm.table.image_ids.tolist()
    assert sorted(ids) == whole.valid.table.image_ids.tolist()
    assert parted.valid.table.image_ids.tolist() == sorted(parted.valid.table.image_ids.tolist())
    place = whole.valid.table.image_ids.tolist()
    for split in (parted.valid, parted.confirm):
        for index, image_id in enumerate(split.table.image_ids.tolist()):
            there = place.index(image_id)
            assert np.array_equal(split.image(index), whole.valid.image(there))
            mine = slice(split.table.box_start[index], split.table.box_start[index + 1])
            theirs = slice(whole.valid.table.box_start[there], whole.valid.table.box_start[there + 1])
            assert np.array_equal(split.table.boxes[mine], whole.valid.table.boxes[theirs])
    assert parted.fingerprint == f"{whole.fingerprint}-confirm0.4"
    assert len(list(root.glob("*/pixels.bin"))) == 1  # decoded once for both
    again = open_data(replace(source, confirm_fraction=0.4), fingerprint=parted.fingerprint)
    assert again.confirm.table.image_ids.tolist() == parted.confirm.table.image_ids.tolist()


def test_a_part_to_confirm_too_small_to_tell_anything_is_refused(root):
    source = DataSource(folder=DRAWN, drawn_train=2, drawn_valid=40, drawn_seed=11, confirm_fraction=0.3)
    with pytest.raises(DataError, match="into 28 for selection and 12 for confirmation; each part needs at least 30"):
        open_data(source)
