"""A search's numbers in Ray's own metrics, scraped as Prometheus does."""

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(1800)]

SCRIPT = """
import sys, time, urllib.request
from pathlib import Path
from search.tune.cluster import connected, prepare_environment
prepare_environment(joins=False)
from results.record.log import read_record
from search.monitor.ray_metrics import Gauges
record = read_record(Path(sys.argv[1]), "demo")
with connected(None, machine={"CPU": 1.0, "GPU": 0.0}, host="127.0.0.1"):
    import ray
    gauges = Gauges(record.trials["t0000"].config)
    for name in record.trials:
        gauges.update(record, name)
    port = ray.nodes()[0]["MetricsExportPort"]
    end = time.monotonic() + 90
    while time.monotonic() < end:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        if "digit_search_val_map" in text and "digit_search_trials_ended" in text:
            break
        time.sleep(1)
    print("\\n".join(line for line in text.splitlines() if line.startswith("ray_digit_search")))
"""


def test_a_scrape_of_rays_metrics_holds_each_trials_score_with_its_setting(run_folder):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(run_folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    values = {}
    for name, labels, value in re.findall(r"^ray_digit_search_(\w+)\{(.*)\} (\S+)$", done.stdout, re.MULTILINE):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        values[name, found.get("trial")] = float(value), found.get("setting")
    assert values["val_map", "t0000"] == (0.40, "default")
    assert values["val_map", "t0001"] == (0.20, "lr 0.002")
    assert values["epoch", "t0000"][0] == 3
    assert values["best", None][0] == 0.42
    assert values["trials_ended", None][0] == 4
    assert values["trials_stopped", None][0] == 1
    assert values["trials_failed", None][0] == 2
