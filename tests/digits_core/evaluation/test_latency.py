import pytest
import torch
from images import config_of

from digits_core.evaluation.latency import TIMED, Latency, measure_latency
from digits_core.model.build import build_model


@pytest.mark.parametrize("batch_size", TIMED)
def test_the_time_of_an_image_is_positive_and_the_number_of_threads_stays(batch_size, tiny_data):
    model = build_model(config_of())[0].eval()
    threads = torch.get_num_threads()
    found = measure_latency(model, tiny_data.valid, batch_size, dtype=torch.float32)
    assert 0 < found.low <= found.milliseconds <= found.high
    assert torch.get_num_threads() == threads


def test_a_larger_image_takes_longer(tiny_data):
    """Processor time of one thread: four times the sides is sixteen times the pixels."""
    models = [build_model(config_of(**{"model.min_size": size, "model.max_size": 4 * size}))[0] for size in (32, 128)]
    small, large = (measure_latency(one.eval(), tiny_data.valid, 1, dtype=torch.float32) for one in models)
    assert large.milliseconds > 1.5 * small.milliseconds


def test_the_spread_is_the_distance_of_the_quartiles():
    assert Latency(4.0, 3.0, 5.0).spread == 0.5
