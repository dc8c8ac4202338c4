import csv
import dataclasses
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from digits_core import predict, to_onnx
from digits_core.config.train_config import TrainConfig
from digits_core.data.augment import Sample
from digits_core.data.batches import pack, to_tensor
from digits_core.data.cache import open_data
from digits_core.data.source import DataSource
from digits_core.evaluation.transcribe import read_number
from digits_core.labels import Categories
from digits_core.model.build import DRAWN_WEIGHTS, build_model
from digits_core.model.checkpoint import save_model
from digits_core.submission.files import numbered_images
from digits_core.submission.inference import detect_with, kept_at, load_detector, predict_images, read_tasks


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder: the shipped weights with other thresholds."""
    folder = tmp_path_factory.mktemp("model") / "m"
    detector = load_detector(DRAWN_WEIGHTS, torch.device("cpu"))
    config = TrainConfig.from_flat(
        {
            "detect.task1.nms": 0.6,
            "detect.task2.nms": 0.3,
            "detect.task2.score": 0.4,
            "runtime.precision": "float32",
        }
    )
    save_model(folder, detector.model, config)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    from digits_core.data.drawn import write_drawn_folder

    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_drawn_folder(folder, 1, 12, seed=3)
    return folder


def run(*arguments):
    return predict.main([str(argument) for argument in arguments])


def test_what_is_written_is_what_torchvision_detects(model, images, tmp_path):
    # one image at a time, because the padding of a batch changes the boxes slightly
    assert run(model, images / "valid", "-o", tmp_path / "out", "--device", "cpu", "--batch-size", "1") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pred.csv", "pred.json", "submission.zip"]
    found = json.loads((tmp_path / "out" / "pred.json").read_text())
    detector = load_detector(model, torch.device("cpu"))
    for image_id, path in numbered_images(images / "valid").items():
        pixels = np.asarray(Image.open(path).convert("RGB"))
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255
        with torch.inference_mode():
            theirs = detector.model([tensor])[0]  # its own thresholds are Task 1's
        mine = sorted((row for row in found if row["image_id"] == image_id), key=lambda row: -row["score"])
        assert [row["category_id"] for row in mine] == theirs["labels"].tolist()
        np.testing.assert_allclose([row["score"] for row in mine], theirs["scores"], atol=1e-5)
        boxes = np.array([row["bbox"] for row in mine]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, theirs["boxes"], atol=2e-3)
    COCO(str(images / "valid.json")).loadRes(found)


def test_numbers_are_read_from_the_detections_of_task_1_alone(model, images):
    detector = load_detector(model, torch.device("cpu"))
    found = predict_images(detector, numbered_images(images / "valid"), batch_size=5)
    task2 = detector.config.detect.task2
    for number, one in zip(found.numbers.values(), found.found.split(), strict=True):
        kept = kept_at(one, task2)
        assert number == read_number(kept.original_boxes, kept.labels)
        assert set(kept.scores.tolist()) <= set(one.scores.tolist())
    assert any(number != "-1" for number in found.numbers.values())


def test_boxes_are_merged_from_all_raw_detections_whatever_the_threshold(model, images):
    """A search scores a model with the raw detections above the score floor, and a prediction merges the same ones."""
    detector = load_detector(model, torch.device("cpu"), torch.float32)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in numbered_images(images / "valid").values()]
    batch = pack([Sample(one, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for one in pixels], detector.device)
    merging = {"detect.box_merge": 0.5, "detect.task1.score": 0.6}
    detector = dataclasses.replace(detector, config=TrainConfig.from_flat(merging, detector.config))
    found, every = detect_with(detector, batch), detect_with(detector, batch, floor=0.01)
    assert len(every.scores) == len(found.scores) > 0
    assert np.array_equal(found.boxes, every.boxes)


def test_images_come_out_in_numeric_order_whatever_the_batches(model, images):
    detector = load_detector(model, torch.device("cpu"))
    paths = numbered_images(images / "valid")
    one, many = (predict_images(detector, paths, batch_size=size) for size in (1, 12))
    assert one.image_ids == many.image_ids == list(range(1, 13))
    same = sum(one.numbers[image_id] == many.numbers[image_id] for image_id in paths)
    assert same >= 9  # padding may move a box over a threshold, but never swaps images


def test_a_damaged_image_costs_that_image_only(model, images, tmp_path, capsys):
    folder = shutil.copytree(images / "valid", tmp_path / "images")
    whole = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "5.png").write_bytes(b"no image")
    assert run(model, folder, "-o", tmp_path / "out", "--device", "cpu") == 1
    errors = capsys.readouterr().err
    assert "3.png" in errors
    assert "5.png" in errors
    assert errors.count("it has no detections") == 2
    with (tmp_path / "out" / "pred.csv").open() as file:
        numbers = {row["image_id"]: row["pred_label"] for row in csv.DictReader(file)}
    assert list(numbers) == [str(number) for number in range(1, 13)]
    assert numbers["3"] == numbers["5"] == "-1"
    assert not {3, 5} & {row["image_id"] for row in json.loads((tmp_path / "out" / "pred.json").read_text())}
    assert run("--check", tmp_path / "out" / "submission.zip", folder) == 0


def test_scores_are_changed_by_flags_and_the_worst_misses_are_drawn_first(model, images, tmp_path, monkeypatch):
    drawn = []
    from digits_core.data import preview

    keep = preview.write_predictions
    monkeypatch.setattr(preview, "write_predictions", lambda shown, path: (drawn.extend(shown), keep(shown, path)))
    tree = json.loads((images / "valid.json").read_text())
    for one in tree["annotations"]:  # as if all predictions of image 7 were wrong
        if one["image_id"] == 7:
            one["category_id"] = one["category_id"] % 10 + 1
    (tmp_path / "truth.json").write_text(json.dumps(tree))
    flags = ["-o", tmp_path / "out", "--device", "cpu", "--score-1", "0.3", "--score-2", "0.9", "--draw", "12"]
    assert run(model, images / "valid", *flags, "--annotations", tmp_path / "truth.json") == 0
    scores = [row["score"] for row in json.loads((tmp_path / "out" / "pred.json").read_text())]
    assert min(scores) > 0.3
    wrong = [sum(((a := Counter(one.labels)) - (b := Counter(one.truth_labels))).values()) + sum((b - a).values())
             for one in drawn]  # fmt: skip
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[0] > 0
    assert "image 7:" in drawn[0].title
    with Image.open(tmp_path / "out" / "predictions.png") as sheet:
        assert sheet.width > 400


def test_annotations_of_other_images_are_refused_before_anything_is_predicted(model, images, tmp_path, capsys):
    tree = json.loads((images / "valid.json").read_text())
    tree["images"][3]["width"] += 9  # like the annotations of another folder with the same file names
    (tmp_path / "other.json").write_text(json.dumps(tree))
    flags = ["-o", tmp_path / "out", "--device", "cpu", "--draw", "1", "--annotations", tmp_path / "other.json"]
    assert run(model, images / "valid", *flags) == 2
    assert "is for other images: the folder has no " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_force_replaces_predictions_and_nothing_else(model, images, tmp_path, capsys):
    folder = shutil.copytree(images / "valid", tmp_path / "images")
    for out in (folder, model, tmp_path):
        before = sorted(out.rglob("*"))
        assert run(model, folder, "-o", out, "--force", "--device", "cpu") == 2
        assert "which is not a file of a prediction" in capsys.readouterr().err
        assert sorted(out.rglob("*")) == before
    flags = ["-o", tmp_path / "out", "--device", "cpu"]
    assert run(model, folder, *flags, "--draw", "1") == 0
    first = (tmp_path / "out" / "pred.json").read_bytes()
    assert run(model, folder, *flags, "--force", "--score-1", "0.2") == 0
    assert (tmp_path / "out" / "pred.json").read_bytes() != first
    assert not (tmp_path / "out" / "predictions.png").exists()  # from the earlier predictions


def test_a_very_thin_image_is_an_image_like_any_other(model, images, tmp_path, capsys):
    folder = shutil.copytree(images / "valid", tmp_path / "images")
    Image.new("RGB", (1, 300)).save(folder / "99.png")
    assert run(model, folder, "-o", tmp_path / "out", "--device", "cpu") == 0
    assert capsys.readouterr().err == ""


def test_a_model_of_other_categories_writes_their_ids_and_no_numbers(tmp_path, shapes_folder, capsys):
    categories = Categories((3, 7, 42), ("circle", "square", "triangle"))
    torch.manual_seed(0)
    model, _ = build_model(TrainConfig(), num_classes=4)
    save_model(tmp_path / "m", model, TrainConfig(), categories=categories)
    assert run(tmp_path / "m", shapes_folder / "valid", "-o", tmp_path / "out", "--device", "cpu") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pred.json"]
    assert {row["category_id"] for row in json.loads((tmp_path / "out" / "pred.json").read_text())} <= {3, 7, 42}
    assert "these are not digits, so no numbers are read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{model}"], "needs MODEL (a model folder or checkpoint) and IMAGES (a folder)"),
        (["{model}", "{images}"], "-o is missing"),
        (["{model}", "{tmp}/none", "-o", "{tmp}/out"], "no such folder of images"),
        (["{tmp}/none", "{images}", "-o", "{tmp}/out"], "none: no such folder; digit-search retrain"),
        (["{images}", "{images}", "-o", "{tmp}/out"], "is not a checkpoint, which is a folder with model.safetensors"),
        (["{model}", "{images}", "-o", "{tmp}"], "exists; give a new folder, or replace it with --force"),
        (["{model}", "{images}", "-o", "{tmp}/out", "--score-1", "0.9"], "must be at least Task 1's (0.9"),
        (["{model}", "{images}", "-o", "{tmp}/out", "--score-1", "2"], "must be a number from 0 to below 1"),
        (["{model}", "{images}", "-o", "{tmp}/out", "--device", "cuda:99"], "device cuda:99 cannot be used"),
        (
            ["{model}", "{images}", "-o", "{tmp}/out", "--annotations", "x.json"],
            "--annotations needs --draw here; digit-search predict also scores",
        ),
        (["{model}", "{images}", "-o", "{tmp}/out", "--device", "mps"], "device must be auto, cpu, cuda or cuda:N"),
        (
            ["{model}", "{images}", "-o", "{tmp}/out", "--draw", "1", "--annotations", "{other}"],
            "has other categories",
        ),
        (["--check", "{tmp}/none.json", "{images}"], "none.json cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, said, model, images, shapes_folder, tmp_path, capsys):
    places = {"model": model, "images": images / "valid", "tmp": tmp_path, "other": shapes_folder / "train.json"}
    try:
        code = run(*(text.format(**places) for text in arguments))
    except SystemExit as error:
        code = error.code
    assert code == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_planted_pickle_is_not_opened(model, images, tmp_path, capsys):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    folder = shutil.copytree(model, tmp_path / "m")
    for name in ("model.safetensors", "config.json", "classes.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Bomb()))
        assert run(folder, images / "valid", "-o", tmp_path / "out", "--device", "cpu") == 2
        assert not (tmp_path / "exploded").exists()
        (folder / name).write_bytes(before)


def test_the_documentation_loads_the_weights_in_plain_torchvision(images, tmp_path):
    flat = {
        "model.backbone": "resnet50", "model.weights": "none", "model.anchor_sizes": "32,64,128,256,512",
        "model.aspect_ratios": "0.5,1,2", "model.roi_output_size": 7, "model.min_size": 64, "model.max_size": 128,
        "detect.task1.score": 0.05, "detect.task1.max_detections": 7, "runtime.precision": "float32",
    }  # fmt: skip
    torch.manual_seed(0)
    config = TrainConfig.from_flat(flat)
    ours, _ = build_model(config)
    save_model(tmp_path / "m", ours, config)
    page = (Path(__file__).parents[3] / "docs" / "howto" / "submission.md").read_text()
    [block] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_state_dict" in code]
    scope = {}
    exec(block.replace("MODEL", str(tmp_path / "m")), scope)
    detector = load_detector(tmp_path / "m", torch.device("cpu"), torch.float32)
    found = 0
    for path in list(numbered_images(images / "valid").values())[:4]:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        image = to_tensor(pixels)
        batch = pack([Sample(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))], torch.device("cpu"))
        own = kept_at(detect_with(detector, batch), detector.config.detect.task1)
        with torch.no_grad():
            [theirs] = scope["model"]([image])
        np.testing.assert_array_equal(theirs["labels"].numpy(), own.labels)
        np.testing.assert_allclose(theirs["boxes"].numpy(), own.original_boxes, atol=1e-3)
        found += len(own.labels)
    assert found


def test_onnx_gives_what_the_model_gives(model, images, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert to_onnx.main([str(model), "-o", str(out), "--images", str(images / "valid"), "--check", "12"]) == 0
    assert "onnxruntime gives the same labels as the model" in capsys.readouterr().out
    import onnx

    known = {one.key: json.loads(one.value) for one in onnx.load(str(out)).metadata_props}
    assert known["categories"]["names"] == [str(digit) for digit in range(10)]
    assert known["detect"]["detect.task2.score"] == 0.4
    assert to_onnx.main([str(model), "-o", str(out)]) == 2
    assert "exists; give another file, or replace it with --force" in capsys.readouterr().err
    other = load_detector(model, torch.device("cpu"))
    with torch.no_grad():
        other.model.roi_heads.box_predictor.bbox_pred.bias += 0.3
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in numbered_images(images / "valid").values()]
    with pytest.raises(Exception, match="nothing was written"):
        to_onnx.compare(other, out, pixels)


@pytest.mark.parametrize(
    ("flat", "said"),
    [
        ({"detect.common_height": True}, "detect.common_height=true"),
        ({"detect.box_merge": 0.7}, "detect.box_merge=0.7"),
        ({"model.cascade_stages": 3}, "model.cascade_stages=3"),
    ],
)
def test_onnx_refuses_what_the_file_cannot_have(model, tmp_path, capsys, flat, said):
    config = TrainConfig.from_flat(flat)
    save_model(tmp_path / "m", build_model(config)[0], config)
    assert to_onnx.main([str(tmp_path / "m"), "-o", str(tmp_path / "m.onnx")]) == 2
    assert f"has {said}" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_onnx_joins_classes_where_the_model_does(model, images, tmp_path):
    config = TrainConfig.from_flat({"detect.task1.class_agnostic": True, "detect.task1.nms": 0.3})
    detector = load_detector(model, torch.device("cpu"), torch.float32)
    save_model(tmp_path / "m", detector.model, config)
    assert to_onnx.main([str(tmp_path / "m"), "-o", str(tmp_path / "m.onnx"), "--images", str(images / "valid")]) == 0
    apart = load_detector(model, torch.device("cpu"), torch.float32)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in numbered_images(images / "valid").values()]
    with pytest.raises(Exception, match="are not those of the model"):  # NMS within classes keeps more
        to_onnx.compare(apart, tmp_path / "m.onnx", pixels)


def test_task_2_reads_what_task_1_leaves(images, model):
    detector = load_detector(model, torch.device("cpu"))
    detect = detector.config.detect
    strict = dataclasses.replace(detect, task1=dataclasses.replace(detect.task1, max_detections=1))
    found = predict_images(detector, numbered_images(images / "valid"), batch_size=12)
    _, numbers = read_tasks(found.found, strict)
    assert all(len(number) <= 1 or number == "-1" for number in numbers)
    assert any(number != "-1" for number in numbers)


def test_data_joined_is_every_annotated_image(tiny_folder):
    data = open_data(DataSource(folder=str(tiny_folder)))
    joined = data.joined().train
    assert len(joined) == len(data.train) + len(data.valid)
    assert (np.diff(joined.table.image_ids) > 0).all()
    for split, offset in ((data.train, 0), (data.valid, len(data.train))):
        for index in range(len(split)):
            np.testing.assert_array_equal(joined.image(offset + index), split.image(index))
            mine, theirs = (
                slice(int(one.table.box_start[place]), int(one.table.box_start[place + 1]))
                for one, place in ((joined, offset + index), (split, index))
            )
            np.testing.assert_array_equal(joined.table.boxes[mine], split.table.boxes[theirs])
            np.testing.assert_array_equal(joined.table.labels[mine], split.table.labels[theirs])
