"""Tools that follow a search: the calls that they get, and that none of them can block it."""

import numpy as np
import pytest
from told import told_run

from conftest import introduce, report
from results.record.log import EventWriter, read_record
from search.monitor.mlflow import MLflow, check_mlflow
from search.monitor.tensorboard import TensorBoard, predictions_sheet
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
    monkeypatch.setattr("search.monitor.mlflow.PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record, said = read_record(run_folder, "demo"), []
    mlflow = MLflow("http://127.0.0.1:9", "demo", "anchors", {}, "val_map", said.append)
    for trial_id in record.trials:
        mlflow.update(record, trial_id)
    mlflow.close(record)
    assert len(said) == 1
    assert said[0].startswith("MLflow at http://127.0.0.1:9 failed (")


def test_an_address_that_is_none_is_refused_before_anything_starts():
    from digits_core.errors import UsageError

    with pytest.raises(UsageError, match=r"--mlflow localhost: an address is http://HOST:PORT"):
        check_mlflow("localhost")


def test_mlflow_that_is_not_installed_is_a_sentence(monkeypatch):
    import sys

    from digits_core.errors import UsageError

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"--mlflow needs the package mlflow: pip install 'digit-search\[mlflow\]'"):
        check_mlflow("http://127.0.0.1:5000")
