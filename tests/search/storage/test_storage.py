"""Checkpoints and the copy of a run folder in a store with faults, and data fetched from one."""

import os
import pickle
import socket
import time
from pathlib import Path

import pytest

from conftest import environment, introduce, report
from digits_core.data.cache import brought_here, open_data
from digits_core.data.remote import _file_system, open_place
from digits_core.data.source import DataSource
from digits_core.errors import RunError, UsageError
from results import repair
from results.record.lock import driver_at_work
from results.record.log import EventWriter, read_record
from search.storage.run_copy import Copier
from search.storage.storage import Storage, StorageError, fetch_checkpoint, store_checkpoint
from store_server import KEYS, store


@pytest.fixture(scope="module")
def served():
    with environment(**KEYS), store() as found:
        yield found


@pytest.fixture
def flaky(served, monkeypatch):
    """The store with faults; attempts follow each other fast, and there are enough of them to succeed."""
    app, _, _ = served
    monkeypatch.setattr("digits_core.data.remote.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("digits_core.data.remote.PAUSE_GROWTH", 1.1)
    monkeypatch.setattr("digits_core.data.remote.ATTEMPTS", 1)  # pyarrow's own pauses are seconds
    _file_system.cache_clear()
    app.failing = 0.25
    yield served
    app.failing = app.slow_s = 0.0
    _file_system.cache_clear()


def names(client, folder):
    found = client.list_objects_v2(Bucket="digits", Prefix=f"runs/{folder}/").get("Contents", [])
    keys = {one["Key"].removeprefix(f"runs/{folder}/") for one in found}
    return {key for key in keys if key and not key.endswith("/")}  # pyarrow leaves marks of folders


def begun(folder):
    folder.mkdir(parents=True)
    events = EventWriter(folder, folder.name)
    events.write("run", metric="val_map", trials=2, resumed=False)
    introduce(events, "t0000")
    events.write("report", trial_id="t0000", **report(1, 0.3))
    (folder / "run.json").write_text("{}")
    (folder / "tune").mkdir()
    (folder / "tune" / "big").write_bytes(b"x")
    return events


def test_a_run_folder_is_copied_followed_and_brought_back_through_faults(flaky, tmp_path):
    app, address, client = flaky
    folder = tmp_path / "here" / "demo"
    storage = Storage(folder, address)
    storage.check_access(resume=False)
    events = begun(folder)
    (folder / "checkpoints" / "t0000").mkdir(parents=True)
    (folder / "checkpoints" / "t0000" / "model.safetensors").write_bytes(os.urandom(300_000))
    storage.copy()
    assert names(client, "demo") == {"driver.json", "events.jsonl", "run.json", "checkpoints/t0000/model.safetensors"}
    (folder / "checkpoints" / "t0000" / "model.safetensors").unlink()
    events.write("report", trial_id="t0000", **report(2, 0.4))
    events.close()
    storage.copy()
    storage.release()
    assert names(client, "demo") == {"events.jsonl", "run.json"}
    storage.copy()
    storage.release()
    app.failing = 0.0
    sent = app.sent
    storage.copy()
    assert app.sent - sent == 1  # nothing has changed but the driver's sign of life
    with pytest.raises(UsageError, match="demo already exists there"):
        Storage(folder, address).check_access(resume=False)

    again = tmp_path / "there" / "demo"
    with pytest.raises(RunError, match=r"process \d+ on .* runs the search demo"):
        Storage(again, address).fetch_run()
    assert not again.exists()
    storage.release()
    Storage(again, address).fetch_run()
    assert read_record(again, "demo").trials["t0000"].num_epochs == 2
    assert not (again / "tune").exists()
    assert app.refused
    with pytest.raises(UsageError, match="contains no run other"):
        Storage(tmp_path / "there" / "other", address).fetch_run()
    assert not (tmp_path / "there" / "other").exists()


def test_a_checkpoint_is_found_on_another_node_and_goes_when_dropped(flaky, tmp_path):
    _, address, client = flaky
    storage = Storage(tmp_path / "demo2", address)
    saved = "tune/001/t0000/checkpoint_000001"
    checkpoint = tmp_path / "checkpoint"
    (checkpoint / "best").mkdir(parents=True)
    for number in range(12):
        (checkpoint / f"{number}.json").write_text("{}" * number)
    (checkpoint / "best" / "model.safetensors").write_bytes(b"12345")
    for _ in range(5):  # pyarrow's own copy of folders loses a file of most of these on the way
        store_checkpoint(pickle.loads(pickle.dumps(storage.reference(saved))), checkpoint)
        sizes = {key: len(client.get_object(Bucket="digits", Key=f"runs/demo2/{saved}/{key}")["Body"].read())
                 for key in names(client, f"demo2/{saved}")}  # fmt: skip
        assert sizes == {"best/model.safetensors": 5, **{f"{number}.json": 2 * number for number in range(12)}}
    found = fetch_checkpoint(pickle.loads(pickle.dumps(storage.reference(saved))), tmp_path / "worker")
    assert (found / "best" / "model.safetensors").read_bytes() == b"12345"
    with storage.local_copy(f"{saved}/best") as best:
        assert [one.name for one in best.iterdir()] == ["model.safetensors"]
    storage.delete(saved)
    assert storage.exists(saved, ask=True)  # the copy of the record still names it
    begun(tmp_path / "demo2").close()
    storage.copy()
    assert not storage.exists(saved, ask=True)
    assert fetch_checkpoint(storage.reference(saved), tmp_path / "gone") is None
    with storage.local_copy(f"{saved}/best") as best:
        assert best is None


def test_an_outage_is_said_once_and_trials_wait_until_it_is_over(served, tmp_path, monkeypatch):
    app, address, client = served
    monkeypatch.setattr("search.storage.run_copy.COPY_SECONDS", 0.1)
    monkeypatch.setattr("digits_core.data.remote.PATIENCE_S", 0.5)
    begun(tmp_path / "demo3").close()
    said = []
    copier = Copier(Storage(tmp_path / "demo3", address), said.append)
    app.failing = 1.0
    assert not copier._copy()
    assert not copier._copy()
    assert copier.fault
    assert [text.startswith(f"--storage {address}: the run folder cannot be copied") for text in said] == [True]
    app.failing = 0.0
    with copier:
        pass
    assert copier.fault is None
    assert said[1:] == ["--storage works again: the run folder is copied"]
    assert "events.jsonl" in names(client, "demo3")
    app.failing = 1.0
    with pytest.raises(StorageError):
        Storage(tmp_path / "demo3", address).exists("tune", ask=True)
    app.failing = 0.0


def test_credentials_travel_neither_in_pickles_nor_in_addresses(served):
    _, address, _ = served
    filesystem, path = open_place(address, "--storage")
    assert path == "digits/runs"
    filesystem.get_file_info(path)  # it has logged in
    for secret in KEYS["AWS_SECRET_ACCESS_KEY"], KEYS["AWS_ACCESS_KEY_ID"]:
        assert secret.encode() not in pickle.dumps(filesystem)
    for bad in (
        "s3://me:pass@digits/runs",
        "s3://digits/runs?access_key=me&secret_key=pass",
        "s3://digits/runs?Secret=pass",
    ):
        with pytest.raises(UsageError, match="contains credentials") as caught:
            open_place(bad, "--storage")
        assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://host/runs", "must begin with one of s3, "),
        ("s3://", "the address must be s3://BUCKET/FOLDER"),
        ("s3://digits/runs?retries=5", "the address must be s3://BUCKET/FOLDER"),
        ("s3://[digits/runs", "Invalid IPv6 URL"),
        ("gs://bucket/runs?foo=1", "--storage gs://bucket/runs: "),
        ("file://host/runs", "--storage file://host/runs: "),
    ],
)
def test_an_address_of_another_form_is_one_sentence(address, said, tmp_path):
    with pytest.raises(UsageError) as caught:
        Storage(tmp_path / "run", address)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_one_sentence(served, tmp_path):
    _, address, _ = served
    with pytest.raises(UsageError, match=r"--storage s3://nowhere/runs.*: cannot be used"):
        Storage(tmp_path / "run", address.replace("digits", "nowhere")).check_access(resume=False)


