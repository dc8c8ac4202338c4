import copy

import pytest
import torch
from images import config_of
from torch import nn

from digits_core.config.train_config import TrainConfig
from digits_core.errors import WeightsError
from digits_core.files import BEST_FOLDER
from digits_core.model.checkpoint import load_tensors
from digits_core.training.average import Average, decay_at
from digits_core.training.train import Checkpoints, open_run, train, train_one_epoch


def test_the_decay_grows_to_the_given_one():
    decays = [decay_at(0.99, step) for step in range(2000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_the_average_is_that_of_a_loop_over_all_floating_point_tensors():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(model)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(20):
        torch.manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
        model(torch.randn(5, 3))
        average.update(model, 0.8, step)
        decay = min(0.8, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
    expected["1.num_batches_tracked"] = torch.tensor(20.0)
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), msg=name, atol=1e-5, rtol=1e-5)
    average.restart(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in average.model.state_dict().items())


def test_the_average_is_scored_and_kept_and_the_weights_stay_those_of_a_training_without_it(
    tiny_data, spy_report, tmp_path, one_thread
):
    for name, ema in (("with", 0.9), ("without", 0.0)):
        config = config_of(**{"optim.epochs": 2, "optim.ema": ema})
        train(config, tiny_data, spy_report, checkpoints=Checkpoints(tmp_path / name))
    averaged, plain = spy_report.seen[1], spy_report.seen[3]
    assert averaged.metrics.train_loss == plain.metrics.train_loss
    assert averaged.metrics.val_loss != plain.metrics.val_loss
    own, other = (load_tensors(one.checkpoint) for one in (averaged, plain))
    assert all(torch.equal(value, other[name]) for name, value in own.items())
    kept = load_tensors(averaged.checkpoint / BEST_FOLDER)
    assert any(not torch.equal(value, own[name]) for name, value in kept.items())


def test_a_stage_begins_a_new_average(tiny_data, one_thread):
    stages = "1 optim.ema=0.9; 1 optim.ema=0.9"
    run = open_run(config_of(**{"optim.epochs": 2, "optim.stages": stages}), tiny_data, device="cpu")
    run.enter(1)
    train_one_epoch(run, 1)
    assert run.scored is run.average.model
    before = copy.deepcopy(run.model.state_dict())
    run.enter(2)
    assert all(torch.equal(value, before[name]) for name, value in run.average.model.state_dict().items())


def test_without_an_average_the_model_itself_is_scored(tiny_data):
    run = open_run(config_of(), tiny_data, device="cpu")
    assert run.average is None
    assert run.scored is run.model


def test_a_checkpoint_without_the_average_is_one_sentence(tiny_data, spy_report, tmp_path):
    train(config_of(), tiny_data, spy_report, checkpoints=Checkpoints(tmp_path))
    config = TrainConfig.from_flat({"optim.ema": 0.9}, config_of())
    with pytest.raises(WeightsError, match="has no average that fits its model"):
        open_run(config, tiny_data, resume_from=spy_report.seen[0].checkpoint, device="cpu")
