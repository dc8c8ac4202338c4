import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from results.record.front import front_numbers

POINTS = arrays(np.float64, st.tuples(st.integers(0, 12), st.integers(1, 3)), elements=st.sampled_from([0.0, 0.5, 1.0]))


def beats(one, other):
    """Whether a point is at least as good in all aims and better in one: a large score, small costs."""
    pairs = [(one[0], other[0]), *((second, first) for first, second in zip(one[1:], other[1:], strict=True))]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(POINTS)
def test_fronts_are_peeled_off_one_after_the_other(points):
    points = [tuple(one) for one in points.tolist()]
    left, expected, number = set(range(len(points))), [0] * len(points), 0
    while left:
        number += 1
        first = {one for one in left if not any(beats(points[other], points[one]) for other in left)}
        for one in first:
            expected[one] = number
        left -= first
    assert front_numbers(points) == expected
