"""Tools that follow a search: the calls that they get, and that none of them can block it."""

import sys
import types
from contextvars import ContextVar

import numpy as np
import pytest
from told import told_run

from conftest import introduce, report
from digits_core.errors import UsageError
from results.record.log import EventWriter, read_record
from search.monitor.mlflow import MLflow, check_mlflow
from search.monitor.tensorboard import TensorBoard, predictions_sheet
from search.monitor.trackio import Trackio, check_trackio
from search.monitor.watchers import Watchers


class Broken:
    def update(self, record, trial_id):
        raise ValueError("no more room")

    def close(self, record):
        raise AssertionError("it was left out")


class Listening:
    def __init__(self):
        self.told, self.closed = [], False

    def update(self, record, trial_id):
        self.told.append(trial_id)

    def close(self, record):
        self.closed = True


def test_one_that_fails_is_left_out_with_a_sentence_and_the_others_go_on(run_folder):
    record, said, other = read_record(run_folder, "demo"), [], Listening()
    watchers = Watchers([Broken(), other], said.append)
    watchers.update(record, "t0000")
    watchers.update(record, "t0001")
    watchers.close(record)
    assert said == ["Broken failed (ValueError: no more room); the search continues without it"]
    assert other.told == ["t0000", "t0001"]
    assert other.closed


