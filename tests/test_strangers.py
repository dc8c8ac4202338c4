"""A run folder from somebody else makes no command write or delete outside of it."""

import json
import os

import pytest

from digits_core.errors import RunError
from results import plots, runs
from results.record.folder import read_record_of
from results.record.log import EventWriter
from results.record.trial import TrialRecord
from search import retrain, run
from search.models.trainer import run_trainer
from search.storage.storage import Storage
from searched import Searched


@pytest.fixture
def home(tmp_path):
    """A folder with files that no run may touch."""
    folder = tmp_path / "home"
    (folder / "001" / "t0000" / "checkpoint_000000").mkdir(parents=True)
    (folder / "token").write_text("secret, without an end of line")
    (folder / "001" / "t0000" / "checkpoint_000000" / "weights").write_text("precious")
    return folder


@pytest.fixture
def stranger(tmp_path):
    made = Searched(tmp_path / "runs" / "r")
    made.trial("t0000", 0.8)
    return made.done()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def command(main, *arguments):
    try:
        return main([str(one) for one in arguments])
    except SystemExit as error:
        return error.code


LINKS = {
    ".lock": "token",
    ".reserve": "token",
    "events.jsonl": "token",
    "study.journal": "token",
    "ray.log": "token",
    "tune": ".",
    "checkpoints": "001",
    "logs": ".",
    "plots": ".",
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_a_run_folder_is_refused_before_anything_is_written(name, stranger, home, capsys):
    path = stranger / name
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.symlink_to(home / LINKS[name])
    (stranger / "run.json").write_text(json.dumps({"settings": {"space": "anchors", "data": {}}}))
    before = contents(home)
    for main, arguments in (
        (run.main, ["--resume", "r", "--out", stranger.parent]),
        (retrain.main, [stranger]),
        (plots.main, [stranger]),
        (runs.main, [stranger.parent, "--remove", "r", "--yes"] if name == ".lock" else [stranger.parent]),
    ):
        code = command(main, *arguments)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        if main is not runs.main or name == ".lock":
            assert code == 2
            assert name in error or "damaged" in error, error
    assert contents(home) == before


def test_a_link_that_stays_inside_is_fine(stranger):
    (stranger / "again").symlink_to(stranger / "matches")
    EventWriter(stranger, "r").close()
    retrain.choose_trial(read_record_of(stranger), stranger, "best")


def test_a_checkpoint_that_a_record_names_is_deleted_in_its_own_place_alone(tmp_path, home):
    storage = tmp_path / "storage"
    (storage / "r").mkdir(parents=True)
    one = Storage(tmp_path / "runs" / "r", str(storage))
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "events.jsonl").write_text("")
    trial = TrialRecord("t0", "s", None, {"optim.epochs": 1}, "x", 0, {})
    for name in ("../../home", str(home), "tune/../../../home"):
        trial.saved = name
        assert one.saved(trial) is None
        assert not one.exists(name, ask=True)
        with one.local_copy(name) as found:
            assert found is None
        one.delete(name)
    before = contents(home)
    one.copy()
    assert contents(home) == before


@pytest.mark.parametrize("name", ["../../../../../home", "{home}", "..", "a/../b"])
def test_a_retraining_that_was_begun_elsewhere_deletes_nothing_outside(name, stranger, home):
    state = stranger / "retrain" / "t0000-r1"
    (state / "tune").mkdir(parents=True)
    one = {"version": 0, "checkpoint_dir_name": name.format(home=home), "metrics": {}}
    (state / "tune" / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": [one]}))
    with pytest.raises(RunError, match="names a checkpoint outside"):
        run_trainer(state, None, None, None, {}, metric="val_map")


def test_a_file_that_is_no_file_is_refused(stranger, capsys):
    (stranger / "run.json").unlink(missing_ok=True)
    os.mkfifo(stranger / "run.json")
    assert command(run.main, "--status", stranger) == 2
    assert "run.json" in capsys.readouterr().err
