"""Parameters that have no effect in a training."""

import pytest

from digits_core.config.effect import without_effect
from digits_core.config.train_config import TrainConfig
from digits_core.training.schedule import lr_at

STEP = {"optim.schedule": "step", "optim.epochs": 6}


def idle(until=None, **flat):
    return without_effect(TrainConfig.from_flat(flat), until=until)


@pytest.mark.parametrize(
    ("flat", "name", "words"),
    [
        ({"optim.optimizer": "adamw"}, "optim.momentum", "only for optimizer=sgd"),
        ({"optim.optimizer": "sgd"}, "optim.momentum", None),
        ({"optim.schedule": "cosine"}, "optim.step_gamma", "only for schedule=step"),
        ({"optim.schedule": "cosine"}, "optim.eta_min", None),
        ({"optim.schedule": "constant"}, "optim.onecycle_peak", "only for schedule=onecycle"),
        ({"optim.warmup_epochs": 0.0}, "optim.warmup_epochs", "no warm-up"),
        ({"optim.warmup_epochs": 0.5}, "optim.warmup_epochs", None),
        ({**STEP, "optim.step_gamma": 1.0}, "optim.step_epochs", "step_gamma is 1"),
        ({"optim.lr_scaling": "linear", "optim.batch_size": 8}, "optim.lr_scaling", "batch_size is 8"),
        ({"optim.lr_scaling": "linear", "optim.batch_size": 4}, "optim.lr_scaling", None),
        ({"model.box_loss": "l1"}, "model.box_loss_beta", "only for box_loss=smooth_l1"),
        ({}, "model.box_loss_beta", None),
        ({"model.fixed_size": 64}, "model.min_size", "fixed_size is set"),
        ({}, "model.trainable_layers", "only for a resnet"),
        ({"model.weights": "none", "model.fresh_rpn": True}, "model.fresh_rpn", "without initial weights"),
    ],
)
def test_a_parameter_without_effect_has_a_reason(flat, name, words):
    found = idle(**flat).get(name)
    assert found is None if words is None else words in found


@pytest.mark.parametrize("step_epochs", [1, 3, 5, 6, 7, 20])
@pytest.mark.parametrize("until", [1, 4, 6])
def test_a_step_has_an_effect_exactly_if_the_learning_rate_of_a_trained_epoch_is_reduced(step_epochs, until):
    config = TrainConfig.from_flat({**STEP, "optim.step_epochs": step_epochs})
    reduced = any(lr_at(config.optim, 10 * epoch, 10) < config.optim.peak_lr for epoch in range(until))
    found = without_effect(config, until=until)
    assert ("optim.step_epochs" in found, "optim.step_gamma" in found) == (not reduced, not reduced)


def test_with_stages_a_parameter_has_an_effect_if_it_has_in_one_trained_stage():
    stages = {"optim.epochs": 4, "optim.stages": "2 optim.schedule=constant; 2 optim.schedule=step optim.step_epochs=1"}
    assert "optim.step_gamma" not in idle(**stages)
    assert "optim.step_gamma" in idle(until=2, **stages)
    assert "optim.momentum" in idle(**stages)
