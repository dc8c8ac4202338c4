"""Space on the disk, and a record that is still written when the disk is full."""

import errno
import os
from collections import namedtuple

import pytest

from conftest import introduce
from digits_core.errors import RunError
from digits_core.files import folder_bytes, size_words
from results.record.log import RESERVE_FILE, EventWriter, read_record
from search.cli.values import parse_size
from search.storage import disk_limit as room
from search.storage.disk_limit import CHECKPOINT, Room


def checkpoint(folder, name, size):
    path = folder / "tune" / "001" / name / "checkpoint_000000"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(size))
    return path


def test_a_folder_is_measured_with_hard_links_once(tmp_path):
    path = checkpoint(tmp_path, "t0000", 400_000)
    os.link(path / "model.safetensors", path / "again")
    checkpoint(tmp_path, "t0001", 100_000)
    total, largest = folder_bytes(tmp_path, CHECKPOINT)
    assert 500_000 <= total < 600_000
    assert 400_000 <= largest < 450_000


def test_no_trial_starts_that_would_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)
    said = []
    checkpoint(tmp_path, "t0000", 1_000_000)
    regained = []
    roomy = Room(tmp_path, slots=2, most=6_000_000, say=said.append, regained=lambda: regained.append(True))
    assert not roomy.held()
    second = checkpoint(tmp_path, "t0001", 1_500_000)
    assert roomy.held()
    assert roomy.held()
    assert len(said) == 1
    assert said[0].startswith(f"no new trial starts: {tmp_path} has 2.5")
    assert "more than --disk 6 MB; end the search and resume it with a larger --disk" in said[0]
    assert not regained
    (second / "model.safetensors").unlink()
    assert not roomy.held()
    assert said[1:] == ["the disk has enough space again: new trials start"]
    assert regained == [True]


def test_a_disk_that_fills_is_waited_for(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = [10 * 2**30]
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: usage(2**40, 0, free[0]))
    said = []
    watch = Room(tmp_path, slots=2, most=None, say=said.append)
    assert not watch.held()
    free[0] = 2**20
    assert watch.held()
    assert "has 1.05 MB left, 268 MB are needed; free some space, and new trials start automatically" in said[0]
    free[0] = 10 * 2**30
    assert not watch.held()


def test_the_record_goes_on_from_what_was_set_aside(tmp_path, monkeypatch):
    events = EventWriter(tmp_path, "r")
    events.write("run", metric="val_map", trials=1, resumed=False)
    assert (tmp_path / RESERVE_FILE).stat().st_size == 4 * 2**20
    fsync = os.fsync

    def full(number):
        if (tmp_path / RESERVE_FILE).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    introduce(events, "t0000")
    events.write("report", trial_id="t0000", epoch=1, val_map=0.5)
    assert not (tmp_path / RESERVE_FILE).exists()
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(RunError, match="the disk is full; free some space and continue with digit-search resume"):
        events.write("report", trial_id="t0000", epoch=2, val_map=0.6)
    events.close()
    record = read_record(tmp_path, "r")
    assert sorted(record.trials["t0000"].epochs) == [1]
    assert record.num_events == 3


@pytest.mark.parametrize(
    ("text", "size"), [("20G", 20 * 10**9), ("500M", 5 * 10**8), ("1.5T", 1500 * 10**9), ("7kb", 7000), ("900", 900)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


def test_sizes_in_words():
    assert [size_words(size) for size in (900, 7_400_000, 1.5e9, 2e12)] == ["1 kB", "7.4 MB", "1.5 GB", "2 TB"]
