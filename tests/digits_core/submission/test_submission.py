import contextlib
import csv
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from digits_core import predict
from digits_core.errors import DataError
from digits_core.submission.files import (
    NOTE,
    Detection,
    check_csv,
    check_file,
    check_json,
    numbered_images,
    write_submission,
)

SIZES = {1: (60, 40), 2: (30, 30), 10: (100, 50), 11: None}

GOOD = {"image_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5, "category_id": 3}


def problems_of(entry):
    return [line for line in check_json(json.dumps([entry]).encode(), SIZES) if not line.startswith(NOTE)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 3}, "image_id 3 is not an image of the folder"),
        ({"image_id": "1"}, "image_id '1' is not an image of the folder"),
        ({"image_id": True}, "image_id True is not an image"),
        ({"category_id": 0}, "category_id must be a whole number from 1 to 10, got 0"),
        ({"category_id": 11}, "from 1 to 10, got 11"),
        ({"category_id": 1.5}, "from 1 to 10, got 1.5"),
        ({"score": 1.2}, "score must be a number from 0 to 1, got 1.2"),
        ({"score": float("nan")}, "score must be a number from 0 to 1, got nan"),
        ({"bbox": [1, 2, 3]}, "bbox must be [x_min, y_min, width, height] of finite numbers"),
        ({"bbox": [1, 2, 3, float("inf")]}, "of finite numbers"),
        ({"bbox": [1, 2, 0, 5]}, "the box is empty: 0 x 5 px"),
        ({"bbox": [55, 2, 10, 5]}, "leaves its 60 x 40 image"),
        ({"bbox": [-1, 2, 10, 5]}, "leaves its 60 x 40 image"),
    ],
)
def test_each_fault_of_a_detection_is_named(change, said):
    [problem] = problems_of(GOOD | change)
    assert problem.startswith("entry 0: ")
    assert said in problem


def test_good_detections_pass_and_missing_keys_are_named():
    assert problems_of(GOOD) == []
    assert problems_of(GOOD | {"image_id": 11, "bbox": [0, 0, 9999, 5]}) == []  # its size is not known
    assert problems_of({name: GOOD[name] for name in GOOD if name != "score"}) == ["entry 0: has no 'score'"]
    assert list(check_json(b"{}", SIZES)) == ["must be one JSON list of detections"]
    assert "invalid JSON" in next(iter(check_json(b"[", SIZES)))


HEAD = "image_id,pred_label\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with the line image_id,pred_label, got nothing"),
        ("id,label\n", "must begin with the line image_id,pred_label, got id,label"),
        (HEAD + "1,4\n2,-1\n10,7\n", "images without a line: 11"),
        (HEAD + "1,4\n1,5\n2,-1\n10,7\n11,2\n", "line 3: image 1 is already in line 2"),
        (HEAD + "1,4\n10,7\n2,-1\n11,2\n", "line 4: image 2 comes after 10; sort the lines by number"),
        (HEAD + "1,4\n2,x\n10,7\n11,2\n", "line 3: pred_label must be digits, or -1 for none, got 'x'"),
        (HEAD + "1,4\n2,\n10,7\n11,2\n", "line 3: pred_label must be digits"),
        (HEAD + "1,4\n2,1,2\n2,1\n10,7\n11,2\n", "line 3: must have two columns"),
        (HEAD + "7,4\n1,1\n2,1\n10,7\n11,2\n", "line 2: image_id '7' is not an image of the folder"),
    ],
)
def test_each_fault_of_a_csv_is_named(text, said):
    assert any(said in problem for problem in check_csv(text.encode(), SIZES))


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 10]), st.floats(0, 1), st.integers(1, 10)), max_size=8),
    st.dictionaries(st.sampled_from(list(SIZES)), st.from_regex(r"[0-9]{1,5}", fullmatch=True)),
)
def test_what_we_write_passes_our_check(tmp_path_factory, rows, numbers):
    folder = tmp_path_factory.mktemp("written")
    lines = [Detection(image, (0.0, 0.0, 30.0, 30.0), score, category) for image, score, category in rows]
    names = write_submission(folder, lines, dict.fromkeys(SIZES, "-1") | numbers)
    assert names == ["pred.json", "pred.csv", "submission.zip"]
    for name in names:
        assert all(line.startswith(NOTE) for line in check_file(folder / name, SIZES))
    with (folder / "pred.csv").open() as file:
        assert [int(row["image_id"]) for row in csv.DictReader(file)] == sorted(SIZES)


