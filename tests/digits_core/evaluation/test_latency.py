import pytest
import torch
from images import config_of

from digits_core.evaluation import latency
from digits_core.evaluation.latency import TIMED, measure_latency
from digits_core.model.build import build_model


@pytest.mark.parametrize("batch_size", TIMED)
def test_the_time_of_an_image_is_positive_and_the_number_of_threads_stays(batch_size, tiny_data):
    model = build_model(config_of())[0].eval()
    threads = torch.get_num_threads()
    found = measure_latency(model, tiny_data.valid, batch_size, dtype=torch.float32)
    assert 0 < found.low <= found.milliseconds <= found.high
    assert found.noise >= 0
    assert torch.get_num_threads() == threads


def test_a_larger_image_takes_longer(tiny_data):
    """Processor time of one thread: four times the sides is sixteen times the pixels."""
    models = [build_model(config_of(**{"model.min_size": size, "model.max_size": 4 * size}))[0] for size in (32, 128)]
    small, large = (measure_latency(one.eval(), tiny_data.valid, 1, dtype=torch.float32) for one in models)
    assert large.milliseconds > 1.5 * small.milliseconds


def test_images_of_different_shapes_are_no_noise(tiny_data, monkeypatch):
    """A clock that only advances with the size of the image: both times of a batch are equal."""
    model = build_model(config_of())[0].eval()
    now = [0.0]
    monkeypatch.setattr(latency.time, "thread_time", lambda: now[0])
    seen = []

    def detect(model, batch):
        seen.append(int(batch.sizes.prod()))
        now[0] += seen[-1] / 1e6

    monkeypatch.setattr(latency, "detect_raw", detect)
    found = measure_latency(model, tiny_data.valid, 1, dtype=torch.float32)
    assert found.noise == pytest.approx(0)
    assert found.low < found.high
    assert len(seen) == 2 + 2 * TIMED[1]
