import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digits_core.evaluation.transcribe import read_number, reading_order


def number(*places, reading="left_to_right", side=(10, 20)):
    """Digits given as (centre x, centre y, digit)."""
    boxes = [(x - side[0] / 2, y - side[1] / 2, x + side[0] / 2, y + side[1] / 2) for x, y, _ in places]
    labels = np.array([digit + 1 for *_, digit in places], dtype=np.int64)
    return read_number(np.array(boxes, dtype=np.float32).reshape(-1, 4), labels, reading)


@pytest.mark.parametrize("reading", ["left_to_right", "main_axis"])
@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], "-1"),
        ([(5, 5, 0)], "0"),
        ([(30, 5, 7), (5, 5, 0), (18, 5, 4)], "047"),
        ([(5, 40, 1), (18, 22, 2), (31, 5, 3)], "123"),  # rising, as most slanted house numbers do
        ([(5, 5, 1), (18, 30, 2), (31, 52, 3)], "123"),  # falling steeply
    ],
)
def test_numbers_are_read_as_people_do(places, expected, reading):
    assert number(*places, reading=reading) == expected


def test_a_number_that_stands_one_digit_above_the_other_is_read_downwards_along_its_axis():
    assert number((9, 60, 3), (10, 8, 1), (11, 34, 2)) == "312"
    assert number((9, 60, 3), (10, 8, 1), (11, 34, 2), reading="main_axis") == "123"


def test_equal_places_keep_their_order():
    assert number((5, 5, 1), (5, 5, 2)) == "12"
    assert number((5, 5, 1), (5, 5, 2), reading="main_axis") == "12"


IMAGES = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 9)), max_size=5), max_size=5
)


@given(IMAGES, st.sampled_from(["left_to_right", "main_axis"]))
def test_many_images_are_read_as_each_alone(images, reading):
    image = np.repeat(np.arange(len(images)), [len(places) for places in images])
    flat = [place for places in images for place in places]
    boxes = np.array([(x, y, x + 6, y + 9) for x, y, _ in flat], dtype=np.float32).reshape(-1, 4)
    order = reading_order(image, boxes, reading)
    assert np.array_equal(image[order], image)
    for number_of_image, places in enumerate(images):
        mine = [flat[row][2] for row in order if image[row] == number_of_image]
        alone = [(x + 3, y + 4.5, digit) for x, y, digit in places]
        assert ("".join(map(str, mine)) or "-1") == number(*alone, reading=reading, side=(6, 9))