def test_a_zip_holds_both_files_and_nothing_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("sub/pred.json", "[]")
    found = list(check_file(tmp_path / "s.zip", SIZES))
    assert found == [
        "contains no pred.json at its root",
        "contains no pred.csv at its root",
        "contains sub/pred.json, which does not belong to a submission",
    ]
    (tmp_path / "t.zip").write_bytes(b"PK no zip")
    assert "is not a complete zip file" in next(iter(check_file(tmp_path / "t.zip", SIZES)))
    with pytest.raises(DataError, match=r"must be a \.json, a \.csv or a \.zip file"):
        list(check_file(tmp_path, SIZES))


def test_images_are_known_by_their_numbers(tmp_path):
    for name in ("10.png", "9.png", "2.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(numbered_images(tmp_path)) == [2, 9, 10]
    (tmp_path / "002.png").write_bytes(b"")
    with pytest.raises(DataError, match="has the same number"):
        numbered_images(tmp_path)
    (tmp_path / "002.png").rename(tmp_path / "cat.png")
    with pytest.raises(DataError, match=r"the name of an image must be a number, like 12\.png"):
        numbered_images(tmp_path)
    for folder, said in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "contains no image")):
        if folder.name == "empty":
            folder.mkdir()
        with pytest.raises(DataError, match=said):
            numbered_images(folder)


def test_the_command_lists_what_is_wrong(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "images" / "1.png")
    (tmp_path / "pred.json").write_text(json.dumps([GOOD]))
    assert predict.main(["--check", str(tmp_path / "pred.json"), str(tmp_path / "images")]) == 0
    assert "no problem found" in capsys.readouterr().out
    (tmp_path / "pred.json").write_text(json.dumps([GOOD | {"score": 7}, GOOD | {"image_id": 5}]))
    assert predict.main(["--check", str(tmp_path / "pred.json"), str(tmp_path / "images")]) == 1
    assert "2 problems" in capsys.readouterr().out


def test_damage_of_any_kind_is_a_finding_and_no_traceback(tmp_path):
    sizes = {1: (40, 20), 2: (40, 20)}
    write_submission(tmp_path, [Detection(1, (1.0, 2.0, 3.0, 4.0), 0.5, 3)] * 200, {1: "2", 2: "-1"})
    whole = (tmp_path / "submission.zip").read_bytes()
    random = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            broken[place] = random.integers(0, 256)
        (tmp_path / "broken.zip").write_bytes(bytes(broken))
        with contextlib.suppress(DataError):
            found += bool(list(check_file(tmp_path / "broken.zip", sizes)))
    assert found > 200
    huge = "9" * 400
    entry = f'[{{"image_id": 1, "bbox": [1, 2, 3, {huge}], "score": {huge}, "category_id": 1}}]'
    assert "score must be a number from 0 to 1" in next(check_json(entry.encode(), sizes))
    lines = f"image_id,pred_label\n{'9' * 5000},1\n".encode()
    assert "is not an image of the folder" in next(check_csv(lines, sizes))


def test_a_link_out_of_the_folder_and_an_image_of_another_kind_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "images" / "1.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="is a link that leaves the folder"):
        numbered_images(tmp_path / "images")
    (tmp_path / "images" / "1.png").unlink()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "2.tif")
    with pytest.raises(DataError, match=r"2\.tif: an image must be one of"):
        numbered_images(tmp_path / "images")


def test_what_may_not_be_meant_is_a_note():
    entry = GOOD | {"image_id": 10}
    found = list(check_json(json.dumps([entry] * 101).encode(), SIZES))
    assert all(line.startswith(NOTE) for line in found)
    assert "3 of 4 images have no detection" in found[0]
    assert "image 10 has 101 detections" in found[1]
    assert "100 detections are duplicates" in found[2]
    assert next(check_csv(b"\xef\xbb\xbfimage_id,pred_label\n", SIZES)).startswith("begins with a byte-order mark")
