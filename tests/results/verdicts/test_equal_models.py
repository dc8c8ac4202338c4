import pytest
import torch

from conftest import introduce, report
from digits_core.config.train_config import TrainConfig
from digits_core.model.build import build_model, read_back
from results.record.log import EventWriter, read_record
from results.verdicts.equal_models import find_twins


def run_of(tmp_path, *trials, status="finished"):
    """Trials of (parameters, digest of the last weights or None, their mAP); after the first epoch all are alike."""
    folder = tmp_path / "run"
    folder.mkdir()
    events = EventWriter(folder, "run")
    events.write("run", metric="val_map", trials=9, resumed=False)
    for number, (parameters, weights, value) in enumerate(trials):
        introduce(events, f"t{number:04d}", **parameters)
        name = f"t{number:04d}"
        for epoch, digest in ((1, "start"), (2, weights)):
            events.write("report", trial_id=name, **report(epoch, value), **({"weights": digest} if weights else {}))
        events.write("end", trial_id=name, status=status, reason=None)
    events.close()
    return read_record(folder, "run")


@pytest.mark.parametrize(
    ("second", "weights", "value", "expected"),
    [
        ({"optim.momentum": 0.5}, "same", 0.3, {"t0001": "t0000"}),  # AdamW reads no momentum
        ({"optim.momentum": 0.5}, None, 0.3, {"t0001": "t0000"}),  # known by its epochs alone
        ({"optim.momentum": 0.5}, "other", 0.4, {}),
        ({"runtime.seed": 5}, "same", 0.3, {}),  # the same setting
        ({"detect.task1.nms": 0.3}, "same", 0.3, {}),  # acts after training, and says so
    ],
)
def test_parameters_that_did_nothing_are_found_by_what_they_left_behind(tmp_path, second, weights, value, expected):
    record = run_of(tmp_path, ({}, weights and "same", 0.3), (second, weights, value))
    assert find_twins(record) == expected


def test_trials_that_were_stopped_may_have_begun_alike(tmp_path):
    trials = ({}, "same", 0.3), ({"optim.momentum": 0.5}, "same", 0.3)
    assert find_twins(run_of(tmp_path, *trials, status="stopped")) == {}


def test_names_that_torchvision_does_not_read_change_nothing_in_what_is_read_back():
    """Course report B set four names on the built model that torchvision has under others."""
    torch.manual_seed(0)
    model, _ = build_model(TrainConfig())
    before = read_back(model)
    image = [torch.rand(3, 64, 96)]
    with torch.inference_mode():
        kept = model.eval()(image)
    heads = model.roi_heads
    heads.box_nms_thresh, heads.box_score_thresh = 0.3, 0.5
    heads.positive_fraction, heads.batch_size_per_image = 0.9, 16
    assert read_back(model) == before
    with torch.inference_mode():
        again = model(image)
    assert torch.equal(kept[0]["boxes"], again[0]["boxes"])
    heads.nms_thresh, heads.score_thresh = 0.3, 0.5  # the names that are read
    assert read_back(model) != before
