"""The way of the progress from a trial to the driver, with a store in this process."""

import time
from types import SimpleNamespace

import pytest
import ray

import conftest
from results.record.log import EventWriter
from search.monitor.epoch_progress import PROGRESS_FILE, Reached, read_progress, write_progress
from search.tune import progress
from search.tune.progress import ProgressFollower, sender


@pytest.fixture
def store(monkeypatch):
    """The entries of a store by key."""
    entries = {}

    def delete(prefix, *, del_by_prefix, namespace):
        assert del_by_prefix
        for key in [key for key in entries if key.startswith(prefix)]:
            del entries[key]

    functions = SimpleNamespace(
        _internal_kv_put=lambda key, value, *, namespace: entries.update({key: value}),
        _internal_kv_get=lambda key, *, namespace: entries.get(key),
        _internal_kv_del=delete,
    )
    monkeypatch.setattr(progress, "_store", lambda: functions)
    monkeypatch.setattr(progress, "PAUSE_SECONDS", 0.01)
    return entries


@pytest.fixture
def events(tmp_path):
    """The record of a run with two trials, of which the first one runs."""
    found = EventWriter(tmp_path, "r")
    found.write("run", metric="val_map", epochs=3)
    for name in ("t0000", "t0001"):
        conftest.introduce(found, name, **{"optim.epochs": 3})
    found.write("start", trial_id="t0000")
    yield found
    found.close()


def wait_for(holds):
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_driver_sees_what_running_trials_send_and_leaves_nothing(store, events, tmp_path):
    write_progress(tmp_path, {"t0000": Reached(0, 1, 0.9)})  # of a driver that was killed
    record = (tmp_path / "events.jsonl").read_bytes()
    with ProgressFollower(tmp_path, events.record) as follower:
        assert read_progress(tmp_path) == {}
        for name in ("t0000", "t0001"):
            sender(follower.place, name)(Reached(0, 1, 0.25))
        sender("another search", "t0000")(Reached(0, 1, 0.5))
        wait_for(lambda: read_progress(tmp_path))
        assert follower.reached == read_progress(tmp_path) == {"t0000": Reached(0, 1, 0.25)}
        assert (tmp_path / "events.jsonl").read_bytes() == record
        events.write("end", trial_id="t0000", status="finished", reason=None)
        wait_for(lambda: not follower.reached)
    assert not (tmp_path / PROGRESS_FILE).exists()
    assert list(store) == ["another search/t0000"]


def test_a_store_that_fails_ends_neither_trial_nor_search(monkeypatch, events, tmp_path):
    def fail(*_, **__):
        raise ray.exceptions.RpcError("the head does not answer")

    functions = SimpleNamespace(_internal_kv_put=fail, _internal_kv_get=fail, _internal_kv_del=fail)
    monkeypatch.setattr(progress, "_store", lambda: functions)
    sender("place", "t0000")(Reached(0, 1, 0.5))
    follower = ProgressFollower(tmp_path, events.record)
    follower._look()
    assert follower.reached == {}
