import dataclasses
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from digits_core.config.reading import read_toml
from digits_core.config.stages import parse_stages, spans
from digits_core.config.train_config import TrainConfig, parameter_named
from digits_core.errors import ConfigError
from digits_core.model.anchors import setting_digest
from digits_core.training import train as training
from digits_core.training.train import Checkpoints, train

TWO = "1 augment.pipeline=color; 2 augment.pipeline=geometric optim.lr=5e-4 optim.batch_size=2"


def test_one_training_without_stages_is_one_stage():
    [stage] = TrainConfig.from_flat({"optim.epochs": 7}).stages
    assert (stage.span.first, stage.span.last) == (1, 7)
    assert stage.config.optim.epochs == 7


def test_stages_set_their_own_parameters_and_share_the_rest():
    config = TrainConfig.from_flat({"optim.epochs": 3, "optim.stages": TWO, "optim.weight_decay": 0.5})
    first, second = config.stages
    assert first.config.augment.pipeline == "color"
    assert first.config.optim.lr == TrainConfig().optim.lr
    assert (second.config.augment.pipeline, second.config.optim.lr) == ("geometric", 5e-4)
    assert (first.config.optim.epochs, second.config.optim.epochs) == (1, 2)
    assert second.config.optim.weight_decay == 0.5


def test_two_spellings_of_stages_are_one_setting():
    first = TrainConfig.from_flat({"optim.stages": "2 optim.lr=0.001 augment.mirror=TRUE;2"})
    second = TrainConfig.from_flat({"optim.stages": " 2  augment.mirror=true optim.lr=1e-3 ; 2 "})
    assert first == second
    assert TrainConfig.from_json(first.to_json()) == first
    digests = {
        setting_digest(TrainConfig.from_flat({"optim.stages": text}))
        for text in ("2;2", "2.0;2", "50%;50%", "50.0%;50%")
    }
    assert len(digests) == 1
    assert digests != {setting_digest(TrainConfig.from_flat({"optim.stages": "1;3"}))}


@given(st.lists(st.integers(1, 99), min_size=1, max_size=5), st.integers(1, 60))
def test_shares_cover_every_epoch_once_or_are_refused(weights, epochs):
    shares = [100 * weight / sum(weights) for weight in weights]
    text = ";".join(f"{share:.4f}%" for share in shares)
    if min(np.diff([0, *(round(end * epochs / 100) for end in np.cumsum(np.round(shares, 4)))])) < 1:
        with pytest.raises(ConfigError, match="must be a whole number of epochs"):
            spans(parse_stages(text, parameter_named), epochs)
        return
    found = spans(parse_stages(text, parameter_named), epochs)
    assert [epoch for span in found for epoch in range(span.first, span.last + 1)] == list(range(1, epochs + 1))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("1;1", "optim.stages train 1 + 1 = 2 epochs, but optim.epochs (--epochs) is 4; make them equal"),
        ("50%;40%", "the shares add up to 90 %"),
        ("2;50%", "give all lengths in epochs, or all of them as shares"),
        ("1%;99%", "stage 1 (1%) must be a whole number of epochs, at least 1 of 4"),
        ("color;geometric", "stage 1 must begin with its length, epochs or a share like 50%, got 'color'"),
        ("2 color;2", "stage 1 takes PARAMETER=VALUE after its length, got 'color'"),
        ("2;2 model.min_size=96", "stage 2 cannot set model.min_size"),
        ("2;2 optim.epochs=9", "stage 2 cannot set optim.epochs"),
        ("2;2 augment.pipeline=colour", "optim.stages, stage 2: augment.pipeline: unknown pipeline 'colour'; did you"),
        ("2;2 optim.t_max=0", "optim.t_max must be a whole number from 1 to 10000, got 0"),
        ("2;2 augment.pipeline=binarize", "binarize also changes evaluated images"),
    ],
)
def test_stages_that_cannot_be_are_one_sentence(stages, said):
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_flat({"optim.epochs": 4, "optim.stages": stages})
    assert said in str(caught.value)


def test_a_toml_file_holds_stages_as_tables(tmp_path):
    path = tmp_path / "curriculum.toml"
    path.write_text(
        "[optim]\nepochs = 20\n[[stages]]\nepochs = 10\naugment.pipeline = 'color'\n"
        "[[stages]]\nepochs = 10\naugment.pipeline = 'geometric'\naugment.mirror = true\n"
    )
    config = TrainConfig.from_flat(read_toml(path))
    assert config.optim.stages == "10 augment.pipeline=color; 10 augment.mirror=true augment.pipeline=geometric"
    path.write_text("[[stages]]\nepochs = 4\naugment.pipeline = 'color, geometric'\n")
    assert read_toml(path)["optim.stages"] == "4 augment.pipeline=color,geometric"
    path.write_text("[optim]\nstages = '4'\n[[stages]]\nepochs = 4\n")
    with pytest.raises(ConfigError, match="both set the stages"):
        read_toml(path)
    path.write_text("[[stages]]\naugment.pipeline = 'color'\n")
    with pytest.raises(ConfigError, match=r"stages must be tables \[\[stages\]\], each with epochs"):
        read_toml(path)


