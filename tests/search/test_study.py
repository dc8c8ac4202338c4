"""Optuna's memory of a run: across crashes, a full disk, and a space that was widened."""

import errno

import optuna
import pytest
from optuna.trial import TrialState

from digits_core.errors import RunError
from results.record import RunRecord, TrialRecord
from search.sampler import TRIAL_ATTR
from search.settings import Plan, SearchSettings, make_plan
from search.study import STUDY_FILE, Journal, close_strays, open_study, open_trial
from spaces.registry import Space


def plan_of(suggest):
    whole = make_plan(SearchSettings(space="lr_schedules"))
    return Plan(Space(name="s", summary="", suggest=suggest), whole.base, 9, [])


def narrow(trial):
    return {
        "optim.lr": trial.suggest_float("lr", 1e-4, 1e-3, log=True),
        "optim.batch_size": trial.suggest_categorical("batch", [4, 8]),
    }


def opened(folder, suggest, drivers=1):
    return open_study(folder, SearchSettings(space="s", name="r", sampler="random"), plan_of(suggest), drivers=drivers)


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
    with pytest.raises(RunError, match=r"study\.journal line 1 is damaged"):
        opened(told, narrow)


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
