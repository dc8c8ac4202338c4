"""Optuna's memory of a run: across crashes, a full disk, and a space that was widened."""

import errno

import optuna
import pytest
from optuna.trial import TrialState

from conftest import introduce, report
from digits_core.config import TrainConfig
from digits_core.errors import RunError
from results.record import EventWriter, RunRecord, TrialRecord
from search.sampler import TRIAL_ATTR
from search.settings import Plan, SearchSettings, make_plan
from search.study import STUDY_FILE, Journal, close_strays, open_study, open_trial, state_of
from spaces.registry import Space


def plan_of(suggest):
    whole = make_plan(SearchSettings(space="lr_schedules"))
    return Plan(Space(name="s", summary="", suggest=suggest), whole.base, 9, [])


def narrow(trial):
    return {
        "optim.lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True),
        "optim.batch_size": trial.suggest_categorical("batch", [4, 8]),
    }


def opened(folder, suggest, drivers=1, **more):
    settings = SearchSettings(space="s", name="r", sampler="random")
    return open_study(folder, settings, plan_of(suggest), drivers=drivers, **more)


@pytest.fixture
def told(tmp_path):
    """A study of three finished trials and one under way."""
    study = opened(tmp_path, narrow)
    for number in range(4):
        trial = study.ask()
        trial.set_user_attr(TRIAL_ATTR, f"t{number:04d}")
        narrow(trial)
        trial.report(0.1 * number, 1)
        if number < 3:
            study.tell(trial, 0.1 * number)
    return tmp_path


def test_a_line_cut_short_is_cut_off_and_one_inside_is_named(told):
    path = told / STUDY_FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":6,"wor')
    study = opened(told, narrow, drivers=2)
    assert len(study.trials) == 4
    study.ask()  # what is appended stands on a line of its own
    assert len(opened(told, narrow, drivers=3).trials) == 5
    path.write_bytes(b"hello\n" + whole)
    with pytest.raises(RunError, match=r"study\.journal is damaged \(line 1: "):
        opened(told, narrow)


@pytest.fixture
def recorded(tmp_path):
    """A run whose record and study know the same: one trial of every end, and one under way."""
    folder = tmp_path / "r"
    folder.mkdir()
    events, study = EventWriter(folder, "r"), opened(folder, narrow)
    events.write("run", metric="val_map", trials=9, resumed=False)
    introduce(events, "t0000")  # a baseline, of which Optuna knows nothing
    events.write("report", trial_id="t0000", **report(1, 0.9))
    events.write("end", trial_id="t0000", status="finished", reason=None)
    for number, status in enumerate(("finished", "stopped", "diverged", "screened", None), start=1):
        trial, name = study.ask(), f"t{number:04d}"
        trial.set_user_attr(TRIAL_ATTR, name)
        config = TrainConfig.from_flat(narrow(trial) | {"optim.epochs": 2})
        facts = {"config": config.to_flat(), "config_hash": f"{number}", "seed": 0, "baseline": None, "role": "search"}
        events.write("trial", trial_id=name, space="s", params=dict(trial.params), optuna_number=trial.number, **facts)
        for epoch in range(1, {"finished": 2, "screened": 0}.get(status, 1) + 1):
            events.write("report", trial_id=name, **report(epoch, 0.1 * number + 0.01 * epoch))
            trial.report(0.1 * number + 0.01 * epoch, epoch)
        if status is not None:
            events.write("end", trial_id=name, status=status, reason=None)
            state = state_of(events.record.trials[name])
            study.tell(trial, 0.1 + 0.01 * 2 if state == TrialState.COMPLETE else None, state=state)
    events.close()
    return folder, events.record


def what_is_told(study):
    return [
        (one.params, one.state, one.value, one.intermediate_values, one.user_attrs)
        for one in study.get_trials(deepcopy=False)
    ]


