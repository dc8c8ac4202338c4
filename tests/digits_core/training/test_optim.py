import pytest
import torch
from torch.optim import lr_scheduler

from digits_core.config.train_config import OptimConfig
from digits_core.training.optim import build_optimizer
from digits_core.training.schedule import WARMUP_START, lr_at

STEPS = 7


def rates(config):
    return [lr_at(config, step, STEPS) for step in range(config.epochs * STEPS)]


def torch_rates(config, make, *, per_epoch):
    """The learning rates of a torch scheduler, stepped per epoch or per step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler = make(optimizer)
    found = []
    for step in range(config.epochs * STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % STEPS == 0:
            scheduler.step()
    return found


@pytest.mark.parametrize(("every", "gamma"), [(1, 0.5), (3, 0.1), (20, 0.1)])
def test_step_equals_torchs_step_lr(every, gamma):
    config = OptimConfig(schedule="step", step_epochs=every, step_gamma=gamma, epochs=10)
    theirs = torch_rates(config, lambda opt: lr_scheduler.StepLR(opt, every, gamma), per_epoch=True)
    assert rates(config) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("eta_min", [0.0, 1e-5])
def test_cosine_equals_torchs_cosine_annealing(eta_min):
    config = OptimConfig(schedule="cosine", eta_min=eta_min, epochs=12)
    theirs = torch_rates(config, lambda opt: lr_scheduler.CosineAnnealingLR(opt, 12, eta_min), per_epoch=True)
    assert rates(config) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("t_max", [1, 4, 20])
def test_cosine_with_its_own_length_falls_and_rises_as_torchs_does(t_max):
    config = OptimConfig(schedule="cosine", eta_min=1e-7, t_max=t_max, epochs=12)
    theirs = torch_rates(config, lambda opt: lr_scheduler.CosineAnnealingLR(opt, t_max, 1e-7), per_epoch=True)
    assert rates(config) == pytest.approx(theirs, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
def test_the_rate_follows_the_batch_size_as_asked(scaling, factor, schedule):
    plain = OptimConfig(schedule=schedule, epochs=5, lr=1e-3)
    scaled = OptimConfig(schedule=schedule, epochs=5, lr=1e-3, batch_size=32, lr_scaling=scaling)
    assert rates(scaled) == pytest.approx([rate * factor for rate in rates(plain)])
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], scaled)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)


@pytest.mark.parametrize("peak", [0.2, 0.3, 0.5])
def test_onecycle_equals_torchs_one_cycle(peak):
    config = OptimConfig(schedule="onecycle", onecycle_peak=peak, epochs=6)

    def make(optimizer):
        return lr_scheduler.OneCycleLR(
            optimizer, config.lr, total_steps=6 * STEPS, pct_start=peak, cycle_momentum=False
        )

    assert rates(config) == pytest.approx(torch_rates(config, make, per_epoch=False), rel=1e-6)


def test_constant_with_warmup_equals_torchs_linear_lr():
    config = OptimConfig(schedule="constant", warmup_epochs=2.0, epochs=4)

    def make(optimizer):
        return lr_scheduler.LinearLR(optimizer, WARMUP_START, 1.0, total_iters=2 * STEPS)

    assert rates(config) == pytest.approx(torch_rates(config, make, per_epoch=False), rel=1e-9)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_rates_are_positive_and_never_above_the_peak_however_short(schedule, steps):
    config = OptimConfig(schedule=schedule, epochs=1, onecycle_peak=0.5)
    found = [lr_at(config, step, steps) for step in range(steps)]
    assert all(0 <= rate <= config.lr * (1 + 1e-12) for rate in found)


def test_frozen_parameters_are_left_to_themselves():
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    free = torch.nn.Parameter(torch.zeros(1))
    for name in ("adamw", "sgd"):
        optimizer = build_optimizer([frozen, free], OptimConfig(optimizer=name))
        assert optimizer.param_groups[0]["params"] == [free]
