"""The record of a trial whose checkpoints were lost or damaged, and the files kept from its best epoch."""

from types import SimpleNamespace

import pytest
import torch

import conftest
from digits_core.config.train_config import TrainConfig
from digits_core.files import BEST_FOLDER, MODEL_FILE, STATE_FILE, TRAINING_FILE, file_digest
from digits_core.model.checkpoint import load_tensors, save_model, save_training
from digits_core.model.checkpoint_state import TrainingState
from results.record.log import EventWriter, read_record
from search.policy.decisions import Close, Policy, is_open
from search.policy.faults import change_to_retry
from search.policy.plan import Plan
from search.storage.storage import Storage
from search.tune.recorder import Recorder
from spaces.catalogue import SPACES

TRIAL = SimpleNamespace(config={"trial_id": "t0000"}, error_file=None)


class Search:
    """A driver's record of one trial of three epochs; `train` adds an epoch, `again` starts another driver."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.open()
        conftest.introduce(self.events, "t0000", **{"optim.epochs": 3})

    def open(self):
        self.events = EventWriter(self.folder, "run")
        self.record = self.events.record
        self.events.write("run", metric="val_map", trials=1, resumed=False)
        self.said = []
        base = TrainConfig.from_flat({"optim.epochs": 3})
        self.policy = Policy(Plan(SPACES["lr_schedules"], base, 1, max_failures=2))
        self.recorder = Recorder(
            self.events,
            Storage(self.folder),
            self.policy,
            keep=1,
            watcher=lambda record, name: self.said.append(record.trials[name].stop_reason),
        )

    def again(self):
        self.events.close()
        self.open()
        self.recorder.check_saved()
        action = self.policy.next_action(self.record)
        if isinstance(action, Close):
            self.recorder.settle(action.trial_id)

    def start(self):
        self.recorder.on_trial_start(0, [], TRIAL)

    def train(self, epoch, value, *, number, best=None, save=True):
        """Report an epoch and store its checkpoint in folder `number`; `best` is the epoch of its best model."""
        best = best or epoch
        checkpoint = self.folder / "tune" / "001" / "t0000" / f"checkpoint_{number:06d}"
        for of, folder in ((epoch, checkpoint), (best, checkpoint / BEST_FOLDER)):
            model = torch.nn.Linear(2, 1)
            torch.nn.init.constant_(model.weight, float(of))
            torch.nn.init.constant_(model.bias, 0.0)
            save_model(folder, model, TrainConfig())
        state = TrainingState(epoch=epoch, step=epoch, best_epoch=best, best_value=value)
        save_training(checkpoint, model, torch.optim.SGD(model.parameters(), lr=0.1), state)
        weights = file_digest(checkpoint / MODEL_FILE)
        self.recorder.on_trial_result(0, [], TRIAL, conftest.report(epoch, value, weights=weights))
        if save:
            self.recorder.on_checkpoint(0, [], TRIAL, SimpleNamespace(path=str(checkpoint)))
        return checkpoint

    @property
    def trial(self):
        return self.record.trials["t0000"]


@pytest.fixture
def search(tmp_path):
    found = Search(tmp_path / "run")
    yield found
    found.events.close()


def test_a_trial_trained_again_from_the_start_is_not_finished_by_what_it_had_reported_before(search):
    """It lost its checkpoint in a power cut and was killed again after the first epoch of the second training."""
    search.start()
    for epoch in (1, 2, 3):
        search.train(epoch, 0.1 * epoch, number=epoch, save=False)
    search.start()
    search.train(1, 0.1, number=1)
    search.again()
    assert is_open(search.trial)
    assert not search.trial.done
    assert (search.trial.num_epochs, search.trial.saved_epoch) == (1, 1)
    assert search.trial.best("val_map")["epoch"] == 1
    search.start()
    search.train(2, 0.2, number=2)
    search.train(3, 0.15, number=3, best=2)
    search.recorder.on_trial_complete(0, [], TRIAL)
    assert search.trial.status == "finished"
    assert float(load_tensors(search.folder / search.trial.checkpoint)["weight"][0, 0]) == 2.0


def test_a_checkpoint_is_of_the_epoch_that_its_own_state_says(search):
    search.start()
    search.train(1, 0.1, number=1)
    second = search.train(2, 0.2, number=2, save=False)
    search.train(3, 0.3, number=3, save=False)
    search.recorder.on_checkpoint(0, [], TRIAL, SimpleNamespace(path=str(second)))
    assert search.trial.saved_epoch == 2
    assert not search.trial.done


@pytest.mark.parametrize("file", [STATE_FILE, TRAINING_FILE, MODEL_FILE, f"{BEST_FOLDER}/{MODEL_FILE}", ""])
def test_a_damaged_last_checkpoint_is_trained_again_and_the_record_says_so(search, file):
    search.start()
    for epoch in (1, 2, 3):
        last = search.train(epoch, 0.1 * epoch, number=epoch)
    if file:
        (last / file).write_bytes((last / file).read_bytes()[:7])
    else:
        last.rename(last.with_name("gone"))
    search.again()
    assert is_open(search.trial)
    assert not search.trial.done
    assert search.trial.saved is None
    assert search.said[-1] == "its last checkpoint is damaged or missing; it trains again from the start"
    search.start()
    for epoch in (1, 2, 3):
        search.train(epoch, 0.1 * epoch, number=10 + epoch)
    search.recorder.on_trial_complete(0, [], TRIAL)
    assert search.trial.status == "finished"
    assert read_record(search.folder, "run").trials["t0000"].checkpoint is not None


def test_a_damaged_checkpoint_takes_the_place_of_no_whole_one(search):
    search.start()
    search.train(1, 0.1, number=1)
    torn = search.train(2, 0.2, number=2, save=False)
    (torn / STATE_FILE).write_text("{")
    search.recorder.on_checkpoint(0, [], TRIAL, SimpleNamespace(path=str(torn)))
    assert search.trial.saved_epoch == 1
    assert (search.folder / search.trial.saved).is_dir()


def test_a_trial_whose_last_checkpoint_is_damaged_goes_on_from_the_last_whole_one(search):
    search.start()
    search.train(1, 0.1, number=1)
    first = search.trial.saved
    torn = search.train(2, 0.2, number=2, save=False)
    search.events.write("checkpoint", trial_id="t0000", path="tune/001/t0000/checkpoint_000002", epoch=2)
    (torn / MODEL_FILE).write_bytes(b"")
    search.again()
    assert (search.trial.saved, search.trial.saved_epoch) == (first, 1)
    assert search.said[-1] == "its last checkpoint is damaged or missing; it trains again after epoch 1"


def test_a_model_of_another_epoch_than_the_best_is_not_kept(search):
    search.start()
    for epoch in (1, 2):
        search.train(epoch, 0.1 * epoch, number=epoch)
    search.train(3, 0.05, number=3, best=1)  # carries epoch 1, the record says 2
    search.recorder.on_trial_complete(0, [], TRIAL)
    assert search.trial.checkpoint is None
    assert search.trial.status == "interrupted"
    assert "contains the model of another epoch than the best" in search.trial.stop_reason


def test_a_damaged_checkpoint_is_no_fault_of_the_trial(search):
    search.start()
    search.train(1, 0.1, number=1)
    search.recorder._train_again("t0000", "is damaged or missing")
    from search.policy.faults import Fault

    assert change_to_retry(search.trial, Fault("worker_died", "its process died"), max_failures=1) == {}
