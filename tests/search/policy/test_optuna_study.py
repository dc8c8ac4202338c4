"""The Optuna study made from a record, and study.journal, its file."""

import errno

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from proposing import Told
from search.policy.optuna_study import STUDY_FILE, TRIAL_ATTR, StudyView, distributions_of, study_of
from spaces.catalogue import SPACES
from spaces.registry import Space, quiet_study

LR = SPACES["lr_schedules"]


def known(told, space=LR):
    return study_of(told.record, space, quiet_study(optuna.samplers.RandomSampler(seed=0))).trials


def shown(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY_FILE)))
    [study] = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=study.study_name, storage=storage).trials


@pytest.fixture
def told():
    """Four baselines and six drawn trials: stopped, finished, failed, ended early, running, not begun."""
    found = Told(LR, 12)
    names = [found.suggest()["trial_id"] for _ in range(10)][4:]
    found.train(names[0], 0.1, 0.3, 0.2, status="stopped")
    found.train(names[1], 0.2, 0.6, 0.5, 0.4)
    found.train(names[2], 0.1, status="failed")
    found.train(names[3], 0.35, 0.3, status="finished")
    found.train(names[4], 0.25, status=None)
    return found


def test_optuna_is_told_complete_pruned_failed_and_running_as_it_was(told):
    stopped, finished, failed, early, running, begun = known(told)
    assert stopped.state == TrialState.PRUNED
    assert stopped.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.6)  # its best was before the end
    assert failed.state == TrialState.FAIL
    assert (early.state, early.value) == (TrialState.COMPLETE, 0.35)
    assert (running.state, running.intermediate_values) == (TrialState.RUNNING, {1: 0.25})
    assert begun.state == TrialState.RUNNING
    drawn = [trial for trial in told.trials if trial.baseline is None]
    assert [trial.params for trial in known(told)] == [trial.params for trial in drawn]


def test_the_journal_shows_what_optuna_knows_while_a_run_grows(told, tmp_path):
    view = StudyView(tmp_path, LR)

    def same():
        view.follow(told.record)
        mine, other = shown(tmp_path), known(told)
        keys = [one.user_attrs[TRIAL_ATTR] for one in mine]
        assert sorted(keys) == sorted(one.user_attrs[TRIAL_ATTR] for one in other)
        for one in other:
            twin = mine[keys.index(one.user_attrs[TRIAL_ATTR])]
            assert (twin.state, twin.params, twin.intermediate_values, twin.values) == (
                one.state, one.params, one.intermediate_values, one.values,
            )  # fmt: skip

    same()
    lines = (tmp_path / STUDY_FILE).read_bytes()
    told.tell("report", trial_id=told.trials[8].trial_id, **{"epoch": 2, "val_map": 0.5, "early_stopped": False})
    same()
    assert (tmp_path / STUDY_FILE).read_bytes().startswith(lines)  # appended to, not written again
    told.tell("end", trial_id=told.trials[8].trial_id, status="stopped", reason="asha")
    told.suggest()
    same()
    ended = told.trials[5]  # the run is made longer: a trial that had ended goes on
    told.tell("longer", trial_id=ended.trial_id, config=ended.config | {"optim.epochs": 9}, config_hash="x")
    same()
    (tmp_path / STUDY_FILE).write_bytes(b"damaged")
    view = StudyView(tmp_path, LR)  # another driver writes it again
    same()


def test_a_full_disk_leaves_the_journal_to_the_next_time(told, tmp_path, monkeypatch):
    view = StudyView(tmp_path, LR)
    view.follow(told.record)
    append = JournalFileBackend.append_logs

    def full(self, logs):
        raise OSError(errno.ENOSPC, "No space left on device")

    told.suggest()
    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(OSError, match="No space left"):
        view.follow(told.record)
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    view.follow(told.record)
    assert len(shown(tmp_path)) == 7


def space_of(suggest):
    return Space(name="s", summary="", suggest=suggest)


def test_a_run_that_goes_on_with_another_space_keeps_what_both_have_in_common():
    def wider(trial):
        return {
            "optim.lr": trial.suggest_float("lr", 1e-5, 1e-2, log=True),
            "optim.batch_size": trial.suggest_categorical("batch", [4, 8, 16]),
            "optim.weight_decay": trial.suggest_float("decay", 1e-5, 1e-3),
        }

    found = distributions_of({"lr": 1e-3, "batch": 8}, space_of(wider))
    assert sorted(found) == ["batch", "lr"]
    assert found["batch"].choices == (4, 8, 16)
    assert sorted(distributions_of({"lr": 0.5, "batch": 8}, space_of(wider))) == ["batch"]  # out of the range
    assert sorted(distributions_of({"lr": 1e-3, "batch": 32}, space_of(wider))) == ["lr"]  # no choice any more
    assert distributions_of({"other": 1}, space_of(wider)) == {}


def test_what_is_known_follows_the_space_that_a_run_goes_on_with(told):
    def rates_only(trial):
        return {"optim.lr": trial.suggest_float("lr", 1e-6, 1.0, log=True)}

    before = known(told)
    now = known(told, space_of(rates_only))
    assert {name for trial in now for name in trial.params} == {"lr"}
    assert {name for trial in before for name in trial.params} > {"lr"}
    assert [trial.params for trial in known(told)] == [trial.params for trial in before]
