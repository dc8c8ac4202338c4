"""Raw detections of a few boxes, for tests of what happens before NMS."""

import numpy as np
from hypothesis import strategies as st

from digits_core.evaluation.matching import Candidates

numbers = st.integers(0, 12)
boxes = st.tuples(numbers, numbers, st.integers(1, 12), st.integers(1, 12), st.integers(1, 64), st.integers(1, 2))


def of_images(images):
    return Candidates.of_images(
        [
            (
                np.array([(x, y, x + w, y + h) for x, y, w, h, *_ in rows], np.float32).reshape(-1, 4),
                np.array([score / 64 for *_, score, _ in rows], np.float32),
                np.array([label for *_, label in rows], np.int64),
                np.ones(4, np.float32),
            )
            for rows in images
        ]
    )


def overlap(a, b):
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(tall, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
