"""The model folder of an ensemble: loading, detecting, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from digits_core import predict, to_onnx
from digits_core.config.train_config import TrainConfig
from digits_core.data.augment import Processing, Sample
from digits_core.data.batches import pack
from digits_core.errors import WeightsError
from digits_core.evaluation.detect import detect_raw
from digits_core.evaluation.fusion import Fusion, fuse
from digits_core.labels import Categories
from digits_core.model.build import DRAWN_WEIGHTS
from digits_core.model.checkpoint import save_model
from digits_core.submission.ensemble import EnsembleFile, read_ensemble, write_ensemble
from digits_core.submission.files import numbered_images
from digits_core.submission.inference import (
    detect_batches,
    detect_with,
    load_detector,
    predict_images,
    prepare,
)

CPU = torch.device("cpu")
PLAIN = {"runtime.precision": "float32"}
COUNTS = {"a": 2, "b": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ensemble of the shipped weights and a changed copy, which resizes and processes images in another way."""
    folder = tmp_path_factory.mktemp("models") / "ensemble-1"
    detector = load_detector(DRAWN_WEIGHTS, CPU, torch.float32)
    save_model(folder / "a", detector.model, TrainConfig.from_flat(PLAIN))
    with torch.no_grad():
        detector.model.roi_heads.box_predictor.cls_score.bias += 0.3 * torch.randn(
            11, generator=torch.Generator().manual_seed(0)
        )
    other = {**PLAIN, "model.min_size": 48, "augment.pipeline": "binarize"}
    save_model(folder / "b", detector.model, TrainConfig.from_flat(other))
    write_ensemble(folder, EnsembleFile(COUNTS, Fusion(iou=0.5, floor=0.02)))
    (folder / "config.json").write_text(TrainConfig.from_flat({**PLAIN, "detect.task1.score": 0.1}).to_json())
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from digits_core.data.drawn import write_drawn_folder

    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_folder(folder, 1, 6, seed=3)
    return folder


@pytest.fixture(scope="module")
def pixels(images):
    from digits_core.data.source import decode_image

    return {number: decode_image(path)[0] for number, path in numbered_images(images / "valid").items()}


def test_it_fuses_what_its_models_detect_in_pixels_of_the_original_image(folder, pixels):
    detector = load_detector(folder, CPU)
    found = detect_batches(detector, prepare(detector, pixels), 0.05)
    raw = []
    for name in COUNTS:
        single = load_detector(folder / name, CPU)
        change = Processing(single.config.augment)
        samples = [Sample(one, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for one in pixels.values()]
        batch = pack([change(sample, number) for sample, number in zip(samples, pixels, strict=True)], CPU)
        raw.append(detect_raw(single.model, batch, floor=0.02)[0])
    expected = fuse(raw, list(COUNTS.values()), 0.5)
    assert len(np.unique(np.concatenate([one.scale for one in raw]), axis=0)) > len(pixels)  # other sizes in each model
    rows = expected.scores > np.float32(0.05)
    np.testing.assert_allclose(found.original_boxes, expected.boxes[rows], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores[rows], atol=1e-6)
    assert found.labels.tolist() == expected.labels[rows].tolist()
    assert 0 < rows.sum() < len(rows)


def test_counts_of_one_model_alone_are_that_model(folder, pixels, tmp_path):
    # the other model counts nothing in the limit of a large count
    copy = shutil.copytree(folder, tmp_path / "e")
    write_ensemble(copy, EnsembleFile({"a": 1000, "b": 1}, Fusion(iou=0.5, floor=0.02)))
    detector, single = load_detector(copy, CPU), load_detector(folder / "a", CPU)
    found = detect_batches(detector, prepare(detector, pixels), 0.3)
    alone = detect_with(single, prepare(single, pixels)[0], 0.3)
    for one, two in zip(found.split(), alone.split(), strict=True):
        assert one.scores[:1].tolist() == pytest.approx(two.scores[:1].tolist(), rel=2e-3)


def test_predictions_are_written_and_pass_the_check(folder, images, tmp_path):
    arguments = [str(folder), str(images / "valid"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert predict.main(arguments) == 0
    assert predict.main(["--check", str(tmp_path / "out" / "submission.zip"), str(images / "valid")]) == 0
    assert json.loads((tmp_path / "out" / "pred.json").read_text())
    found = predict_images(load_detector(folder, CPU), numbered_images(images / "valid"), batch_size=4)
    assert (found.found.scores > np.float32(0.1)).all()  # Task 1's threshold of the ensemble
    assert any(number != "-1" for number in found.numbers.values())


def test_onnx_names_the_single_models_instead(folder, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert to_onnx.main([str(folder), "-o", str(tmp_path / "x.onnx")]) == 2
    said = capsys.readouterr().err
    assert "is an ensemble" in said
    assert str(folder / "a") in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["members"].pop(), "an ensemble has 2 to 64 models, not 1"),
        (lambda tree: tree["members"][0].update(folder="../a"), "'../a' is no name of a folder in it"),
        (lambda tree: tree["members"][0].update(folder=".."), "'..' is no name of a folder in it"),
        (lambda tree: tree["members"][0].update(folder="b"), "it names a folder twice"),
        (lambda tree: tree["members"][0].update(count=0), "the count of 'a' must be a whole number from 1"),
        (lambda tree: tree["members"][0].update(count=True), "the count of 'a' must be a whole number from 1"),
        (lambda tree: tree["fusion"].update(iou=1.5), "iou must be at least 0 and below 1, got 1.5"),
        (lambda tree: tree["fusion"].update(floor="nan"), "floor must be at least 0 and below 1, got nan"),
        (lambda tree: tree.pop("fusion"), "'fusion'"),
        (lambda tree: tree.update(members="ab"), "is damaged"),
    ],
)
def test_a_damaged_file_is_one_sentence(folder, tmp_path, change, said):
    tree = json.loads((folder / "ensemble.json").read_text())
    change(tree)
    (tmp_path / "ensemble.json").write_text(json.dumps(tree))
    with pytest.raises(WeightsError) as caught:
        read_ensemble(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'ensemble.json'} is damaged: ")
    assert said in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "e")
    shutil.rmtree(copy / "b")
    (copy / "b").symlink_to(folder / "b")
    with pytest.raises(WeightsError, match="b is a link to a place outside of the folder"):
        load_detector(copy, CPU)


def test_a_missing_model_and_an_ensemble_in_an_ensemble_are_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "e")
    shutil.rmtree(copy / "b")
    with pytest.raises(WeightsError, match=r"e/b: no such folder"):
        load_detector(copy, CPU)
    shutil.copytree(folder, copy / "b")
    with pytest.raises(WeightsError, match=r"e/b: is an ensemble; an ensemble consists of single models"):
        load_detector(copy, CPU)


def test_models_of_other_categories_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "e")
    names = [f"class {number}" for number in range(10)]
    (copy / "b" / "classes.json").write_text(json.dumps({"ids": list(range(10)), "names": names}))
    assert Categories(tuple(range(10)), tuple(names)).num_classes == 11  # the weights fit
    with pytest.raises(WeightsError, match=r"e/b detects 10 categories \(class 0.*the ensemble digits"):
        load_detector(copy, CPU)
