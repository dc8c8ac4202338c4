"""A search on two Ray nodes with token login, submitted as a job, with a store that fails; one node is lost."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from conftest import environment
from processes import last_lines, wait_until
from results.record.log import read_record
from results.views.leaderboard import read_leaderboard
from search.replay import replay
from store_server import KEYS, store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = "0123456789abcdef" * 2
TINY = ["--set", "model.min_size=32", "--set", "model.max_size=128"]


LOOK = f"""
import sys
import time
import ray
from digits_core.errors import UserError
from search.tune.cluster import connected
from search.tune.nodes import check_nodes
with connected(f"127.0.0.1:{{sys.argv[1]}}", port=0, machine={{}}) as cluster:
    nodes = cluster.nodes
    while len(nodes) < 2:  # the second is on its way
        time.sleep(0.2)
        nodes = {{node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}}
    check_nodes(nodes, {{"{ROOT}": "never said"}}, "f" * 32)
    try:
        check_nodes(nodes, {{"/no/such": "put it elsewhere"}}, "f" * 32)
    except UserError as error:
        print(error)
"""
"""A folder that a node cannot access is reported before anything runs."""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Nodes:
    """Ray nodes on this machine, each in its own process group."""

    def __init__(self, folder):
        self.folder, self.nodes = folder, []
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        self.port, self.dashboard = free_ports(2)
        self.env = os.environ | KEYS | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}", "PYTHONPATH": str(ROOT),
            "RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "4",
        }  # fmt: skip

    def start(self, *flags):
        # Only one node of a machine gets the default port of Ray's agent; a head without that port takes no jobs.
        [agent] = free_ports(1)
        process = subprocess.Popen(
            [RAY, "start", "--block", "--num-cpus=1", "--object-store-memory=100000000",
             f"--dashboard-agent-listen-port={agent}", f"--temp-dir={self.folder / 'ray'}", *flags],
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.nodes.append(process)
        return process

    def kill(self, process):
        """Kill all processes of a node at once, as when a node dies."""
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()

    def job(self, *arguments):
        return subprocess.run(
            [RAY, "job", *arguments], env=self.env, capture_output=True, text=True, timeout=300, check=False
        )

    def submit(self, *arguments):
        """Submit a job; Ray waits ten seconds for its agent and then asks to try again: a busy machine needs more."""

        def answered():
            done = self.job("submit", *arguments)
            return None if "No available agent" in done.stdout + done.stderr else done

        return wait_until(answered, "Ray's job agent", seconds=240)


@pytest.fixture
def cluster():
    if shlex.quote(sys.executable) != sys.executable:
        pytest.skip("Ray's job API starts no process of a Python whose path holds a space")
    # A short path: the system takes no socket with one of over 107 bytes.
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    nodes = Nodes(folder)
    head = nodes.start(
        "--head", "--node-ip-address=127.0.0.1", f"--port={nodes.port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={nodes.dashboard}",
    )  # fmt: skip

    def answers():
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{nodes.dashboard}/api/version", timeout=5)
        except urllib.error.HTTPError:  # it is there, and wants a token
            return True
        except OSError:
            return False
        return True

    wait_until(answers, "Ray's dashboard", head, seconds=120)
    yield nodes
    for one in reversed(nodes.nodes):
        if one.poll() is None:
            nodes.kill(one)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_submitted_search_outlives_a_node_and_a_failing_store(cluster, tmp_path):
    from digits_core.data.drawn import write_drawn_folder

    second = cluster.start(f"--address=127.0.0.1:{cluster.port}")
    write_drawn_folder(tmp_path / "data", 64, 64, seed=9)
    with environment(**KEYS), store() as (app, address, client):
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "digits", f"data/{path.relative_to(tmp_path / 'data')}")
        app.failing, app.slow_s = 0.05, 0.02
        out = tmp_path / "out"
        search = [
            sys.executable, "-m", "search.run", "--space", "lr_schedules", "--trials", "0", "--epochs", "4",
            "--scheduler", "none", "--name", "far", "--address", "auto", "--slots", "2", "--out", str(out),
            "--data", address.replace("/runs", "/data"), "--storage", address, *TINY,
        ]  # fmt: skip
        plain = {name: value for name, value in cluster.env.items() if name != "RAY_ADDRESS"}
        looked = subprocess.run(
            [sys.executable, "-c", LOOK, str(cluster.port)], env=plain, capture_output=True, text=True, check=False
        )
        assert re.fullmatch(r"node [0-9.]+ cannot access /no/such; put it elsewhere\n", looked.stdout), looked
        submitted = cluster.submit("--no-wait", "--submission-id", "far", "--", *search)
        assert submitted.returncode == 0, submitted.stdout + submitted.stderr
        events = out / "far" / "events.jsonl"

        def text():
            return events.read_text() if events.exists() else ""

        def both_saved():
            return len(set(re.findall(r'"kind":"checkpoint","trial_id":"(t\d+)"', text()))) >= 2 or ended()

        def ended():
            said = cluster.job("status", "far").stdout.lower()
            return "succeeded" in said or "failed" in said

        wait_until(both_saved, "a checkpoint of both trials")
        cluster.kill(second)
        wait_until(ended, "the end of the job", seconds=400)
        logs = cluster.job("logs", "far").stdout
        assert "succeeded" in cluster.job("status", "far").stdout.lower(), last_lines(logs)
        app.failing = app.slow_s = 0.0
        assert app.refused

        record = read_record(out / "far", "far")
        assert {(one.status, one.num_epochs) for one in record.trials.values()} == {("finished", 4)}
        lines = [json.loads(line) for line in text().splitlines()]
        reports = [(line["trial_id"], line["epoch"]) for line in lines if line["kind"] == "report"]
        assert sorted(set(reports)) == [(f"t{trial:04d}", epoch) for trial in range(4) for epoch in range(1, 5)]
        assert len(reports) - len(set(reports)) <= 2  # at most the one epoch without a checkpoint
        faults = {line["fault"] for line in lines if line["kind"] == "fault"}
        assert faults & {"node_lost", "worker_died"}
        assert replay(out / "far").differing == []

        # the copy in the store is the run, to the last line
        there = client.get_object(Bucket="digits", Key="runs/far/events.jsonl")["Body"].read()
        assert there == events.read_bytes()
        from search.storage.storage import Storage

        Storage(tmp_path / "elsewhere" / "far", address).fetch_run()
        board = read_leaderboard(tmp_path / "elsewhere" / "far")
        assert board["val_map_low"].notna().all()

    # who knows no token gets in nowhere, and nobody's secret lies about
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{cluster.dashboard}/api/jobs/", timeout=10)
    assert refused.value.code == 401
    for secret in (TOKEN, KEYS["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in logs
        for path in [*out.rglob("*"), *(tmp_path / "elsewhere").rglob("*")]:
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
        for process in psutil.process_iter(["cmdline"]):
            assert secret not in " ".join(process.info["cmdline"] or [])
