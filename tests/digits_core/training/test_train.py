import dataclasses

import numpy as np
import pytest
import torch
from images import Counting, config_of

from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import epoch_batches, load_batch
from digits_core.errors import DeviceError, DivergedError
from digits_core.files import BEST_FOLDER
from digits_core.model.checkpoint import load_config, load_tensors
from digits_core.training import train as training
from digits_core.training.device import choose_device, choose_dtype
from digits_core.training.parallel import World
from digits_core.training.reports import LOSSES, EpochMetrics, EpochProgress
from digits_core.training.train import Checkpoints, Selection, check_losses, open_run, train, train_step


def numbers(report):
    """What must not depend on the clock or the memory."""
    values = dataclasses.asdict(report.metrics)
    for name in ("images_per_second", "peak_memory_bytes", "epoch_seconds", "train_seconds", "eval_seconds"):
        values.pop(name)
    return values


def test_every_epoch_is_reported_with_losses_scores_and_costs(tiny_data, spy_report, tmp_path):
    train(config_of(**{"optim.epochs": 2}), tiny_data, spy_report, checkpoints=Checkpoints(tmp_path))
    assert [report.metrics.epoch for report in spy_report.seen] == [1, 2]
    for report in spy_report.seen:
        metrics = report.metrics
        losses = [getattr(metrics, name) for name in LOSSES]
        assert metrics.train_loss == pytest.approx(sum(losses))
        assert all(np.isfinite(losses))
        assert 0 <= metrics.val_map <= metrics.val_map_50 <= 1
        assert metrics.images_per_second > 0
        assert metrics.epoch_seconds >= metrics.train_seconds + metrics.eval_seconds
        assert len(report.valid.found.start) == len(tiny_data.valid) + 1
        assert report.valid.loss == metrics.val_loss > 0
        assert report.confirm is None
        assert report.device == "cpu"
        assert load_config(report.checkpoint).optim.epochs == 2


def test_progress_comes_after_each_step_and_ends_each_epoch_before_its_report(tiny_data):
    seen = []
    train(
        config_of(**{"optim.epochs": 2, "optim.batch_size": 3}),
        tiny_data,
        lambda report: seen.append(report.metrics.epoch),
        world=World(progress=seen.append),
    )
    shares = [1 / 3, 2 / 3, 1.0]  # eight images in steps of three
    expected = [[*(EpochProgress(epoch, share) for share in shares), epoch] for epoch in (1, 2)]
    assert seen == [*expected[0], *expected[1]]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tiny_data, spy_report, one_thread):
    for seed in (4, 4, 5):
        train(config_of(**{"runtime.seed": seed}), tiny_data, spy_report)
    first, again, other = map(numbers, spy_report.seen)
    assert first == again
    assert first["train_loss"] != other["train_loss"]


@pytest.mark.parametrize(
    "extra", [{}, {"optim.optimizer": "sgd", "data.images_per_epoch": 5}, {"optim.ema": 0.9}], ids=str
)
def test_stopping_and_going_on_equals_running_through(tiny_data, spy_report, tmp_path, one_thread, extra):
    config = config_of(**{"optim.epochs": 4, **extra})
    train(config, tiny_data, spy_report, checkpoints=Checkpoints(tmp_path / "through"))
    through = list(spy_report.seen)

    class KilledError(Exception):
        pass

    def kill_after_two(report):
        spy_report(report)
        if report.metrics.epoch == 2:
            raise KilledError

    spy_report.seen.clear()
    with pytest.raises(KilledError):
        train(config, tiny_data, kill_after_two, checkpoints=Checkpoints(tmp_path / "first"))
    again = Checkpoints(tmp_path / "second", spy_report.seen[-1].checkpoint)
    train(config, tiny_data, spy_report, checkpoints=again)
    assert [numbers(report) for report in spy_report.seen] == [numbers(report) for report in through]
    last, expected = (load_tensors(reports[-1].checkpoint) for reports in (spy_report.seen, through))
    assert all(torch.equal(last[name], expected[name]) for name in expected)
    best, expected = (load_tensors(reports[-1].checkpoint / BEST_FOLDER) for reports in (spy_report.seen, through))
    assert all(torch.equal(best[name], expected[name]) for name in expected)


