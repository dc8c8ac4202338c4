import json

import numpy as np
import pytest
from PIL import Image

from digits_core.data.cache import open_data
from digits_core.data.coco import read_part
from digits_core.data.command import main
from digits_core.data.source import DataSource, check_data
from digits_core.errors import DataError


def image(number=1, **more):
    return {"id": number, "file_name": f"{number}.png", "width": 60, "height": 40, **more}


def box(number=1, image_id=1, **more):
    return {"id": number, "image_id": image_id, "bbox": [5, 5, 10, 20], "category_id": 3, "iscrowd": 0, **more}


@pytest.fixture
def folder(tmp_path):
    """A writer of small COCO folders: image files exist for images 1 to 4 of train and 1 to 2 of valid."""

    def write(train=None, valid=None, pictures=True):
        root = tmp_path / "data"
        for split, count, tree in (("train", 4, train), ("valid", 2, valid)):
            (root / split).mkdir(parents=True)
            rows = [image(number) for number in range(1, count + 1)]
            boxes = [box(number, number) for number in range(1, count + 1)]
            default = {"images": rows, "annotations": boxes, "categories": []}
            tree = default | (tree or {}) if not isinstance(tree, str) else tree
            text = tree if isinstance(tree, str) else json.dumps(tree)
            (root / f"{split}.json").write_text(text)
            for number in range(1, count + 1) if pictures else ():
                pixels = np.random.default_rng([count, number]).integers(0, 255, (40, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / f"{number}.png")
        return root

    return write


def problems_of(root):
    return [str(problem) for problem in check_data(DataSource(folder=str(root)))[1]]


def test_a_sound_folder_has_no_problem(folder):
    assert problems_of(folder()) == []


GOOD = [image(number) for number in range(1, 5)]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ("{", "train.json: invalid JSON"),
        ("[]", "train.json: must be one JSON object"),
        ('{"images": []}', "train.json: has no list 'annotations'"),
        ({"images": []}, "an empty split"),
        ({"annotations": []}, "train.json: no annotations"),
        ({"images": [*GOOD, image(2)]}, "image 2: two images have this id"),
        ({"images": [*GOOD, image("x")]}, "an image's id must be a whole number"),
        ({"images": [*GOOD, image(9, file_name="../valid/1.png")]}, "image 9: file_name must be a path inside"),
        ({"images": [*GOOD, image(9, file_name="/etc/passwd")]}, "image 9: file_name must be a path inside"),
        ({"images": [*GOOD, image(9)]}, "train/9.png, image 9: is missing"),
        (
            {"images": [*GOOD[:3], image(4, width=61)]},
            "train/4.png, image 4: is 60 x 40 px, but the annotations say 61 x 40",
        ),
        ({"images": [*GOOD[:3], image(4, height=0)]}, "image 4: width and height must be whole numbers above 0"),
        ({"annotations": [box(1), box(1)]}, "image 1, annotation 1: two annotations have this id"),
        ({"annotations": [box(None)]}, "an annotation's id must be a whole number"),
        ({"annotations": [box(1, 99)]}, "annotation 1: image_id 99 does not exist"),
        ({"annotations": [box(1, category_id=0)]}, "annotation 1: category_id must be from 1 to 10"),
        ({"annotations": [box(1, category_id=11)]}, "annotation 1: category_id must be from 1 to 10"),
        ({"annotations": [box(1, iscrowd=2)]}, "annotation 1: iscrowd must be 0 or 1, got 2"),
        ({"annotations": [box(1, bbox=[5, 5, 0, 20])]}, "annotation 1: the box is empty: 0 x 20 px"),
        ({"annotations": [box(1, bbox=[55, 5, 30, 20])]}, "annotation 1: box [55, 5, 30, 20] leaves its 60 x 40 image"),
        ({"annotations": [box(1, bbox=[5, 5, 10])]}, "annotation 1: bbox must be [x_min, y_min, width, height]"),
        ({"annotations": [box(1, bbox=[5, 5, 10, "tall"])]}, "annotation 1: bbox must be"),
        ({"annotations": [box(1, bbox=[5, 5, 10, float("inf")])]}, "annotation 1: bbox must be"),
        ({"annotations": ["box"]}, "an entry of 'annotations' is not an object"),
        ({"images": ["picture"]}, "an entry of 'images' is not an object"),
    ],
)
def test_each_fault_is_named_with_file_image_and_annotation(folder, tree, said):
    assert any(said in problem for problem in problems_of(folder(train=tree))), problems_of


def test_all_problems_are_reported_together(folder):
    root = folder(train={"annotations": [box(1, category_id=11), box(2, 2, bbox=[0, 0, 0, 0]), box(3, 77), box(4, 4)]})
    (root / "train" / "2.png").write_bytes(b"no picture")
    (root / "train" / "3.png").unlink()
    assert len(problems_of(root)) == 5


