"""The measured costs of a trial's model."""

import pytest
import torch
from images import config_of

from digits_core.errors import DeviceError
from digits_core.evaluation import latency
from digits_core.evaluation.latency import Latency
from digits_core.files import MODEL_FILE
from digits_core.model.build import build_model
from digits_core.model.checkpoint import save_model
from results.record.schema import COSTS
from search.tune.trainable import LATENCY_ATTEMPTS, cost_of


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "epoch", build_model(config_of())[0], config_of())
    return tmp_path / "epoch"


def test_the_size_is_always_known_and_the_time_if_it_is_an_aim(checkpoint, tiny_data):
    size = (checkpoint / MODEL_FILE).stat().st_size / 1e6
    params = {"device": "cpu", "latency_of": []}
    assert cost_of(checkpoint, tiny_data, params) == {"megabytes": size}
    assert set(cost_of(checkpoint, tiny_data, {**params, "latency_of": [32]})) == {"megabytes", "latency_ms_32"}
    found = cost_of(checkpoint, tiny_data, {**params, "latency_of": [1, 32]})
    assert set(found) == set(COSTS)
    assert found["latency_ms_low"] <= found["latency_ms"] <= found["latency_ms_high"]


def test_times_that_vary_too_much_are_refused_after_some_attempts(checkpoint, tiny_data, monkeypatch):
    tried = []
    monkeypatch.setattr(
        latency, "measure_latency", lambda *given, **named: tried.append(given) or Latency(4.0, 2.0, 5.0, 0.75)
    )
    with pytest.raises(DeviceError, match=r"the time of the same images varies by 75% on cpu"):
        cost_of(checkpoint, tiny_data, {"device": "cpu", "latency_of": [1]})
    assert len(tried) == LATENCY_ATTEMPTS