def test_data_is_fetched_once_and_again_when_it_changes(flaky, tiny_folder, tiny_data, own_cache):
    app, address, client = flaky
    address = address.replace("/runs", "/data")
    for path in tiny_folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "digits", f"data/{path.relative_to(tiny_folder)}")
    client.put_object(Bucket="digits", Key="data/other/large.bin", Body=b"not of the data set")
    source = DataSource(folder=address)
    data = open_data(source)
    app.failing = 0.0
    assert data.fingerprint == tiny_data.fingerprint  # the same bytes are the same data, wherever they lie
    first = brought_here(source).folder
    assert not (Path(first) / "other").exists()
    asked = app.asked
    assert brought_here(source).folder == first
    assert app.asked - asked < 10  # listed, not fetched
    client.put_object(Bucket="digits", Key="data/train.json", Body=(tiny_folder / "train.json").read_bytes() + b"\n")
    assert brought_here(source).folder != first
    with pytest.raises(UsageError, match=r"contains none of train\.json"):
        brought_here(DataSource(folder=address.replace("/data", "/nothing")))


@pytest.fixture(params=["store", "folder"])
def place(request, served, tmp_path):
    """An address and a shared folder behave in the same way."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    return served[1].replace("/runs", f"/runs-{tmp_path.name}")


def test_what_lies_there_already_is_nobodys_to_delete(place, tmp_path):
    other = Storage(tmp_path / "data", place)
    other._write("train.json", b"a data set")
    with pytest.raises(UsageError, match="data already exists there"):
        Storage(tmp_path / "data", place).check_access(resume=False)
    assert other._read("train.json") == b"a data set"
    mine = Storage(tmp_path / "mine", place)
    mine.check_access(resume=False)
    mine.release()  # nothing has begun
    mine.check_access(resume=False)
    mine.forget()
    assert mine._read("driver.json") is None
    assert other._read("train.json") == b"a data set"


def test_a_run_that_went_on_elsewhere_is_not_overwritten(place, tmp_path):
    events = begun(tmp_path / "a" / "run")
    first = Storage(tmp_path / "a" / "run", place)
    first.check_access(resume=False)
    first.copy()
    with pytest.raises(RunError, match=r"process \d+ on .* runs the search .*; end that search first"):
        Storage(tmp_path / "a" / "run", place).check_access(resume=True)
    first.release()
    Storage(tmp_path / "b" / "run", place).fetch_run()
    second = Storage(tmp_path / "b" / "run", place)
    second.check_access(resume=True)
    there = EventWriter(tmp_path / "b" / "run", "run")
    there.write("report", trial_id="t0000", **report(2, 0.5))
    second.copy()
    with pytest.raises(StorageError, match="another driver has taken over this run"):
        first.copy()
    second.release()
    with pytest.raises(RunError, match="was resumed elsewhere"):
        Storage(tmp_path / "a" / "run", place).check_access(resume=True)
    there.write("report", trial_id="t0000", **report(3, 0.6))
    there.close()
    third = Storage(tmp_path / "b" / "run", place)
    third.check_access(resume=True)  # the copy is behind: it follows
    third.release()
    events.close()
    (tmp_path / "b" / "run").rename(tmp_path / "b" / "moved")
    Storage(tmp_path / "b" / "run", place).fetch_run()
    assert read_record(tmp_path / "b" / "run", "run").trials["t0000"].num_epochs == 2


def test_a_repaired_record_goes_on_over_the_damaged_copy_of_it_and_gives_way_to_a_whole_one(place, tmp_path):
    folder = tmp_path / "a" / "run"
    begun(folder).close()
    path = folder / "events.jsonl"
    whole = path.read_bytes()
    for copied, goes_on in ((whole.replace(b'"report"', b'"re\xffort"'), True), (whole, False)):
        path.write_bytes(copied)
        storage = Storage(folder, place)
        storage.copy()
        storage.release()
        path.write_bytes(whole.replace(b'"report"', b'"re\xffort"'))
        assert repair.main([str(folder), "--write"]) == 0
        if goes_on:
            storage.check_access(resume=True)
            storage.copy()
            storage.release()
            assert storage._read("events.jsonl") == path.read_bytes()
        else:
            with pytest.raises(RunError, match=r"or its record was damaged here; move that folder away"):
                Storage(folder, place).check_access(resume=True)


def test_a_driver_that_is_dead_or_long_unseen_drives_nothing():
    import json
    import subprocess
    import sys

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = f"on {socket.gethostname()}, 1"
    now = time.time()
    for who, seen, expected in (
        (f"process {os.getpid()} {here}", now, f"process {os.getpid()} on {socket.gethostname()}"),
        (f"process {os.getpid()} {here}", now - 61, None),
        (f"process {dead.pid} {here}", now, None),
        ("process 7 on another.example, 1", now, "process 7 on another.example"),
    ):
        assert driver_at_work(json.dumps({"driver": who, "seen": seen}).encode()) == expected
    for nothing in (None, b"", b"[]", b'{"driver": 1}', b"{", b'{"driver": "x", "seen": "y"}'):
        assert driver_at_work(nothing) is None


def test_a_storage_that_does_not_hold_the_run_is_refused(place, tmp_path):
    begun(tmp_path / "run").close()
    with pytest.raises(RunError, match="contains no run run, so its checkpoints are missing"):
        Storage(tmp_path / "run", place).check_access(resume=True)
    assert not (tmp_path / "shared").exists()


def test_the_run_folder_itself_is_no_storage(tmp_path):
    with pytest.raises(UsageError, match="or equal to --out; omit the flag"):
        Storage(tmp_path / "run", str(tmp_path))


def test_checkpoints_that_no_record_names_are_swept(place, tmp_path):
    storage = Storage(tmp_path / "swept", place)
    named, stray = "tune/001/t0000/checkpoint_000003", "tune/001/t0000-start2/checkpoint_000000"
    for name in (named, stray):
        storage._write(f"{name}/state.json", b"{}")
    storage._write("tune/001/t0000/other/file", b"Ray's own")
    storage.delete_unreferenced({named})
    assert storage.exists(named, ask=True)
    assert not storage.exists(stray, ask=True)
    assert storage._read("tune/001/t0000/other/file") == b"Ray's own"
