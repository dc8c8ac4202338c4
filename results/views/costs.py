"""The words for measured costs, by their columns on the leaderboard."""

from typing import NamedTuple


class CostWords(NamedTuple):
    """The words for a cost.

    Attributes:
        heading: of a column.
        unit: behind a number in a sentence.
        meaning: in full.
    """

    heading: str
    unit: str
    meaning: str


COST_WORDS = {
    "latency_ms": CostWords("ms", "ms", "milliseconds an image, one at a time"),
    "latency_ms_32": CostWords("ms in 32", "ms in batches of 32", "milliseconds an image, in batches of 32"),
    "megabytes": CostWords("megabytes", "MB", "megabytes"),
}
"""The costs of `schema.AIMS`."""

TIMES = ("latency_ms", "latency_ms_32")
"""Those that a leaderboard shows if they were measured."""
