"""digit-search ensemble --average: the mean of weights, batch norm, what it refuses and writes."""

import copy
import json

import pytest
import torch
from torch import nn

from conftest import introduce, report
from digits_core.config.train_config import TrainConfig
from digits_core.data.batches import load_batch
from digits_core.data.cache import open_data
from digits_core.data.drawn import write_drawn_folder
from digits_core.data.source import DataSource
from digits_core.errors import RunError
from digits_core.labels import DIGITS
from digits_core.model.build import DRAWN_WEIGHTS, build_model
from digits_core.model.checkpoint import load_tensors, save_model
from digits_core.submission.inference import Detector, load_detector
from results.record.log import EventWriter
from search import ensemble
from search.models.kept import Kept
from search.models.soup import check_alike, mean_state, renew_batch_norm

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "drawn"
    write_drawn_folder(folder, 30, 40, seed=5)
    return folder


@pytest.fixture(scope="module")
def data(data_folder, own_cache):
    return open_data(DataSource(folder=str(data_folder)))


@pytest.fixture
def run(tmp_path, data_folder, data):
    """A run that kept the shipped model with two opposite errors in its weights: only their mean is right."""
    folder = tmp_path / "runs" / "done"
    folder.mkdir(parents=True)
    events = EventWriter(folder, "done")
    events.write("run", metric="val_map", trials=2, resumed=False)
    for number, sign in enumerate((1, -1)):
        name = f"t{number:04d}"
        introduce(events, name, **{"optim.lr": 1e-3 * (number + 1)})
        events.write("report", trial_id=name, **report(1, 0.5 - number / 10))
        events.write("end", trial_id=name, status="finished", reason=None)
        detector = load_detector(DRAWN_WEIGHTS, CPU)
        noise = torch.randn(11, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            detector.model.roi_heads.box_predictor.cls_score.bias += 8 * sign * noise
        config = TrainConfig.from_flat({"runtime.precision": "float32"})
        save_model(folder / "checkpoints" / name, detector.model, config)
        events.write("kept", trial_id=name, path=f"checkpoints/{name}")
    events.close()
    source = {"settings": {"data": {"folder": str(data_folder)}}, "data": {"fingerprint": data.fingerprint}}
    (folder / "run.json").write_text(json.dumps(source))
    return folder


def test_weights_are_weighted_means_and_counters_those_of_the_first_model():
    states = [{"weight": torch.tensor([1.0, 4.0]), "count": torch.tensor(number)} for number in (5, 6, 7)]
    states[2]["weight"] = torch.tensor([5.0, -2.0])
    found = mean_state(states, (0, 1, 3))
    assert found["weight"].tolist() == pytest.approx([(1 + 3 * 5) / 4, (4 - 3 * 2) / 4])
    assert found["count"] == 6
    assert mean_state(states, (2, 0, 0))["weight"].tolist() == [1.0, 4.0]


def test_batch_norm_is_measured_on_training_images(data):
    """The statistics of the first layer are those of its inputs, as torch computes them from all of them."""
    model = load_detector(DRAWN_WEIGHTS, CPU).model
    before = copy.deepcopy(model.state_dict())
    renew_batch_norm(model, data.train, batch_size=len(data.train), dtype=torch.float32)
    norms = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert not model.training
    assert not any(part.training for _, part in norms)
    assert all(part.momentum == 0.1 for _, part in norms)
    first = norms[0][1]
    seen = []
    [convolution] = [part for name, part in model.named_modules() if name == "backbone.body.stem.0"]
    handle = convolution.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        model.backbone(model.inputs(load_batch(data.train, list(range(len(data.train))), CPU)).images)
    handle.remove()
    torch.testing.assert_close(first.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-3, rtol=1e-2)
    for name, value in model.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, before[name])


def test_the_command_writes_one_model_that_is_the_mean(run, data, capsys):
    assert ensemble.main([str(run), "--average", "--most", "2", "--device", "cpu", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    target = run / "models" / "average-1"
    assert document["folder"] == str(target)
    assert {one["trial"] for one in document["ensemble"]["members"]} == {"t0000", "t0001"}
    assert all(one["against"] == "the best single model" for one in document["verdicts"])
    assert all(half["single_fused"] is None for half in document["halves"])
    assert "the averaged model is better" in document["verdicts"][0]["words"]
    bias = "roi_heads.box_predictor.cls_score.bias"
    found, right = (load_tensors(folder)[bias] for folder in (target, DRAWN_WEIGHTS))
    torch.testing.assert_close(found, right.float(), atol=1e-3, rtol=1e-3)
    assert "mean of trained models" in (target / "MODEL_CARD.md").read_text()
    detector = load_detector(target, CPU)
    assert detector.config.detect.task1.nms == json.loads((target / "config.json").read_text())["detect.task1.nms"]
    assert ensemble.main([str(run), "--average", "--most", "2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "average-2: the mean of" in out
    assert "own boxes fused" not in out


def detector_of(**flat):
    config = TrainConfig.from_flat(flat)
    return Detector(build_model(config)[0], config, DIGITS, CPU, torch.float32)


def test_models_without_a_common_mean_are_refused():
    models = [Kept("t0000", None), Kept("t0001", None)]
    same = detector_of()
    for other in (detector_of(**{"model.roi_output_size": 7}), detector_of(**{"model.weights": "none"})):
        with pytest.raises(RunError, match="t0000 and t0001 differ in their architecture or initial weights"):
            check_alike(models, [same, other])
    for flat in ({"model.weights": "none"}, {"model.fresh_rpn": True}):
        fresh = [detector_of(**flat, **{"runtime.seed": seed}) for seed in (0, 0, 1)]
        with pytest.raises(RunError, match="each seed begins with other random weights"):
            check_alike(models, fresh[1:])
        check_alike(models, fresh[:2])  # the same seed begins with the same weights
    check_alike(models, [same, detector_of(**{"optim.lr": 1e-4, "runtime.seed": 3, "model.label_smoothing": 0.1})])
