"""The state of a search, printed by another process."""

import json

import pytest

import conftest
from digits_core.data.cache import open_data
from results.record.lock import lock_run, unlock_run
from results.record.log import EventWriter
from search import run
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import data_source
from search.monitor.epoch_progress import Reached, write_progress
from search.monitor.summary import this_program
from searched import Searched, strict_json


@pytest.fixture
def folder(tmp_path, tiny_folder):
    """A search of three trials that ended after two: one finished, one failed."""
    made = Searched(tmp_path / "runs" / "r", epochs=2)
    made.trial("t0000", 0.8, baseline="default")
    made.trial("t0001", 0.8, status="failed", **{"optim.lr": 0.002})
    made.done()
    settings = SearchSettings(
        space="lr_schedules",
        data=data_source(str(tiny_folder)),
        out=str(tmp_path / "runs"),
        name="r",
        trials=3,
        epochs=2,
    )
    about = describe_run(settings, make_plan(settings), open_data(settings.data), None)
    (made.folder / "run.json").write_text(json.dumps(about))
    return made.folder


def test_json_has_the_state_and_every_trial(folder, capsys):
    assert run.main(["--status", str(folder), "--json"]) == 0
    found = strict_json(capsys.readouterr().out)
    assert (found["run"], found["running"], found["writer"], found["best"]) == ("r", False, None, "t0000")
    assert (found["trials_expected"], found["trials_ended"]) == (3, 2)
    assert found["resume"].startswith(f"{this_program()} resume r --out ")
    first, second = found["trials"]
    assert first["score"] == found["best_score"] > 0
    assert (first["status"], first["epochs"], first["epochs_expected"]) == ("finished", 2, 2)
    assert (second["status"], second["score"]) == ("failed", None)


def test_the_text_says_the_same(folder, capsys):
    assert run.main(["--status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert ": not running" in out
    assert "2 of 3 trials ended" in out
    assert "resume with " in out
    assert " default " in out
    assert "default (default)" not in out


def test_json_without_status_is_one_sentence(capsys):
    assert run.main(["--space", "anchors", "--json"]) == 2
    assert (
        capsys.readouterr().err
        == "search.run: --json: has an effect only together with --status, --list-spaces or --list-parameters\n"
    )


def test_status_shows_the_part_of_the_epoch_only_while_the_search_runs(folder, capsys):
    events = EventWriter(folder, "r")
    conftest.introduce(events, "t0002", **{"optim.epochs": 2})
    events.write("start", trial_id="t0002")
    events.close()
    write_progress(folder, {"t0002": Reached(0, 1, 0.43)})

    def said(*flags):
        assert run.main(["--status", str(folder), *flags]) == 0
        return capsys.readouterr().out

    def share():
        return {one["trial_id"]: one["epoch_share"] for one in strict_json(said("--json"))["trials"]}

    lock = lock_run(folder)
    assert "epoch 1/2, 43 %" in said()
    assert share() == {"t0000": None, "t0001": None, "t0002": 0.43}
    unlock_run(lock)
    assert "43 %" not in said()  # the file of a driver that was killed
    assert set(share().values()) == {None}
