import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from digits_core.labels import category_of, coco_categories, digit_of
from digits_core.transcribe import NO_NUMBER, read_number


@given(st.text(alphabet="0123456789", min_size=1, max_size=6), st.randoms())
def test_digits_in_a_row_are_read_in_any_order_of_detection(number, random):
    order = list(range(len(number)))
    random.shuffle(order)
    boxes = np.array([[12 * place, 3, 12 * place + 10, 30] for place in order], dtype=np.float32)
    labels = np.array([category_of(int(number[place])) for place in order])
    assert read_number(boxes, labels) == number


def test_no_digit_is_minus_one():
    assert read_number(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)) == NO_NUMBER == "-1"


def test_category_one_is_the_digit_zero():
    assert [digit_of(category_of(digit)) for digit in range(10)] == list(range(10))
    assert coco_categories()[0] == {"id": 1, "name": "0"}
    assert coco_categories()[9] == {"id": 10, "name": "9"}
