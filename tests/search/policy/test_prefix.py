"""Trainings that begin alike: what is computed without training, against real trainings."""

import pytest
import torch
from images import config_of

from digits_core.config.train_config import TrainConfig
from digits_core.files import CONFIG_FILE
from digits_core.model.checkpoint import load_tensors
from digits_core.training.train import Checkpoints, train
from search.policy.prefix import repeated_epochs, shared_epochs

CONSTANT = {"optim.schedule": "constant", "optim.epochs": 3}
STEP = {"optim.schedule": "step", "optim.epochs": 3, "optim.step_gamma": 0.5}

PAIRS = [
    ({**STEP, "optim.step_epochs": 1}, {**STEP, "optim.step_epochs": 2}, 1),
    ({**STEP, "optim.step_epochs": 2}, CONSTANT, 2),
    ({**CONSTANT, "optim.epochs": 2}, CONSTANT, 2),
    (CONSTANT, {**CONSTANT, "optim.stages": "2; 1 augment.mirror=true"}, 2),
    ({"optim.epochs": 3}, {"optim.epochs": 3, "optim.onecycle_peak": 0.5}, 0),
    (CONSTANT, {**CONSTANT, "optim.early_stop_epochs": 2}, 3),
]


@pytest.mark.parametrize(("first", "second", "shared"), PAIRS)
def test_epochs_that_are_called_the_same_are_the_same_bit_for_bit(
    first, second, shared, tiny_data, spy_report, tmp_path, one_thread
):
    configs = [config_of(**first), config_of(**second)]
    assert shared_epochs(*configs, len(tiny_data.train)) == shared
    assert shared_epochs(*configs[::-1], len(tiny_data.train)) == shared
    reports = []
    for number, config in enumerate(configs):
        spy_report.seen.clear()
        train(config, tiny_data, spy_report, checkpoints=Checkpoints(tmp_path / str(number)))
        reports.append(list(spy_report.seen))
    for epoch, (one, other) in enumerate(zip(*reports, strict=False), start=1):
        weights = [load_tensors(report.checkpoint) for report in (one, other)]
        same = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
        assert same == (epoch <= shared)
        assert (one.metrics.val_map == other.metrics.val_map) >= same
    if 0 < shared < len(reports[1]):
        branch = reports[0][shared - 1].checkpoint
        for place in (branch, branch / "best"):
            (place / CONFIG_FILE).write_text(configs[1].to_json())
        spy_report.seen.clear()
        train(configs[1], tiny_data, spy_report, checkpoints=Checkpoints(tmp_path / "branch", branch))
        alone, branched = (load_tensors(one[-1].checkpoint) for one in (reports[1], spy_report.seen))
        assert all(torch.equal(value, branched[name]) for name, value in alone.items())


@pytest.mark.parametrize(
    "changed",
    [{"model.min_size": 40}, {"detect.task1.nms": 0.3}, {"runtime.seed": 1}, {"data.images_per_epoch": 2},
     {"optim.ema": 0.9}, {"optim.weight_decay": 0.1}, {"optim.batch_size": 2}, {"augment.mirror": True}],
)  # fmt: skip
def test_what_changes_the_first_epoch_shares_none(changed):
    config = config_of(**CONSTANT)
    assert shared_epochs(config, TrainConfig.from_flat(changed, config), 8) == 0
    assert shared_epochs(config, config, 8) == 3


def test_an_epoch_counts_as_repeated_if_any_earlier_training_had_it():
    configs = [
        config_of(**one) for one in (CONSTANT, {**STEP, "optim.step_epochs": 1}, {**STEP, "optim.step_epochs": 2})
    ]
    assert repeated_epochs(configs[:1], 8) == 0
    assert repeated_epochs(configs[:2], 8) == 1
    assert repeated_epochs(configs, 8) == 1 + 2