def test_a_training_by_hand_gives_the_same_steps(tiny_data, one_thread):
    """Two trainings of one seed: `train_step`, and torch's plain SGD on the model's losses."""
    flat = {"optim.optimizer": "sgd", "optim.lr": 0.01, "runtime.precision": "float32"}
    run, other = (open_run(config_of(**flat), tiny_data, device="cpu") for _ in range(2))
    optim = other.config.optim
    chosen = {"lr": optim.lr, "momentum": optim.momentum, "weight_decay": optim.weight_decay}
    optimizer = torch.optim.SGD(other.model.parameters(), **chosen)
    mine, theirs = [], []
    for epoch in (1, 2):
        for indices in epoch_batches(tiny_data.train, seed=0, epoch=epoch, batch_size=4, asked=0):
            batch = load_batch(tiny_data.train, indices, run.device)
            torch.manual_seed(epoch)  # both draw the same anchors and proposals
            mine.append(train_step(run, batch).tolist())
            torch.manual_seed(epoch)
            losses = other.model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(other.model.parameters(), optim.max_grad_norm)
            optimizer.step()
            theirs.append([float(losses[name].detach()) for name in LOSSES])
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    assert len(mine) == 4


def test_a_step_in_half_precision_dispatches_few_operations_however_many_images(tiny_data):
    run = open_run(config_of(**{"runtime.precision": "bfloat16"}), tiny_data, device="cpu")
    totals = []
    for count in (2, 8, 32):
        batch = load_batch(tiny_data.train, [number % 8 for number in range(count)], run.device)
        train_step(run, batch)  # the first batch of a shape makes its anchors
        with Counting() as counting:
            train_step(run, batch)
        totals.append(counting.total)
    assert totals[1] <= 900
    assert totals[2] / totals[1] < 1.05


def test_on_a_gpu_the_losses_of_several_steps_are_checked_together(tiny_data, monkeypatch):
    run = open_run(config_of(), tiny_data, device="cpu")
    monkeypatch.setattr(training, "must_not_wait", lambda device: True)
    batch = load_batch(tiny_data.train, [1, 2], run.device)
    for step in range(3):
        run.state = dataclasses.replace(run.state, step=step)
        if step == 1:
            with torch.no_grad():
                run.model.rpn.head.cls_logits.bias.fill_(float("nan"))
        train_step(run, batch)
    with pytest.raises(DivergedError, match=r"step 1: the loss is not finite: .*loss_objectness=nan"):
        check_losses(run)
    assert not run.unchecked


def test_losses_fall(tiny_data, spy_report):
    train(config_of(**{"optim.epochs": 8, "optim.lr": 1e-3, "optim.schedule": "constant"}), tiny_data, spy_report)
    losses = [report.metrics.train_loss for report in spy_report.seen]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def score_as(monkeypatch, *values):
    """Let the evaluations give these mAPs."""
    from digits_core.evaluation.metrics import Scores
    from digits_core.training import train as module

    left, real = iter(values), module.evaluate
    monkeypatch.setattr(
        module,
        "evaluate",
        lambda *given, **named: dataclasses.replace(
            real(*given, **named), scores=Scores(next(left), 0.5, 0.1, 0.0, 0.0)
        ),
    )


def test_the_best_epochs_are_scored_on_the_part_to_confirm_when_asked(tiny_data, spy_report, monkeypatch):
    score_as(
        monkeypatch, 0.3, 0.7, 0.2, 0.4, 0.6
    )  # valid, confirm; only valid, because it is not better; valid, confirm
    data = dataclasses.replace(tiny_data, confirm=tiny_data.train)
    train(config_of(**{"optim.epochs": 3}), data, spy_report, selection=Selection(confirm=True))
    confirmed = [None if one.confirm is None else one.confirm.scores.map for one in spy_report.seen]
    assert confirmed == [0.7, None, 0.6]
    assert [one.metrics.val_map for one in spy_report.seen] == [0.3, 0.2, 0.4]


