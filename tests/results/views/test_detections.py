"""Detections as COCO files, against pycocotools."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import SHAPES
from digits_core.data.coco import Table
from digits_core.data.source import DataSource, valid_part
from results import export
from searched import Searched, annotations


def with_crowds(table):
    """Every seventh box is a crowd."""
    return dataclasses.replace(table, crowds=np.arange(len(table.labels)) % 7 == 3)


def searched(folder, table, about=None):
    """A run whose best trials are t0001 and t0003."""
    made = Searched(folder, table=table)
    for number, quality in enumerate((0.3, 0.9, 0.5, 0.7)):
        made.trial(f"t{number:04d}", quality, **{"optim.lr": 1e-3 + number * 1e-4})
    made.done()
    if about is not None:
        (folder / "run.json").write_text(json.dumps({"name": folder.name, **about}))
    return folder, made.events.record


def of_folder(folder, **source):
    """What run.json says about a COCO folder, and the table of its validation images."""
    data = DataSource(folder=str(folder), **source)
    part = valid_part(data)
    named = dict(zip(map(str, part.categories.ids), part.categories.names, strict=True))
    return {"settings": {"data": dataclasses.asdict(data)}, "data": {"categories": named}}, Table.from_part(part)


def pycocotools_map(truth, found):
    known = COCO(str(truth))
    scored = COCOeval(known, known.loadRes(str(found)), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    return scored.stats[0]


@pytest.fixture
def run(tmp_path):
    return searched(tmp_path / "runs" / "demo", with_crowds(annotations()))


def test_pycocotools_scores_the_two_best_as_the_leaderboard_does(run, tmp_path, capsys):
    folder, record = run
    assert export.main([str(folder), "--detections", str(tmp_path / "coco")]) == 0
    said = capsys.readouterr().out
    written = sorted(path.relative_to(tmp_path / "coco").as_posix() for path in (tmp_path / "coco").rglob("*.json"))
    assert written == ["t0001/detections.json", "t0003/detections.json", "truth.json"]
    for trial_id in ("t0001", "t0003"):
        found = tmp_path / "coco" / trial_id / "detections.json"
        board = record.value(record.trials[trial_id])
        assert pycocotools_map(tmp_path / "coco" / "truth.json", found) == pytest.approx(board, abs=1e-6)
    truth = json.loads((tmp_path / "coco" / "truth.json").read_text())
    assert sum(one["iscrowd"] for one in truth["annotations"]) == int(with_crowds(annotations()).crowds.sum())
    assert "has no names and sizes of images" in said
    assert "--data FOLDER" in said


def test_names_sizes_and_category_ids_are_those_of_the_data(shapes_folder, tmp_path, capsys):
    about, table = of_folder(shapes_folder)
    folder, _ = searched(tmp_path / "runs" / "demo", table, about)
    assert export.main([str(folder), "--detections", str(tmp_path / "coco")]) == 0
    truth, known = (
        json.loads(path.read_text()) for path in (tmp_path / "coco/truth.json", shapes_folder / "valid.json")
    )
    assert truth["images"] == known["images"]
    assert truth["categories"] == known["categories"]
    boxes = [
        sorted((one["image_id"], one["category_id"], *one["bbox"]) for one in tree["annotations"])
        for tree in (truth, known)
    ]
    assert boxes[0] == boxes[1]
    found = json.loads((tmp_path / "coco" / "t0001" / "detections.json").read_text())
    assert {one["category_id"] for one in found} <= set(SHAPES)
    assert f"the images are in {shapes_folder / 'valid'}" in capsys.readouterr().out


def test_images_split_from_the_training_part_are_named_in_its_folder(tiny_folder, tmp_path, capsys):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "train.json").write_bytes((tiny_folder / "train.json").read_bytes())
    about, table = of_folder(tmp_path / "only", valid_fraction=0.5)
    folder, _ = searched(tmp_path / "runs" / "demo", table, about)
    assert export.main([str(folder), "--detections", str(tmp_path / "coco")]) == 0
    truth = json.loads((tmp_path / "coco" / "truth.json").read_text())
    assert [one["id"] for one in truth["images"]] == table.image_ids.tolist()
    assert all(one["file_name"] == f"{one['id']}.png" for one in truth["images"])
    assert f"the images are in {tmp_path / 'only' / 'train'}" in capsys.readouterr().out


def test_a_single_configuration_has_no_runner_up(tmp_path, capsys):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    assert export.main([str(made.done()), "--detections", str(tmp_path / "coco")]) == 0
    assert "only one configuration has a score" in capsys.readouterr().out
    assert [one.parent.name for one in (tmp_path / "coco").glob("*/detections.json")] == ["t0000"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--detections", "{new}", "-o", "x.csv"], "--detections: cannot be combined with -o"),
        (["--detections", "{new}", "--table", "epochs"], "--detections: cannot be combined with --table"),
        (["--detections", "{full}"], "is not empty; name a new folder"),
        (["--detections", "{new}", "--data", "{other}"], "its validation images are not those of the run"),
        (["--detections", "{new}", "--data", "{new}"], "no such folder"),
        (["--data", "x"], "--data: has an effect only together with --detections"),
        ([], "-o is missing: name a file to write, or give --detections FOLDER"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(arguments, said, run, tiny_folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    places = {"new": tmp_path / "new", "full": tmp_path / "full", "other": tiny_folder}
    before = sorted(Path(tmp_path).rglob("*"))
    assert export.main([str(run[0]), *(text.format(**places) for text in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_match_tables_of_an_older_version_are_named(run, tmp_path, capsys):
    from results.tables.parquet import read_arrow, write_table

    folder, _ = run
    path = folder / "matches" / "t0003.parquet"
    write_table(path, read_arrow(path, "").drop_columns(["truth_boxes", "crowds", "crowd_boxes"]))
    assert export.main([str(folder), "--detections", str(tmp_path / "coco")]) == 2
    assert f"{path}: an older version wrote it without the annotated boxes" in capsys.readouterr().err
    assert not (tmp_path / "coco").exists()
