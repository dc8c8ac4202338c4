"""The files in deploy/ against Ray's own schema, the pinned versions and our own commands."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml

from search.cli.flags import build_parser
from search.cli.values import data_source, storage_address
from search.run import plain_trials

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RAY = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)[1]
FILES = ("cluster.yaml", "rayjob.yaml", "Dockerfile")


def commands(text):
    """Every call of the search in a file, comments and folded lines included."""
    text = re.sub(r"^#", "", text, flags=re.M).replace("\\\n", " ").replace("\n", " ")
    return [shlex.split(found) for found in re.findall(r"python -m search\.run ([^;'#]*?)(?=  +ray |;|'|$)", text)]


def test_rays_own_schema_takes_the_cluster_file():
    tree = yaml.safe_load((DEPLOY / "cluster.yaml").read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(tree, schema)
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(tree))
    started = tree["head_start_ray_commands"] + tree["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in started if "ray start" in line)
    assert any("--dashboard-host=127.0.0.1" in line for line in tree["head_start_ray_commands"])
    assert tree["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_kubernetes_job_logs_in_and_asks_for_what_slots_need():
    tree = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
    assert (tree["apiVersion"], tree["kind"]) == ("ray.io/v1", "RayJob")
    cluster = tree["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [group] = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    [worker] = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"] == worker["resources"]["requests"]  # for Ray counts the limits
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    volumes = {one["name"] for one in group["template"]["spec"]["volumes"]}
    assert {one["name"] for one in worker["volumeMounts"]} == volumes
    for container in (worker, *cluster["headGroupSpec"]["template"]["spec"]["containers"]):
        assert not any("value" in one and "KEY" in one["name"] for one in container.get("env", []))


@pytest.mark.parametrize("name", ["cluster.yaml", "rayjob.yaml"])
def test_every_command_in_them_is_one_that_we_take(name):
    found = commands((DEPLOY / name).read_text())
    assert len(found) == 2
    for words in found:
        args = build_parser().parse_args(words)
        assert storage_address(args.storage) == "s3://my-bucket/runs"
        # A resume names its places too: on a fresh machine nobody has given them before.
        assert data_source(args.data).folder == "s3://my-bucket/svhn"
        assert args.address == "auto"
        assert args.resume is not None or plain_trials(args.trials)


@pytest.mark.parametrize("name", FILES)
def test_images_are_of_the_pinned_ray(name):
    for version in re.findall(r"rayproject/ray:(\d+\.\d+\.\d+)", (DEPLOY / name).read_text()):
        assert version == RAY


def slurm(tmp_path, *words, ended_with, resumed=False):
    """Run the Slurm script with stand-ins for Slurm's commands; returns its exit code and what was called."""
    log, tools = tmp_path / "called", tmp_path / "tools"
    tools.mkdir(parents=True)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    for name, code in (("srun", ended_with), ("scontrol", 0)):
        (tools / name).write_text(f'#!/bin/bash\necho "{name} $*" >>"{log}"\nexit {code}\n')
        (tools / name).chmod(0o755)
    if resumed:
        (tmp_path / "runs" / "night").mkdir(parents=True)
        (tmp_path / "runs" / "night" / "run.json").touch()
    names = {"PATH": f"{tools}:{os.environ['PATH']}", "VENV": str(tmp_path / "venv"), "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", str(DEPLOY / "slurm.sbatch"), *words], cwd=tmp_path, env=os.environ | names)
    return done.returncode, log.read_text().splitlines() if log.exists() else []


def test_a_slurm_job_starts_a_run_then_continues_it_and_goes_back_into_the_queue(tmp_path):
    begun = slurm(tmp_path / "a", "night", "--space", "anchors", "--trials", "60", ended_with=0)
    assert begun == (0, ["srun digit-search run --name night --out runs --space anchors --trials 60"])
    again = slurm(tmp_path / "b", "night", "--space", "anchors", ended_with=143, resumed=True)
    assert again == (143, ["srun digit-search resume night --out runs", "scontrol requeue 7"])
    assert slurm(tmp_path / "c", ended_with=0) == (1, [])
    for _, called in (begun, again):
        words = shlex.split(called[0])[2:]
        build_parser().parse_args(words[1:] if words[0] == "run" else ["--resume", *words[1:]])
