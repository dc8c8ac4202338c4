"""YOLO and Pascal VOC folders become COCO folders; what is wrong with them is one sentence each."""

import json
import os
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from digits_core.data import command
from digits_core.data.convert import category_ids, convert
from digits_core.data.source import DataSource, check_data
from digits_core.errors import DataError
from digits_core.labels import DIGITS, coco_categories

SPLITS = {"train": "train", "valid": "val"}


def coco_rows(folder, split):
    """Image name without suffix, to (class name, box) of each annotation; and the categories."""
    tree = json.loads((folder / f"{split}.json").read_text())
    names = {row["id"]: row["name"] for row in tree["categories"]}
    rows = {row["id"]: (row["file_name"].rpartition(".")[0], []) for row in tree["images"]}
    for row in tree["annotations"]:
        rows[row["image_id"]][1].append((names[row["category_id"]], row["bbox"]))
    return dict(rows.values()), tree


def write_yolo(coco, out, names=DIGITS.names):
    """A YOLO folder with the images and boxes of a COCO folder; images without boxes have no label file."""
    for split, part in SPLITS.items():
        rows, tree = coco_rows(coco, split)
        shutil.copytree(coco / split, out / "images" / part)
        (out / "labels" / part).mkdir(parents=True)
        for image in tree["images"]:
            stem, (width, height) = image["file_name"].rpartition(".")[0], (image["width"], image["height"])
            lines = [
                f"{names.index(name)} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} "
                f"{w / width:.6f} {h / height:.6f}"
                for name, (x, y, w, h) in rows[stem]
            ]
            if lines:
                (out / "labels" / part / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    settings = {"train": "images/train", "val": "images/val", "nc": len(names), "names": list(names)}
    (out / "data.yaml").write_text(yaml.safe_dump(settings))
    return out


def voc_xml(name, width, height, boxes, more=""):
    objects = "".join(
        f"<object>\n<name>{label}</name>{more}\n<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>\n</object>\n"
        for label, (x0, y0, x1, y1) in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{name}</filename>\n{size}\n{objects}</annotation>\n"


def write_voc(coco, out):
    """A Pascal VOC folder of a COCO folder: boxes in whole pixels, counted from 1, the last one inside."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    for split, part in SPLITS.items():
        rows, tree = coco_rows(coco, split)
        stems = []
        for image in tree["images"]:
            stem = image["file_name"].rpartition(".")[0]
            stems.append(f"{split}_{stem}")
            shutil.copy(coco / split / image["file_name"], out / "JPEGImages" / f"{split}_{image['file_name']}")
            boxes = [
                (name, (round(x) + 1, round(y) + 1, round(x + w), round(y + h))) for name, (x, y, w, h) in rows[stem]
            ]
            text = voc_xml(image["file_name"], image["width"], image["height"], boxes)
            (out / "Annotations" / f"{split}_{stem}.xml").write_text(text)
        (out / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems) + "\n")
    return out


def run(*arguments):
    try:
        return command.main([str(one) for one in arguments])
    except SystemExit as error:
        return error.code


def said_by(capsys, folder, *more):
    """The sentences of a conversion that must fail and leave nothing behind."""
    out = folder.parent / "out"
    before = sorted(folder.parent.iterdir())
    assert run("convert", folder, "-o", out, *more) == 2
    assert sorted(folder.parent.iterdir()) == before
    return capsys.readouterr().err


def assert_same(original, copy, *, prefix=False):
    for split in SPLITS:
        wanted, (found, tree) = coco_rows(original, split)[0], coco_rows(copy, split)
        assert set(found) == {f"{split}_{stem}" if prefix else stem for stem in wanted}
        for stem, boxes in wanted.items():
            others = found[f"{split}_{stem}" if prefix else stem]
            assert [name for name, _ in others] == [name for name, _ in boxes]
            for (_, box), (_, other) in zip(boxes, others, strict=True):
                edges, near = (np.array([x, y, x + w, y + h]) for x, y, w, h in (box, other))
                assert np.abs(edges - near).max() <= 0.5 + 1e-6
        for image in tree["images"]:
            assert (copy / split / image["file_name"]).is_file()
    _, problems, _ = check_data(DataSource(folder=str(copy)))
    assert problems == []


def test_a_yolo_folder_comes_back_as_the_coco_folder_that_it_was_made_of(tiny_folder, tmp_path, capsys):
    yolo = write_yolo(tiny_folder, tmp_path / "yolo")
    assert run("convert", yolo, "-o", tmp_path / "coco") == 0
    printed = capsys.readouterr().out
    assert "wrote 8 train, 4 valid images" in printed
    assert "1 images have no label file and count as images without objects" in printed
    assert_same(tiny_folder, tmp_path / "coco")
    assert coco_rows(tmp_path / "coco", "train")[1]["categories"] == coco_categories()


def test_a_voc_folder_comes_back_as_the_coco_folder_that_it_was_made_of(tiny_folder, tmp_path, capsys):
    voc = write_voc(tiny_folder, tmp_path / "voc")
    assert run("convert", voc, "-o", tmp_path / "coco") == 0
    assert "wrote 8 train, 4 valid images" in capsys.readouterr().out
    assert_same(tiny_folder, tmp_path / "coco", prefix=True)
    assert coco_rows(tmp_path / "coco", "train")[1]["categories"] == coco_categories()


def test_other_classes_keep_the_order_of_yolo_and_are_sorted_by_name_in_voc(shapes_folder, tmp_path):
    order = ("triangle", "circle", "square")
    convert_to(write_yolo(shapes_folder, tmp_path / "yolo", order), tmp_path / "a")
    assert_same(shapes_folder, tmp_path / "a")
    assert [row["name"] for row in coco_rows(tmp_path / "a", "train")[1]["categories"]] == list(order)
    convert_to(write_voc(shapes_folder, tmp_path / "voc"), tmp_path / "b")
    assert_same(shapes_folder, tmp_path / "b", prefix=True)
    assert [row["name"] for row in coco_rows(tmp_path / "b", "valid")[1]["categories"]] == sorted(order)


def convert_to(place, out, **more):
    return convert(place, out, **({"valid_fraction": 0.25, "seed": 0, "link": False} | more))


def test_digits_have_their_own_ids_in_any_order_of_names():
    assert category_ids(list(reversed(DIGITS.names))) == dict(zip(DIGITS.names, DIGITS.ids, strict=True))
    assert category_ids(["1", "2"]) == {"1": 2, "2": 3}
    assert category_ids(["plate", "7"]) == {"plate": 11, "7": 8}
    assert category_ids(["b", "a"]) == {"b": 1, "a": 2}


@pytest.fixture
def yolo(tmp_path):
    """A YOLO folder of three 40 x 20 px images without `val`, each with one box."""
    root = tmp_path / "data"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(root / "images" / f"{number}.png")
        (root / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    return root


@pytest.fixture
def voc(tmp_path):
    """A VOC folder of three 40 x 20 px images without lists, each with one box."""
    root = tmp_path / "data"
    for part in ("Annotations", "JPEGImages"):
        (root / part).mkdir(parents=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 20), (number, 0, 0)).save(root / "JPEGImages" / f"{number}.jpg")
        text = voc_xml(f"{number}.jpg", 40, 20, [("cat", (1, 1, 40, 20))])
        (root / "Annotations" / f"{number}.xml").write_text(text)
    return root


shares = st.floats(0.02, 0.98)


@given(st.integers(1, 4000), st.integers(1, 4000), shares, shares, shares, shares)
def test_any_yolo_box_is_the_same_box_in_pixels(width, height, x0, x1, y0, y1):
    from digits_core.data.yolo import _read_box

    (x0, x1), (y0, y1) = sorted((x0, x1 + 0.01)), sorted((y0, y1 + 0.01))
    if x0 == x1 or y0 == y1:
        return
    words = f"1 {(x0 + x1) / 2:.9f} {(y0 + y1) / 2:.9f} {x1 - x0:.9f} {y1 - y0:.9f}".split()
    if 0 in (float(words[3]), float(words[4])):
        return
    name, left, top, wide, tall = _read_box(words, ["a", "b"], width, height)
    assert name == "b"
    edges = [x0 * width, y0 * height, x1 * width, y1 * height]
    assert np.allclose([left, top, left + wide, top + tall], edges, atol=1e-4)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500), st.integers(1, 500))
def test_any_voc_box_in_whole_pixels_is_exactly_the_same_box(left, top, wide, tall):
    from pathlib import Path

    from digits_core.data.formats import Labelled
    from digits_core.data.voc import _read_boxes

    tree = ET.fromstring(voc_xml("1.jpg", 1000, 1000, [("a", (left + 1, top + 1, left + wide, top + tall))]))
    assert list(_read_boxes(Labelled(), Path("1.xml"), tree, dict.fromkeys(tree.iter(), 1))) == [
        ("a", left, top, wide, tall)
    ]


@given(st.text(max_size=60))
def test_any_line_of_labels_is_a_box_or_a_sentence(line):
    from digits_core.data.yolo import _read_box

    if line.split():
        found = _read_box(line.split(), ["a"], 10, 10)
        assert isinstance(found, str) or (len(found) == 5 and all(np.isfinite(found[1:])))


def test_without_val_a_share_of_train_is_set_apart_and_the_seed_chooses(yolo, voc, tmp_path):
    for place in (yolo / "data.yaml", voc):
        chosen = set()
        for seed in range(8):
            out = tmp_path / f"{place.name}{seed}"
            assert convert_to(place, out, seed=seed).counts == {"train": 2, "valid": 1}
            chosen.update(coco_rows(out, "valid")[0])
        assert len(chosen) > 1


def test_link_shares_the_images_on_the_disk(yolo, tmp_path):
    assert run("convert", yolo, "-o", tmp_path / "copied") == 0
    assert run("convert", yolo, "-o", tmp_path / "linked", "--link") == 0
    images = {path.stat().st_ino for path in (yolo / "images").iterdir()}
    assert {path.stat().st_ino for path in (tmp_path / "linked").glob("*/*.png")} == images
    assert not {path.stat().st_ino for path in (tmp_path / "copied").glob("*/*.png")} & images


def test_a_file_system_without_hard_links_is_one_sentence(yolo, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert "cannot be hard-linked (Invalid cross-device link); copy it, without --link" in said_by(
        capsys, yolo, "--link"
    )


@pytest.mark.parametrize(
    "settings",
    [
        "train: images\nnames: {0: cat, 1: dog}",
        "path: .\ntrain: [images]\nnames: [cat, dog]\nnc: 2\nval:",
        "path: datasets/data\ntrain: images\nnames: [cat, dog]",
        "train: ../images\nnames: [cat, dog]",
        "train: list.txt\nnames: [cat, dog]",
    ],
)
def test_ways_to_name_the_images(settings, yolo, tmp_path):
    (yolo / "list.txt").write_text("./images/1.png\n\nimages/2.png\r\nimages/3.png\n")
    (yolo / "data.yaml").write_text(settings)
    assert convert_to(yolo, tmp_path / "coco").counts == {"train": 2, "valid": 1}
    boxes = coco_rows(tmp_path / "coco", "train")[0] | coco_rows(tmp_path / "coco", "valid")[0]
    assert boxes == {name: [("cat", [10, 5, 20, 10])] for name in "123"}


def test_images_of_one_name_in_two_folders_are_both_kept(yolo, tmp_path):
    shutil.copytree(yolo / "images", yolo / "more" / "images")
    (yolo / "data.yaml").write_text("train: [images, more/images]\nnames: [cat, dog]\n")
    done = convert_to(yolo, tmp_path / "coco")
    assert sum(done.counts.values()) == 6
    assert len(list((tmp_path / "coco").glob("*/*.png"))) == 6


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.5", "must be 'class cx cy w h', has 4 values"),
        ("0 0.5 0.5 0.5 0.5 0.9", "must be 'class cx cy w h', has 6 values"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9", "a polygon of 3 points; only boxes are read"),
        ("cat 0.5 0.5 0.5 0.5", "must be five numbers 'class cx cy w h', got 'cat 0.5 0.5 0.5 0.5'"),
        ("2 0.5 0.5 0.5 0.5", "class must be a whole number from 0 to 1, got 2"),
        ("-1 0.5 0.5 0.5 0.5", "class must be a whole number from 0 to 1, got -1"),
        ("0.5 0.5 0.5 0.5 0.5", "class must be a whole number from 0 to 1, got 0.5"),
        ("nan 0.5 0.5 0.5 0.5", "class must be a whole number from 0 to 1, got nan"),
        ("0 20 10 20 10", "cx, cy, w and h must be shares of the image from 0 to 1, got 20 10 20 10"),
        ("0 nan 0.5 0.5 0.5", "cx, cy, w and h must be shares of the image"),
        ("0 0.5 0.5 inf 0.5", "cx, cy, w and h must be shares of the image"),
        ("0 0.5 0.5 0 0.5", "an empty box: w 0, h 0.5"),
    ],
)
def test_a_wrong_line_of_labels_is_one_sentence_with_file_and_line(line, said, yolo, capsys):
    (yolo / "labels" / "2.txt").write_text(f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    error = said_by(capsys, yolo)
    assert f"labels/2.txt, line 3: {said}" in error
    assert "1 problem (listed above); nothing was converted" in error


def test_every_problem_is_listed_and_the_rest_counted(yolo, capsys):
    (yolo / "labels" / "1.txt").write_text("x\n" * 30)
    (yolo / "images" / "3.png").write_bytes(b"no picture")
    error = said_by(capsys, yolo)
    assert "labels/1.txt, line 20: " in error
    assert "and 11 more" in error
    assert "31 problems (listed above)" in error


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("train: images", "data.yaml: 'names' must list the class names"),
        ("names: [a]", "data.yaml: 'train' must be a folder of images"),
        ("train: images\nnames: [a, b", "data.yaml, line 2: broken YAML"),
        ("- train", "data.yaml: must hold the keys names, train and val"),
        ("", "data.yaml: must hold the keys names, train and val"),
        ("train: images\nnames: [a, b]\nnc: 3", "'nc' is 3, but 'names' lists 2 classes"),
        ("train: images\nnames: [a, a]", "two classes have the name 'a'"),
        ("train: images\nnames: [yes, no]", "the name of class 0 must be text; put it in quotes"),
        ("train: images\nnames: {0: a, 2: b}", "the keys of 'names' must be the numbers 0, 1, 2"),
        ("train: images\nnames: {0: a, b: b}", "the keys of 'names' must be the numbers 0, 1, 2"),
        ("train: nowhere\nnames: [a]", "'train' names nowhere, which is not there"),
        ("train: data.yaml\nnames: [a]", "'train' names data.yaml, which is neither a folder nor a .txt file"),
        ("train: images\nval: nowhere\nnames: [a]", "'val' names nowhere, which is not there"),
        ("train: labels\nnames: [a]", "'train' names no image"),
        ("train: 7\nnames: [a]", "'train' must be a folder of images"),
        ("path: elsewhere\ntrain: images\nnames: [a]", "'path' is 'elsewhere', which is no folder"),
        ("path: [a]\ntrain: images\nnames: [a]", "'path' must be the text of a path"),
        ("train: images\nval: images\nnames: [cat]", "images/1.png: is in train and in val"),
        (f"train: {'a' * 5000}\nnames: [a]", "which is not there"),
        ("train: images\nnames: &a [x, *a]", "uses YAML aliases (*name); write the values out"),
        ("train: images\nnames: !!python/object/apply:os.system [true]", "data.yaml, line 2: broken YAML"),
        ("train: images\nnames: [!!int '']", "data.yaml: broken YAML"),
        ("train: images\nnames: [!!bool x]", "data.yaml: broken YAML"),
        ("train: images\nnames: [!!timestamp x]", "data.yaml: broken YAML"),
        ("train: images\nnames: 2001-99-99", "data.yaml: broken YAML"),
        ("train: images\nnames: \a", "data.yaml: broken YAML"),
        ("names: " + "[" * 100_000, "data.yaml: holds lists inside lists, more than 20 deep"),
        (f"train: images\nnames: {list(range(300))}", "'names' lists 300 classes, more than 255"),
        (f"train: images\nnames: {list(range(20_000))}", "data.yaml: contains more than 10000 values"),
        ("#" * 2**21, "data.yaml: cannot be read: it"),
    ],
)
def test_a_wrong_yaml_file_is_one_sentence(settings, said, yolo, capsys):
    (yolo / "data.yaml").write_text(settings)
    error = said_by(capsys, yolo)
    assert said in error
    assert "Traceback" not in error


def test_files_of_labels_that_are_all_missing_are_one_sentence(yolo, capsys):
    shutil.rmtree(yolo / "labels")
    assert f"no image has a label file; the first one must be {yolo / 'labels' / '1.txt'}" in said_by(capsys, yolo)


def test_images_that_are_not_read_or_stored_turned_are_named(yolo, capsys):
    (yolo / "images" / "4.heic").write_bytes(b"")
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(yolo / "images" / "5.jpg", exif=exif)
    error = said_by(capsys, yolo)
    assert "images/4.heic: must be one of .bmp" in error
    assert "images/5.jpg: is stored turned (EXIF orientation)" in error


def test_a_line_of_an_image_list_that_is_wrong_is_named(yolo, capsys):
    (yolo / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]\n")
    (yolo / "list.txt").write_text(f"images/1.png\nimages/9.png\n{'a' * 3000}\ndata.yaml\n")
    error = said_by(capsys, yolo)
    assert "list.txt, line 2: there is no image images/9.png" in error
    assert "list.txt, line 3: there is no image aaa" in error
    assert "list.txt, line 4: must be one of .bmp" in error


def test_difficult_objects_are_ordinary_boxes_and_counted(voc, tmp_path, capsys):
    text = voc_xml("1.jpg", 40, 20, [("cat", (3, 5, 12, 9)), ("dog", (1, 1, 1, 1))], "<difficult>1</difficult>")
    (voc / "Annotations" / "1.xml").write_text(text)
    assert run("convert", voc, "-o", tmp_path / "coco") == 0
    assert "2 boxes are marked difficult; they are converted as ordinary boxes" in capsys.readouterr().out
    rows, trees = {}, []
    for split in SPLITS:
        found, tree = coco_rows(tmp_path / "coco", split)
        rows |= found
        trees.append(tree)
    assert rows["1"] == [("cat", [2, 4, 10, 5]), ("dog", [0, 0, 1, 1])]
    assert rows["2"] == [("cat", [0, 0, 40, 20])]  # 1 to 40 is the whole width
    assert {row["iscrowd"] for tree in trees for row in tree["annotations"]} == {0}


def test_boxes_of_parts_of_an_object_are_no_objects(voc, tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = voc_xml("1.jpg", 40, 20, [("cat", (3, 5, 12, 9))], part)
    (voc / "Annotations" / "1.xml").write_text(text)
    convert_to(voc, tmp_path / "coco")
    rows = coco_rows(tmp_path / "coco", "train")[0] | coco_rows(tmp_path / "coco", "valid")[0]
    assert rows["1"] == [("cat", [2, 4, 10, 5])]


def test_images_of_the_test_part_are_never_trained_on(voc, tmp_path):
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("2\n")
    (lists / "val.txt").write_text("3\n")
    convert_to(voc, tmp_path / "coco")
    assert set(coco_rows(tmp_path / "coco", "train")[0]) == {"1"}
    assert set(coco_rows(tmp_path / "coco", "valid")[0]) == {"3"}
    (lists / "trainval.txt").write_text("1\n2\n3\n")
    convert_to(voc, tmp_path / "both")
    assert set(coco_rows(tmp_path / "both", "train")[0]) == {"1", "2"}


BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "2.xml, line 1: broken XML"),
        ("<annotation>\n<object>\n</annotation>", "2.xml, line 3: broken XML: mismatched tag"),
        ("<html/>", "2.xml, line 1: must hold one <annotation>, got <html>"),
        (f"<annotation>\n<object>{BOX}</object></annotation>", "2.xml, line 2: an <object> has no <name>"),
        ("<annotation>\n\n<object><name>a</name></object></annotation>", "2.xml, line 3: an <object> has no <bndbox>"),
        (
            "<annotation><object><name>a</name>\n<bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "2.xml, line 2: <bndbox> must hold the numbers xmin, ymin, xmax and ymax",
        ),
        (voc_xml("2.jpg", 40, 20, [("a", ("nan", 1, 2, 2))]), "2.xml, line 6: <bndbox> must hold the numbers"),
        (voc_xml("2.jpg", 40, 20, [("a", (9, 1, 8, 2))]), "2.xml, line 6: an empty box: x 9 to 8, y 1 to 2"),
        (voc_xml("2.jpg", 20, 40, []), "2.xml: says 20 x 40 px, but 2.jpg is 40 x 20 px"),
        (
            f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]>\n<annotation>&l9;</annotation>',
            "2.xml, line 1: has a document type (<!DOCTYPE ...>), which is refused",
        ),
        (
            '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<a>&x;</a>',
            "2.xml, line 2: has a document type",
        ),
        ("<annotation>&undefined;</annotation>", "2.xml, line 1: broken XML: undefined entity"),
        ("<a>" * 100_000, "2.xml, line 1: broken XML: no element found"),
        (
            '<?xml version="1.0" encoding="nonsense"?><annotation><object/></annotation>',
            "2.xml, line 1: an <object> has no <name>",
        ),
    ],
)
def test_a_wrong_xml_file_is_one_sentence_with_file_and_line(text, said, voc, capsys):
    (voc / "Annotations" / "2.xml").write_text(text)
    error = said_by(capsys, voc)
    assert f"Annotations/{said}" in error
    assert "1 problem (listed above)" in error


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037"])
def test_a_document_type_cannot_hide_in_another_encoding(encoding, voc, capsys):
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'
    (voc / "Annotations" / "2.xml").write_bytes(text.encode(encoding))
    error = said_by(capsys, voc)
    assert "Annotations/2.xml: is not UTF-8 text" in error or "Annotations/2.xml, line 1: broken XML" in error


def test_an_image_of_voc_that_is_missing_doubled_or_damaged_is_named(voc, capsys):
    (voc / "JPEGImages" / "1.jpg").unlink()
    shutil.copy(voc / "JPEGImages" / "2.jpg", voc / "JPEGImages" / "2.jpeg")
    (voc / "JPEGImages" / "3.jpg").write_bytes(b"no picture")
    error = said_by(capsys, voc)
    assert "Annotations/1.xml: JPEGImages holds no image named 1" in error
    assert "Annotations/2.xml: JPEGImages holds 2 images named 2" in error
    assert "JPEGImages/3.jpg: cannot be read" in error


def test_a_wrong_line_of_a_voc_list_is_named(voc, capsys):
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(f"1\n9\n../../x\n..\n{'a' * 900}\n")
    (lists / "val.txt").write_text("2\n1\n")
    error = said_by(capsys, voc)
    assert "ImageSets/Main/train.txt, line 2: there is no Annotations/9.xml" in error
    assert "ImageSets/Main/train.txt, line 3: must be the name of an image, without a folder" in error
    assert "ImageSets/Main/train.txt, line 4: must be the name of an image, without a folder" in error
    assert "ImageSets/Main/train.txt, line 5: there is no Annotations/aaa" in error
    assert "ImageSets/Main/val.txt, line 2: 1 is in train.txt, too" in error
    (lists / "train.txt").write_text("\n")
    (lists / "val.txt").unlink()
    assert "the train part has no images; see ImageSets/Main" in said_by(capsys, voc)


def test_a_voc_folder_without_objects_is_one_sentence(voc, capsys):
    for path in (voc / "Annotations").iterdir():
        path.write_text(voc_xml("1.jpg", 40, 20, []))
    assert "no file of Annotations holds an object" in said_by(capsys, voc)


def test_too_few_images_to_set_some_apart_are_one_sentence(voc, capsys):
    assert "--valid-fraction 0.99 of 3 images leaves none to train on" in said_by(
        capsys, voc, "--valid-fraction", "0.99"
    )
    for number in (2, 3):
        (voc / "Annotations" / f"{number}.xml").unlink()
    assert "has one image and no validation part" in said_by(capsys, voc)


def test_what_is_no_data_set_is_one_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "contains no digitStruct.mat (SVHN), no data.yaml (YOLO) and no Annotations/*.xml (Pascal VOC)" in said_by(
        capsys, tmp_path / "empty"
    )
    (tmp_path / "a.txt").write_text("x")
    for name in ("a.txt", "nowhere"):
        assert f"{name}: must be a folder, or the YAML file of a YOLO folder" in said_by(capsys, tmp_path / name)


def test_data_that_must_be_converted_first_says_how(yolo, tmp_path):
    spaced = tmp_path / "my voc"
    (spaced / "Annotations").mkdir(parents=True)
    (spaced / "Annotations" / "1.xml").write_text("<annotation/>")
    struct = tmp_path / "svhn"
    (struct / "train").mkdir(parents=True)
    (struct / "train" / "digitStruct.mat").write_bytes(b"")
    for folder, kind, named in (
        (yolo, "a YOLO folder", f"{yolo}"),
        (yolo / "data.yaml", "a YOLO folder", f"{yolo / 'data.yaml'}"),
        (spaced, "a Pascal VOC folder", f"'{spaced}'"),
        (struct, "an SVHN folder", f"{struct}"),
    ):
        with pytest.raises(DataError) as caught:
            check_data(DataSource(folder=str(folder)))
        assert f"this is {kind}; convert it first with: digit-search data convert {named} -o OUT" in str(caught.value)


def test_a_coco_folder_with_a_yaml_file_in_it_is_a_coco_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "coco")
    (tmp_path / "coco" / "data.yaml").write_text("names: [a]")
    assert check_data(DataSource(folder=str(tmp_path / "coco")))[1] == []