def test_the_best_epoch_is_carried_along_not_the_last(tiny_data, spy_report, tmp_path, monkeypatch):
    score_as(monkeypatch, 0.1, 0.3, 0.2, 0.3)
    train(config_of(**{"optim.epochs": 4}), tiny_data, spy_report, checkpoints=Checkpoints(tmp_path))
    assert [report.improved for report in spy_report.seen] == [True, True, False, False]
    best = load_tensors(spy_report.seen[-1].checkpoint / BEST_FOLDER)
    second = load_tensors(spy_report.seen[1].checkpoint)
    assert all(torch.equal(best[name], second[name]) for name in second)


def test_early_stop_ends_after_epochs_without_progress(tiny_data, spy_report, monkeypatch):
    score_as(monkeypatch, 0.1, 0.3, 0.2, 0.2, 0.9)
    train(config_of(**{"optim.epochs": 5, "optim.early_stop_epochs": 2}), tiny_data, spy_report)
    assert [report.metrics.early_stopped for report in spy_report.seen] == [False, False, False, True]


def test_a_loss_that_is_not_finite_names_step_and_losses(tiny_data, spy_report):
    config = config_of(
        **{"optim.optimizer": "sgd", "optim.lr": 10.0, "optim.max_grad_norm": 0.0, "optim.schedule": "constant"}
    )
    with pytest.raises(
        DivergedError, match=r"step \d+: the loss is not finite: loss_classifier=|epoch \d+: the validation loss"
    ):
        train(TrainConfig.from_flat({"optim.epochs": 30}, config), tiny_data, spy_report)


def test_the_learning_rate_horizon_is_all_epochs_whatever_stops_before(tiny_data, spy_report):
    class StoppedError(Exception):
        pass

    def stop(report):
        spy_report(report)
        raise StoppedError

    rates = []
    for epochs in (2, 20):
        with pytest.raises(StoppedError):
            train(config_of(**{"optim.epochs": epochs, "optim.schedule": "cosine"}), tiny_data, stop)
        rates.append(spy_report.seen[-1].metrics.lr)
    assert rates[0] == pytest.approx(rates[1])  # a cosine schedule starts at its peak
    train(config_of(**{"optim.epochs": 2, "optim.schedule": "cosine"}), tiny_data, spy_report)
    assert spy_report.seen[-1].metrics.lr == pytest.approx(rates[0] / 2)


def test_evaluation_leaves_the_model_as_it_was(tiny_data):
    from digits_core.evaluation.evaluate import detect_split

    run = open_run(config_of(), tiny_data, device="cpu")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    detect_split(run.model, tiny_data.valid, 0.01, batch_size=3, dtype=torch.float32)
    assert run.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())


def test_devices_that_cannot_be_used_are_one_sentence():
    with pytest.raises(DeviceError, match="must be auto, cpu, cuda"):
        choose_device("tpu9")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="device cuda cannot be used"):
            choose_device("cuda")
        assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("has", [{"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_f": True}, {}])
def test_bfloat16_is_for_devices_that_compute_it_unless_asked(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    cpu, native = torch.device("cpu"), any("bf16" in name for name in has)
    assert choose_dtype("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("float32", cpu) == torch.float32
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16


def test_bfloat16_trains_on_any_device(tiny_data, spy_report):
    train(config_of(**{"runtime.precision": "bfloat16"}), tiny_data, spy_report)
    assert np.isfinite(spy_report.seen[0].metrics.train_loss)


@pytest.mark.gpu
def test_a_gpu_trains_in_mixed_precision_and_tells_its_memory(tiny_data, spy_report):
    train(config_of(), tiny_data, spy_report, device="cuda")
    assert spy_report.seen[0].metrics.peak_memory_bytes > 0
    assert spy_report.seen[0].device != "cpu"


def test_metrics_are_plain_values():
    kinds = {str(item.type) for item in dataclasses.fields(EpochMetrics)}
    assert kinds <= {str(kind) for kind in (int, float, bool, float | None, int | None)}
