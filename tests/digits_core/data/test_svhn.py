import json

import h5py
import numpy as np
import pytest
from PIL import Image

from digits_core.data.command import main
from digits_core.data.source import DataSource, check_data
from digits_core.data.svhn import read_digit_struct
from digits_core.errors import DataError

IMAGES = {
    "1.png": [(10.0, 5.0, 8.0, 20.0, 1), (20.0, 5.0, 8.0, 20.0, 10)],
    "2.png": [(4.0, 4.0, 9.0, 22.0, 7)],
    "3.png": [(4.0, 4.0, 9.0, 22.0, 2), (15.0, 4.0, 9.0, 22.0, 3), (26.0, 4.0, 9.0, 22.0, 4)],
}


def write_struct(folder, images):
    """A digitStruct.mat as MATLAB 7.3 writes it: references to names, and to groups of boxes."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "digitStruct.mat", "w") as file:
        names = file.create_dataset("digitStruct/name", (len(images), 1), dtype=h5py.ref_dtype)
        groups = file.create_dataset("digitStruct/bbox", (len(images), 1), dtype=h5py.ref_dtype)
        for row, (name, boxes) in enumerate(images.items()):
            text = file.create_dataset(
                f"#refs#/name{row}", data=np.array([[ord(sign)] for sign in name], dtype=np.uint16)
            )
            names[row, 0] = text.ref
            group = file.create_group(f"#refs#/box{row}")
            groups[row, 0] = group.ref
            for column, key in enumerate(("left", "top", "width", "height", "label")):
                values = [box[column] for box in boxes]
                if len(values) == 1:
                    group.create_dataset(key, data=np.array([[values[0]]], dtype=float))
                    continue
                cells = group.create_dataset(key, (len(values), 1), dtype=h5py.ref_dtype)
                for place, value in enumerate(values):
                    cell = file.create_dataset(f"#refs#/{row}{key}{place}", data=np.array([[float(value)]]))
                    cells[place, 0] = cell.ref
    for number, name in enumerate(images):
        pixels = np.full((30, 48, 3), number * 40, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def test_names_and_boxes_are_read_one_or_many(tmp_path):
    write_struct(tmp_path / "train", IMAGES)
    found = dict(read_digit_struct(tmp_path / "train" / "digitStruct.mat"))
    assert found["1.png"] == [(10, 5, 8, 20, 1), (20, 5, 8, 20, 0)]  # label 10 is the digit 0
    assert found["2.png"] == [(4, 4, 9, 22, 7)]
    assert [digit for *_, digit in found["3.png"]] == [2, 3, 4]


def test_convert_makes_a_sound_coco_folder(tmp_path, capsys):
    many = {f"{number}.png": IMAGES["2.png"] for number in range(1, 6)}
    write_struct(tmp_path / "svhn" / "train", many)
    write_struct(tmp_path / "svhn" / "test", {"1.png": IMAGES["1.png"]})
    out = tmp_path / "coco"
    assert main(["convert", str(tmp_path / "svhn"), "-o", str(out), "--valid-fraction", "0.4"]) == 0
    trees = {split: json.loads((out / f"{split}.json").read_text()) for split in ("train", "valid", "test")}
    assert len(trees["train"]["images"]) + len(trees["valid"]["images"]) == 5
    assert trees["train"]["annotations"][0]["category_id"] == 8  # the digit 7
    assert trees["train"]["annotations"][0]["bbox"] == [4, 4, 9, 22]
    assert [row["category_id"] for row in trees["test"]["annotations"]] == [2, 1]
    _, problems, _ = check_data(DataSource(folder=str(out)))
    assert all("same image" not in str(problem) for problem in problems)


def test_convert_takes_a_single_folder(tmp_path):
    write_struct(tmp_path / "one", IMAGES)
    assert main(["convert", str(tmp_path / "one"), "-o", str(tmp_path / "coco")]) == 0


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n" + b"\x00" * 100])
def test_a_damaged_struct_is_one_sentence(tmp_path, content):
    (tmp_path / "digitStruct.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged or not a digitStruct\.mat file"):
        list(read_digit_struct(tmp_path / "digitStruct.mat"))


def test_a_damaged_picture_is_one_sentence_and_leaves_no_half_folder(tmp_path, capsys):
    write_struct(tmp_path / "train", IMAGES)
    (tmp_path / "train" / "2.png").write_bytes(b"no picture")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["convert", str(tmp_path / "train"), "-o", str(tmp_path / "out")]) == 2
    assert "2.png cannot be read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_nothing_to_convert_is_one_sentence(tmp_path, capsys):
    assert main(["convert", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "contains no digitStruct.mat (SVHN)" in capsys.readouterr().err


def test_a_named_image_that_is_missing_or_elsewhere_is_refused(tmp_path, capsys):
    write_struct(tmp_path / "train", {"1.png": IMAGES["1.png"]})
    (tmp_path / "train" / "1.png").unlink()
    assert main(["convert", str(tmp_path / "train"), "-o", str(tmp_path / "out")]) == 2
    assert "refers to the image 1.png, which does not exist" in capsys.readouterr().err


def test_link_shares_the_images_on_the_disk(tmp_path):
    write_struct(tmp_path / "one", IMAGES)
    assert main(["convert", str(tmp_path / "one"), "-o", str(tmp_path / "coco"), "--link"]) == 0
    images = {path.stat().st_ino for path in (tmp_path / "one").glob("*.png")}
    assert {path.stat().st_ino for path in (tmp_path / "coco").glob("*/*.png")} == images
