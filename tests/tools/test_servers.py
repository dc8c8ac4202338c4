"""Servers that people have, started for real: MLflow is told of a search, optuna-dashboard shows its study."""

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from told import told_run

from processes import wait_until
from proposing import Told
from results.record.log import read_record
from search.monitor.mlflow import MLflow
from search.policy.optuna_study import STUDY_FILE, StudyView
from spaces.catalogue import SPACES

pytestmark = [pytest.mark.tools, pytest.mark.timeout(1800)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(address):
    with urllib.request.urlopen(address, timeout=10) as reply:
        return reply.read()


def wait_for(address, server):
    def reply():
        try:
            return answer(address)
        except OSError:
            return None

    return wait_until(reply, f"an answer of {address}", server)


@pytest.fixture
def mlflow_server(tmp_path):
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db",
        "--default-artifact-root", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    with (tmp_path / "server.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def test_mlflow_holds_a_run_per_trial_with_settings_scores_and_end(mlflow_server, tmp_path):
    from mlflow import MlflowClient

    folder = told_run(tmp_path / "runs" / "told", trials=4)
    record, said = read_record(folder, "told"), []
    base = record.trials["t0000"].config
    for _ in range(2):  # a resumed search finds the runs of the one before
        mlflow = MLflow(mlflow_server, "told", "anchors", base, "val_map", said.append)
        for trial_id in record.trials:
            mlflow.update(record, trial_id)
        mlflow.close(record)
    assert said == []
    client = MlflowClient(tracking_uri=mlflow_server)
    experiment = client.get_experiment_by_name("digit-search anchors")
    runs = {one.data.tags["digit_search.trial"]: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(record.trials)
    best = record.trials["t0000"]
    assert runs["t0000"].data.params["optim.lr"] == str(best.config["optim.lr"])
    assert runs["t0000"].data.metrics["best_val_map"] == pytest.approx(record.value(best))
    history = client.get_metric_history(runs["t0000"].info.run_id, "val_map")
    assert [(one.step, one.value) for one in history] == [
        (epoch, pytest.approx(one["val_map"])) for epoch, one in sorted(best.epochs.items())
    ]
    assert runs["t0000"].info.status == "FINISHED"
    assert runs["t0900"].info.status == "FAILED"
    assert runs["t0900"].data.tags["status"] == "diverged"


def test_optuna_dashboard_opens_a_study_of_ours(tmp_path):
    told = Told(SPACES["anchors"], 6)
    told.run_through(lambda config: 0.25)
    StudyView(tmp_path, SPACES["anchors"]).follow(told.record)
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("optuna-dashboard")), "--host", "127.0.0.1", "--port", str(port),
        str(tmp_path / STUDY_FILE),
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/dashboard/", server)
            studies = json.loads(answer(f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]
            assert [one["study_name"] for one in studies] == ["told"]
            shown = json.loads(answer(f"http://127.0.0.1:{port}/api/studies/{studies[0]['study_id']}"))
            assert [one["values"] for one in shown["trials"]] == [[0.25]] * 3
        finally:
            server.terminate()
