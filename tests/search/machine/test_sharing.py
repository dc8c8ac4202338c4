import subprocess
import sys

import pytest

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import open_data
from digits_core.data.source import DataSource
from digits_core.errors import UsageError
from search.machine import sharing
from search.machine.sharing import Sharing, best_sharing, try_sharing
from search.machine.subprocesses import Training


def tried(*rates):
    return [Sharing(2**number, rate, 0) for number, rate in enumerate(rates)]


@pytest.mark.parametrize(
    ("rates", "trials"),
    [((100,), 1), ((100, 180, 300, 290), 4), ((100, 103), 1), ((100, 80), 1), ((100, 150, 153, 200), 8)],
)
def test_the_larger_number_is_taken_for_as_long_as_it_is_worth_it(rates, trials):
    assert best_sharing(tried(*rates)).trials == trials


def formula(monkeypatch, rates, *, each=1, total=0):
    """Replace the measurement: rates by number of trials; without a rate, the trials do not fit."""
    asked = []

    def measured(training, trials, threads):
        asked.append((trials, threads))
        if trials not in rates:
            raise UsageError("out of memory")
        return Sharing(trials, rates[trials], trials * each), total

    monkeypatch.setattr(sharing, "_measure", measured)
    return asked


def measure(cores=16, **more):
    return [one.trials for one in try_sharing(Training(TrainConfig(), DataSource(), ""), cores=cores, **more)]


def test_it_ends_where_more_would_not_fit_or_not_help(monkeypatch):
    assert formula(monkeypatch, {1: 100, 2: 190, 4: 192, 8: 999}) == []
    assert measure() == [1, 2, 4]
    asked = formula(monkeypatch, {1: 100, 2: 190})
    assert measure() == [1, 2]
    assert asked == [(1, 8), (2, 8), (4, 4)]
    formula(monkeypatch, {1: 100, 2: 190, 4: 300, 8: 500}, each=20, total=100)
    assert measure() == [1, 2, 4]  # 8 would need 160
    formula(monkeypatch, {1: 100, 2: 190, 4: 300, 8: 500})
    assert measure(cores=4) == [1, 2, 4]  # a trial needs a core
    asked = formula(monkeypatch, {1: 100, 2: 190, 4: 300, 8: 500})
    assert measure(cores_each=4) == [1, 2, 4]
    assert asked == [(1, 4), (2, 4), (4, 4)]
    assert measure(most=2) == [1, 2]
    formula(monkeypatch, {})
    with pytest.raises(UsageError, match="out of memory"):
        measure()


@pytest.mark.slow
def test_real_trainings_share_this_machine(tiny_folder, own_cache, monkeypatch):
    source = DataSource(folder=str(tiny_folder))
    said = []
    monkeypatch.setattr(sharing, "MOST", 2)
    training = Training(TrainConfig(), source, open_data(source).fingerprint, device="cpu")
    found = try_sharing(training, cores=2, say=said.append)
    assert [one.trials for one in found][:1] == [1]
    assert all(one.images_per_second > 0 for one in found)
    assert said[0].startswith("1 trial on a GPU: ")


def test_a_training_that_fails_is_a_sentence(tiny_folder, own_cache):
    source = DataSource(folder=str(tiny_folder))
    said = r"a few training steps of the first configuration failed: .*is not the data of the run"
    with pytest.raises(UsageError, match=said):
        try_sharing(Training(TrainConfig(), source, "0" * 32, device="cpu"), cores=1)


def test_on_a_cluster_a_number_is_asked_for(capsys):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "search.run",
            "--space",
            "anchors",
            "--address",
            "127.0.0.1:1",
            "--gpus-per-trial",
            "auto",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--gpus-per-trial auto: measures this machine" in done.stderr
