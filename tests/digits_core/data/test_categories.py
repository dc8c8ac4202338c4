import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import SHAPES
from digits_core.config.train_config import AugmentConfig, TrainConfig
from digits_core.data import command as data
from digits_core.data.augment import Augmentation
from digits_core.data.cache import open_data
from digits_core.data.coco import read_categories
from digits_core.data.preview import write_sheet
from digits_core.data.source import DataSource
from digits_core.errors import DataError
from digits_core.evaluation.evaluate import match_tasks
from digits_core.evaluation.metrics import Truth
from digits_core.evaluation.sweep import sweep
from digits_core.labels import DIGITS, Categories
from digits_core.training.train import Selection, train
from results.tables.matches import StoredMatches, read_matches, write_matches


@pytest.fixture(scope="module")
def shapes(shapes_folder, own_cache):
    return open_data(DataSource(folder=str(shapes_folder)))


def test_classes_come_from_the_annotation_file_and_ids_need_not_be_dense(shapes, shapes_folder):
    assert shapes.categories == Categories((3, 7, 42), ("circle", "square", "triangle"))
    assert shapes.categories.num_classes == 4
    assert not shapes.categories.are_digits
    tree = json.loads((shapes_folder / "valid.json").read_text())
    ids = [row["category_id"] for row in sorted(tree["annotations"], key=lambda row: (row["image_id"], row["id"]))]
    assert [shapes.categories.ids[label - 1] for label in shapes.valid.table.labels.tolist()] == ids
    assert [shapes.categories.label_of(number) for number in SHAPES] == [1, 2, 3]


def test_digits_are_digits_with_and_without_names(tiny_folder, tmp_path):
    for categories in (None, [], [{"id": 1}, {"id": 2}], [{"id": 3, "name": "2"}]):
        shutil.copytree(tiny_folder, tmp_path / "plain")
        for part in ("train", "valid"):
            path = tmp_path / "plain" / f"{part}.json"
            tree = json.loads(path.read_text())
            tree["categories"] = categories
            path.write_text(json.dumps(tree))
        assert open_data(DataSource(folder=str(tmp_path / "plain"))).categories == DIGITS
        shutil.rmtree(tmp_path / "plain")


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["categories"].append({"id": 3, "name": "twice"}), "two categories have the id 3"),
        (lambda tree: tree["categories"].append({"id": "x", "name": "odd"}), "a category's id must be a whole number"),
        (
            lambda tree: tree["categories"].append({"id": 99, "name": "star"}),
            "valid.json has other categories (4 categories (circle, square, triangle, star)) than",
        ),
        (lambda tree: tree.update(categories=[{"id": 9, "name": "a"}] * 2), "two categories have the id 9"),
    ],
)
def test_categories_that_contradict_each_other_are_never_passed_over(change, said, skip_bad, shapes_folder, tmp_path):
    with pytest.raises(DataError) as caught:
        open_data(DataSource(folder=str(changed(shapes_folder, tmp_path, change)), skip_bad=skip_bad))
    assert said in str(caught.value)


def test_a_box_of_no_category_is_blamed(shapes_folder, tmp_path):
    def change(tree):
        tree["annotations"][0].update(category_id=4)

    with pytest.raises(DataError) as caught:
        open_data(DataSource(folder=str(changed(shapes_folder, tmp_path, change))))
    assert any("must be one of the categories of the file, got 4" in line for line in caught.value.lines)


def changed(folder, tmp_path, change):
    shutil.copytree(folder, tmp_path / "changed")
    path = tmp_path / "changed" / "valid.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return tmp_path / "changed"


@pytest.mark.parametrize(
    ("entries", "used", "expected"),
    [
        ([{"id": number, "name": None} for number in range(1, 11)], range(1, 11), DIGITS),
        ([{"id": 0, "name": "digits"}, *({"id": n, "name": str(n - 1)} for n in range(1, 11))], range(1, 11), DIGITS),
        ([{"id": 5, "name": "a\nb"}, {"id": 2}], [5], Categories((2, 5), ("2", "a b"))),
        ("none", [], DIGITS),
    ],
)
def test_whether_categories_are_digits_is_asked_of_those_in_use(entries, used, expected):
    assert read_categories("train.json", entries, used) == expected


@pytest.mark.parametrize("first", [0, 2])
def test_digits_under_other_ids_are_refused_and_not_shifted(first):
    entries = [{"id": first + digit, "name": str(digit)} for digit in range(10)]
    with pytest.raises(DataError, match="but id"):
        read_categories("train.json", entries, range(first, first + 10))


def test_other_categories_train_and_only_numbers_are_left_out(shapes, shapes_folder, one_thread, tmp_path):
    seen = []
    small = {"model.min_size": 32, "model.max_size": 64, "data.images_per_epoch": 48, "optim.batch_size": 4}
    config = TrainConfig.from_flat({**small, "optim.epochs": 3, "optim.lr": 3e-3})
    train(config, shapes, seen.append, selection=Selection(metric="val_map_50"), device="cpu")
    last = seen[-1]
    assert last.metrics.val_map_50 > 0.5  # the model learned; chance gives far less for three classes
    assert last.metrics.val_digit_accuracy > 0.3
    assert last.metrics.val_number_accuracy is None
    assert {name.rpartition(".")[0] for name in last.model["left_out"]} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
    }
    found = last.valid.found
    table, detect = shapes.valid.table, config.detect
    assert last.metrics.val_map == pytest.approx(
        map_by_pycocotools(shapes_folder, last.valid, shapes, detect), abs=1e-6
    )
    swept = sweep(found, table, detect)
    assert np.isnan(swept.number_accuracy).all()
    assert swept.best("number_accuracy") is None
    assert swept.best("map") is not None
    truth = Truth.from_table(table)
    stored = StoredMatches(table.image_ids, truth, *match_tasks(found, shapes.valid, detect))
    write_matches(tmp_path / "m.parquet", stored, detect)
    assert not read_matches(tmp_path / "m.parquet").truth.numbers


def map_by_pycocotools(folder, valid, shapes, detect):
    """mAP from the unchanged annotation file, with detections that use the ids of the file."""
    kept = valid.task1.above(detect.task1.score, detect.task1.max_detections)
    results = [
        {
            "image_id": int(shapes.valid.table.image_ids[image]),
            "category_id": shapes.categories.ids[label - 1],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for image, label, box, score in zip(
            kept.image.tolist(), kept.labels.tolist(), kept.boxes.tolist(), kept.scores.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "valid.json"))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def test_a_preview_names_the_classes_and_check_counts_them(shapes, shapes_folder, tmp_path, capsys):
    change = Augmentation(AugmentConfig(pipeline="color"), 0, 1)
    write_sheet(shapes.train, change, 4, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert data.main(["check", str(shapes_folder)]) == 0
    out = capsys.readouterr().out
    assert "3 categories (circle, square, triangle): these are not digits, so no numbers are read" in out
    assert "boxes per image" in out