def scalars(folder, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    known = EventAccumulator(str(folder), size_guidance={"images": 0})
    known.Reload()
    return {one.step: one.value for one in known.Scalars(tag)}, known


def test_tensorboard_opens_scalars_hyperparameters_and_predictions(tmp_path):
    folder = told_run(tmp_path / "runs" / "told", trials=3)
    record = read_record(folder, "told")
    base = record.trials["t0000"].config
    board = TensorBoard(folder, base, "val_map")
    for trial_id in record.trials:
        board.update(record, trial_id)
        board.update(record, trial_id)  # told again, as at an end without news
    board.close(record)
    trial = record.trials["t0001"]
    found, known = scalars(folder / "tensorboard" / "t0001", "val/map")
    assert found == {epoch: pytest.approx(one["val_map"]) for epoch, one in trial.epochs.items()}
    assert "loss/classifier" in known.Tags()["scalars"]
    assert known.Tags()["images"] == ["predictions"]
    from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG

    content = known.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    assert b"optim.lr" in content
    assert known.SummaryMetadata(EXPERIMENT_TAG).plugin_data.plugin_name == "hparams"


def test_a_resumed_search_writes_no_epoch_twice(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    events = EventWriter(folder, "run")
    events.write("run", metric="val_map", trials=1, resumed=False)
    introduce(events, "t0000")
    events.write("report", trial_id="t0000", **report(1, 0.3))
    base = events.record.trials["t0000"].config
    first = TensorBoard(folder, base, "val_map")
    first.update(events.record, "t0000")
    first.close(events.record)
    second = TensorBoard(folder, base, "val_map")
    events.write("start", trial_id="t0000")
    second.update(events.record, "t0000")
    events.write("report", trial_id="t0000", **report(2, 0.4))
    second.update(events.record, "t0000")
    second.close(events.record)
    events.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    known = EventAccumulator(str(folder / "tensorboard" / "t0000"))
    known.Reload()
    assert [one.step for one in known.Scalars("val/map")] == [1, 2]


def test_the_sheet_of_predictions_shows_every_sample(tmp_path):
    folder = told_run(tmp_path / "runs" / "told", trials=3)
    record = read_record(folder, "told")
    sheet = predictions_sheet(folder, record.trials["t0000"])
    assert sheet.shape == (3 * 160, 4 * 160, 3)
    assert sheet.dtype == np.uint8
    assert predictions_sheet(tmp_path, record.trials["t0000"]) is None


def test_mlflow_without_a_server_is_one_sentence_and_no_wait(run_folder, monkeypatch):
    monkeypatch.setattr("search.monitor.tracker.PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record, said = read_record(run_folder, "demo"), []
    mlflow = MLflow("http://127.0.0.1:9", "demo", "anchors", {}, "val_map", said.append)
    for trial_id in record.trials:
        mlflow.update(record, trial_id)
    mlflow.close(record)
    assert len(said) == 1
    assert said[0].startswith("MLflow at http://127.0.0.1:9 failed (")


def test_an_address_that_is_none_is_refused_before_anything_starts():
    with pytest.raises(UsageError, match=r"--mlflow localhost: an address is http://HOST:PORT"):
        check_mlflow("localhost")


def test_mlflow_that_is_not_installed_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"--mlflow needs the package mlflow: pip install 'digit-search\[mlflow\]'"):
        check_mlflow("http://127.0.0.1:5000")


class TrackioRun:
    """A run of the stand-in for trackio."""

    def __init__(self, known):
        self._next_step = 1 + max((step for step, _ in known), default=-1)
        self.logged, self.alerts, self.finished = [], [], False

    def log(self, metrics, step):
        assert not self.finished
        self.logged.append((step, metrics))

    def alert(self, title, text):
        self.alerts.append((title, text))

    def finish(self):
        self.finished = True


@pytest.fixture
def trackio(monkeypatch):
    """A stand-in for the module: like trackio it has one current run in a context, and finishes it at the next."""
    current = ContextVar("current", default=None)
    module = types.ModuleType("trackio")
    module.runs, module.asked = {}, {}

    def init(*, project, name, group, config, resume, embed, auto_log_gpu, auto_log_cpu):
        if current.get() is not None:
            current.get().finish()
        assert (resume, embed, auto_log_gpu, auto_log_cpu) == ("allow", False, False, False)
        known = [one for run in module.runs.get(name, []) for one in run.logged]
        run = TrackioRun(known)
        module.runs.setdefault(name, []).append(run)
        module.asked[name] = {"project": project, "group": group, **config}
        current.set(run)
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "trackio", module)
    return module


def tell(tracker, record):
    for trial_id in record.trials:
        tracker.update(record, trial_id)
    tracker.close(record)


def test_trackio_has_a_run_per_trial_with_parameters_epochs_and_end(trackio, tmp_path):
    folder = told_run(tmp_path / "runs" / "told", trials=4)
    record, said = read_record(folder, "told"), []
    base = record.trials["t0000"].config
    for _ in range(2):  # a resumed search logs no epoch twice
        tell(Trackio("digits", "told", "anchors", base, "val_map", said.append), record)
    assert said == []
    assert set(trackio.runs) == {f"told {trial_id}" for trial_id in record.trials}
    best = record.trials["t0000"]
    asked = trackio.asked["told t0000"]
    assert (asked["project"], asked["group"], asked["space"]) == ("digits", "told", "anchors")
    assert asked["optim.lr"] == best.config["optim.lr"]
    first, second = trackio.runs["told t0000"]
    *epochs, (_, end) = first.logged
    assert [step for step, _ in epochs] == sorted(best.epochs)
    assert [one["val_map"] for _, one in epochs] == [best.epochs[step]["val_map"] for step, _ in epochs]
    assert end == {"best_val_map": record.value(best)}
    assert second.logged == []
    assert all(run.finished for runs in trackio.runs.values() for run in runs)
    assert [title for title, _ in trackio.runs["told t0900"][0].alerts] == ["t0900 diverged"]


def test_trackio_keeps_the_runs_of_two_trials_open_at_once(trackio, tmp_path):
    folder, said = tmp_path / "run", []
    folder.mkdir()
    events = EventWriter(folder, "run")
    events.write("run", metric="val_map", trials=2, resumed=False)
    tracker = Trackio("digits", "run", "anchors", {}, "val_map", said.append)
    for trial_id in ("t0000", "t0001"):
        introduce(events, trial_id)
    for epoch in (1, 2):
        for trial_id in ("t0000", "t0001"):
            events.write("report", trial_id=trial_id, **report(epoch, 0.3))
            tracker.update(events.record, trial_id)
    tracker.close(events.record)
    events.close()
    assert said == []
    for [run] in trackio.runs.values():
        assert [step for step, _ in run.logged] == [1, 2]
        assert run.finished


def test_trackio_that_fails_is_one_sentence(trackio, run_folder, monkeypatch):
    monkeypatch.setattr("search.monitor.tracker.PAUSE_SECONDS", 0.01)
    monkeypatch.delattr(trackio, "init")
    said = []
    tell(Trackio("digits", "demo", "anchors", {}, "val_map", said.append), read_record(run_folder, "demo"))
    assert len(said) == 1
    assert said[0].startswith("trackio at digits failed (")
    assert said[0].endswith("; the search continues without it")


@pytest.mark.parametrize("name", ["", "my digits", "../x", "-x", "x" * 101])
def test_a_name_that_trackio_cannot_use_is_refused_before_anything_starts(trackio, name):
    with pytest.raises(UsageError, match="the name of a project has letters, digits, '-' and '_', at most 100"):
        check_trackio(name)
    check_trackio("house-numbers_2")


def test_trackio_that_is_not_installed_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UsageError, match=r"--trackio needs the package trackio: pip install 'digit-search\[trackio\]'"):
        check_trackio("digits")