SMALL = {"model.min_size": 32, "model.max_size": 128}


def staged(**more):
    return TrainConfig.from_flat(
        {**SMALL, "optim.epochs": 3, "optim.batch_size": 4, "optim.schedule": "cosine", "optim.stages": TWO, **more}
    )


def test_stages_are_one_training_with_one_history(tiny_data, spy_report, one_thread, monkeypatch):
    seen = []
    step = training.train_step

    def watch(run, images, *more):
        seen.append((run.stage.config.augment.pipeline, len(images), run.optimizer.param_groups[0]["lr"]))
        return step(run, images, *more)

    monkeypatch.setattr(training, "train_step", watch)
    train(staged(), tiny_data, spy_report, device="cpu")
    assert [one.metrics.epoch for one in spy_report.seen] == [1, 2, 3]
    assert [row[:2] for row in seen] == [("color", 4)] * 2 + [("geometric", 2)] * 8
    # each stage has its own cosine schedule and learning rate
    lr = TrainConfig().optim.lr
    assert [row[2] for row in seen] == pytest.approx([lr] * 2 + [5e-4] * 4 + [2.5e-4] * 4)


@pytest.mark.parametrize("after", [1, 2])
def test_a_staged_training_resumes_bit_for_bit(after, tiny_data, tmp_path, one_thread):
    """After epoch 1 the next stage has not started; after epoch 2 it is half finished."""

    def run(folder, resume_from=None):
        losses, kept = [], {}

        def report(one):
            losses.append(dataclasses.replace(one.metrics, **dict.fromkeys(TIMES, 0)))
            kept[one.metrics.epoch] = shutil.copytree(one.checkpoint, folder / f"kept{one.metrics.epoch}")

        train(staged(), tiny_data, report, checkpoints=Checkpoints(folder / "work", resume_from), device="cpu")
        return losses, kept

    whole, kept = run(tmp_path / "whole")
    rest, _ = run(tmp_path / "rest", resume_from=kept[after])
    assert rest == whole[after:]


TIMES = ("images_per_second", "peak_memory_bytes", "epoch_seconds", "train_seconds", "eval_seconds")


@pytest.mark.parametrize(
    ("values", "epochs"), [([0.9, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1], 6), ([0.9, 0.1, 0.1, 0.1, 0.2, 0.3, 0.3], 7)]
)
def test_early_stopping_acts_in_the_last_stage_alone(values, epochs, tiny_data, spy_report, monkeypatch):
    scores = iter(values)
    real = training._evaluate

    def told(run, split, floor):
        one = real(run, split, floor)
        return dataclasses.replace(one, scores=dataclasses.replace(one.scores, map=next(scores)))

    monkeypatch.setattr(training, "_evaluate", told)
    config = TrainConfig.from_flat(
        {**SMALL, "optim.epochs": 7, "optim.early_stop_epochs": 2, "optim.batch_size": 8, "optim.stages": "3;4"}
    )
    train(config, tiny_data, spy_report, device="cpu")
    # the first stage never stops early; the last stage counts from its own start
    assert [one.metrics.early_stopped for one in spy_report.seen] == [False] * (epochs - 1) + [epochs < 7]


def test_the_train_sample_is_scored_beside_valid_and_changes_nothing(tiny_data, one_thread):
    def run(sample):
        found = []
        flat = {"optim.epochs": 1, "runtime.train_sample": sample}
        train(TrainConfig.from_flat(flat), tiny_data, lambda one: found.append(one), device="cpu")
        return found[0]

    without, some, all_of_it = run(0), run(3), run(1000)
    assert without.metrics.train_map is None
    assert 0 < some.metrics.train_map <= some.metrics.train_map_50 <= 1
    assert some.metrics.val_map == without.metrics.val_map
    assert all_of_it.metrics.train_map != some.metrics.train_map
    assert setting_digest(TrainConfig()) == setting_digest(TrainConfig.from_flat({"runtime.train_sample": 3}))
    assert torch.is_grad_enabled()


def test_each_stage_has_its_own_best_epoch(tiny_data, spy_report, monkeypatch):
    scores = iter([0.9, 0.1, 0.3, 0.2])
    real = training._evaluate

    def told(run, split, floor):
        one = real(run, split, floor)
        return dataclasses.replace(one, scores=dataclasses.replace(one.scores, map=next(scores)))

    monkeypatch.setattr(training, "_evaluate", told)
    config = TrainConfig.from_flat({**SMALL, "optim.epochs": 4, "optim.batch_size": 8, "optim.stages": "2;2"})
    train(config, tiny_data, spy_report, device="cpu")
    assert [one.improved for one in spy_report.seen] == [True, False, True, False]