def test_a_cut_off_picture_is_unreadable(folder):
    root = folder()
    whole = (root / "train" / "1.png").read_bytes()
    (root / "train" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert problems_of(root) == ["train/1.png, image 1: cannot be read: it is not a complete image file"]


def test_the_same_picture_in_train_and_valid_is_found_even_when_saved_anew(folder):
    root = folder()
    Image.open(root / "valid" / "2.png").save(root / "train" / "3.png", compress_level=0)
    assert problems_of(root) == ["train/3.png, image 3: is the same image as image 2 of valid"]


def test_a_link_out_of_the_image_folder_is_refused(folder, tmp_path):
    root = folder()
    outside = tmp_path / "outside.png"
    (root / "train" / "1.png").rename(outside)
    (root / "train" / "1.png").symlink_to(outside)
    assert problems_of(root) == ["train/1.png, image 1: is a link that leaves the image folder"]


def test_small_overhangs_are_clipped_and_counted(folder):
    root = folder(train={"annotations": [box(1, bbox=[-1, 5, 10, 20]), box(2, 2, bbox=[5, 10, 10, 32])]})
    data = open_data(DataSource(folder=str(root)))
    assert data.notes["clipped_boxes"] == 2
    assert data.train.table.boxes.tolist() == [[0, 5, 9, 25], [5, 10, 15, 40]]


def test_problems_stop_a_search_unless_they_are_skipped_and_counted(folder):
    root = folder(train={"annotations": [box(1), box(2, 2, category_id=99)]})
    (root / "train" / "4.png").unlink()
    with pytest.raises(DataError, match="the data has 2 problems") as caught:
        open_data(DataSource(folder=str(root)))
    assert len(caught.value.lines) == 2
    data = open_data(DataSource(folder=str(root), skip_bad=True))
    assert data.notes["skipped"] == 2
    assert data.train.table.image_ids.tolist() == [1, 2, 3]
    assert data.train.table.box_start.tolist() == [0, 1, 1, 1]


def test_a_folder_without_valid_is_split_by_fraction_and_seed(folder):
    root = folder()
    (root / "valid.json").unlink()

    def ids(**how):
        data = open_data(DataSource(folder=str(root), valid_fraction=0.5, **how))
        return data.train.table.image_ids.tolist(), data.valid.table.image_ids.tolist()

    train, valid = ids()
    assert sorted(train + valid) == [1, 2, 3, 4]
    assert len(valid) == 2
    assert ids() == (train, valid)
    assert any(ids(split_seed=seed) != (train, valid) for seed in range(1, 6))


def test_other_file_names_are_taken(folder):
    root = folder()
    (root / "train.json").rename(root / "a.json")
    (root / "train").rename(root / "pictures")
    data = open_data(DataSource(folder=str(root), train_json="a.json", train_dir="pictures"))
    assert len(data.train) == 4


def test_a_part_of_crowds_alone_cannot_be_searched_on(folder):
    root = folder(valid={"annotations": [box(1, iscrowd=1), box(2, 2, iscrowd=1)]})
    with pytest.raises(DataError, match=r"the valid part of .* has no usable box"):
        open_data(DataSource(folder=str(root)))


def test_crowds_are_kept_apart_from_digits(folder):
    root = folder(train={"annotations": [box(1, iscrowd=1), box(2, 2)]})
    data = open_data(DataSource(folder=str(root)))
    assert data.train.table.crowds.tolist() == [True, False]
    assert data.notes["crowd_boxes"] == 1


@pytest.mark.parametrize(
    ("make", "said"), [("none", "no such folder"), ("file", "it is a file"), ("empty", "train.json")]
)
def test_a_folder_that_is_none_is_one_sentence(tmp_path, make, said):
    path = tmp_path / "x"
    if make == "file":
        path.write_text("")
    if make == "empty":
        path.mkdir()
    with pytest.raises(DataError, match=said):
        open_data(DataSource(folder=str(path)))


def test_annotations_that_are_deeply_nested_are_broken_json(tmp_path):
    part = read_part("train", tmp_path / "train.json", b"[" * 200_000)
    assert "invalid JSON" in str(part.problems[0])


def test_check_command_lists_problems_and_exits_with_two(folder, capsys):
    root = folder(train={"annotations": [box(1, category_id=11)]})
    assert main(["check", str(root)]) == 2
    captured = capsys.readouterr()
    assert "category_id must be from 1 to 10" in captured.out
    assert captured.err.startswith("digits_core.data: ")
    assert captured.err.count("\n") == 1


def test_check_command_describes_a_sound_folder(folder, capsys):
    assert main(["check", str(folder())]) == 0
    out = capsys.readouterr().out
    assert "train: 4 images, 60 to 60 px wide; 4 digits, median 10 x 20 px" in out
    assert "no problem found" in out
