import pickle

import pytest
import torch
from torch import nn

from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, WeightsError
from digits_core.model.checkpoint import (
    MODEL_FILE,
    STATE_FILE,
    load_config,
    load_model,
    load_tensors,
    load_training,
    save_model,
    save_training,
)
from digits_core.model.checkpoint_state import TrainingState, is_whole


def trained(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


STATE = TrainingState(epoch=3, step=12, best_epoch=2, best_value=0.5)


def test_a_checkpoint_brings_everything_back(tmp_path):
    model, optimizer = trained()
    save_model(tmp_path, model, TrainConfig())
    save_training(tmp_path, model, optimizer, STATE)
    other, fresh = trained(seed=1)
    assert load_training(tmp_path, other, fresh) == STATE
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        for key, value in optimizer.state[mine].items():
            assert torch.equal(torch.as_tensor(fresh.state[theirs][key]), torch.as_tensor(value))
    assert load_config(tmp_path) == TrainConfig()


def test_half_precision_halves_the_file_and_loads(tmp_path):
    model = nn.Linear(100, 100)
    save_model(tmp_path / "full", model, TrainConfig())
    save_model(tmp_path / "half", model, TrainConfig(), half=True)
    full, half = ((tmp_path / name / MODEL_FILE).stat().st_size for name in ("full", "half"))
    assert half < 0.6 * full
    other = nn.Linear(100, 100)
    load_model(tmp_path / "half", other)
    assert other.weight.dtype == torch.float32
    torch.testing.assert_close(other.weight, model.weight, atol=1e-3, rtol=1e-3)


class Planted:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"not weights", pickle.dumps(Planted()), b"\xff" * 8 + b"{}"])
def test_a_damaged_file_is_one_sentence_and_runs_nothing(tmp_path, content, capsys):
    (tmp_path / MODEL_FILE).write_bytes(content)
    with pytest.raises(WeightsError, match="damaged or not a safetensors file"):
        load_tensors(tmp_path)
    assert "never run" not in capsys.readouterr().out


def test_weights_of_another_shape_do_not_fit(tmp_path):
    save_model(tmp_path, nn.Linear(3, 3), TrainConfig())
    with pytest.raises(WeightsError, match="does not fit its configuration"):
        load_model(tmp_path, nn.Linear(4, 3))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"epoch": "x", "step": 1, "best_epoch": 1, "best_value": 1}'])
def test_a_damaged_state_is_named(tmp_path, text):
    model, optimizer = trained()
    save_model(tmp_path, model, TrainConfig())
    save_training(tmp_path, model, optimizer, STATE)
    (tmp_path / STATE_FILE).write_text(text)
    with pytest.raises(WeightsError, match=STATE_FILE):
        load_training(tmp_path, model, optimizer)


def test_a_missing_or_broken_config_is_named(tmp_path):
    with pytest.raises(
        WeightsError, match=r"is not a checkpoint, which is a folder with model\.safetensors and config\.json"
    ):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is not JSON"):
        load_config(tmp_path)


def test_a_checkpoint_is_whole_while_no_file_of_it_is_missing_or_short(tmp_path):
    model, optimizer = trained()
    save_model(tmp_path / "saved", model, TrainConfig())
    save_training(tmp_path / "saved", model, optimizer, STATE)
    save_model(tmp_path / "saved" / "best", model, TrainConfig())
    assert is_whole(tmp_path / "saved")
    for file in [one for one in (tmp_path / "saved").rglob("*") if one.is_file()]:
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], None):
            if file.name in ("config.json", "classes.json") and damaged is not None:
                continue  # its content is checked when it is read
            file.unlink() if damaged is None else file.write_bytes(damaged)
            assert not is_whole(tmp_path / "saved"), file
            file.write_bytes(content)