@pytest.mark.parametrize("damage", ["a byte", "no JSON", "another JSON", "nothing", "gone", "NULs"])
def test_a_journal_that_is_damaged_or_gone_is_made_anew_from_the_record(recorded, damage):
    folder, record = recorded
    path = folder / STUDY_FILE
    before, whole = what_is_told(opened(folder, narrow)), path.read_bytes()
    path.write_bytes(
        {
            "a byte": whole[:200] + b"\xff" + whole[201:],
            "no JSON": b"hello\n" + whole,
            "another JSON": b'{"op_code": "x"}\n' + whole,
            "nothing": b"",
            "gone": b"",
            "NULs": whole[:100] + bytes(300) + whole[400:],
        }[damage]
    )
    if damage == "gone":
        path.unlink()
    broken = path.read_bytes() if path.exists() else None
    said = []
    study = opened(folder, narrow, record=record, say=said.append)
    assert what_is_told(study) == before
    assert open_trial(study, "t0005") is not None
    kept = folder / f"{STUDY_FILE}.damaged-1"
    if broken:
        assert kept.read_bytes() == broken
        assert f"{path} is damaged (" in said[0]
        assert f"it is made anew from events.jsonl, and the old one is {kept}" in said[0]
    else:
        assert not kept.exists()
        assert said == [f"{path} lacks the trials of events.jsonl: it is made anew from there"]
    study.ask()
    assert len(what_is_told(opened(folder, narrow, record=record, say=said.append))) == len(before) + 1
    assert len(said) == 1
    assert list(folder.glob(".*.half")) == []


def test_a_journal_made_anew_leaves_out_what_the_space_no_longer_holds(recorded):
    folder, record = recorded
    (folder / STUDY_FILE).write_bytes(b"hello\n")

    def other(trial):
        return {"optim.batch_size": trial.suggest_categorical("batch", [4, 8, 16])}

    study = opened(folder, other, record=record)
    assert all(set(one.params) == {"batch"} for one in study.get_trials(deepcopy=False))
    assert all(one.distributions["batch"].choices == (4, 8, 16) for one in study.get_trials(deepcopy=False))


def test_the_open_trial_is_found_by_its_name_and_strays_are_closed(told):
    study = opened(told, narrow, drivers=2)
    assert open_trial(study, "t0003").number == 3
    assert open_trial(study, "t0001") is None  # it has ended
    study.ask()  # drawn by a driver that was killed before it wrote anything down
    study.enqueue_trial({"lr": 5e-4, "batch": 4})
    record = RunRecord("r")
    mine = TrialRecord("t0003", "s", None, {"optim.epochs": 1}, "x", 0, {}, 3)
    record.trials["t0003"] = mine
    close_strays(study, record)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    assert states[3:] == [TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]
    mine.status, mine.epochs = "finished", {1: {"epoch": 1, "val_map": 0.7}}
    close_strays(study, record)  # the driver was killed after it had written down the end
    assert (study.trials[3].state, study.trials[3].value) == (TrialState.COMPLETE, 0.7)


def test_a_wider_range_goes_on_with_the_study(told):
    def wider(trial):
        return narrow(trial) if trial.number < 0 else {"optim.lr": trial.suggest_float("lr", 1e-5, 1e-2, log=True)}

    study = opened(told, wider, drivers=2)
    assert study.study_name == "r"
    assert len(study.trials) == 4


def test_other_choices_begin_a_study_with_what_the_old_one_knows(told):
    def wider(trial):
        return {
            "optim.lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True),
            "optim.batch_size": trial.suggest_categorical("batch", [4, 8, 16]),
        }

    study = opened(told, wider, drivers=2)
    assert study.study_name == "r-2"
    assert [trial.value for trial in study.trials[:3]] == pytest.approx([0.0, 0.1, 0.2])
    assert open_trial(study, "t0003") is not None  # what is under way is told to the new one
    assert all(trial.distributions["batch"].choices == (4, 8, 16) for trial in study.trials)
    wider(study.ask())
    again = opened(told, wider, drivers=3)
    assert (again.study_name, len(again.trials)) == ("r-2", 5)


def test_a_study_half_copied_is_begun_anew(told):
    def wider(trial):
        return {"optim.batch_size": trial.suggest_categorical("batch", [4, 8, 16])}

    half = opened(told, narrow)
    optuna.create_study(study_name="r-2", storage=half._storage, direction="maximize")  # and then it was killed
    study = opened(told, wider, drivers=3)
    assert (study.study_name, len(study.trials)) == ("r-3", 4)


def test_a_full_disk_leaves_whole_lines_and_is_tried_again_once_there_is_room(tmp_path, monkeypatch):
    made = []
    journal = Journal(tmp_path / "j", lambda: made.append(True))
    journal.append_logs([{"a": 1}])
    append = optuna.storages.journal.JournalFileBackend.append_logs

    def full(self, logs):
        if not made:
            with (tmp_path / "j").open("ab") as file:
                file.write(b'{"half')
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, logs)

    monkeypatch.setattr(optuna.storages.journal.JournalFileBackend, "append_logs", full)
    journal.append_logs([{"b": 2}])
    assert made == [True]
    assert (tmp_path / "j").read_text() == '{"a":1}\n{"b":2}\n'
