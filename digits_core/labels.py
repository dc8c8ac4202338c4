"""Digits and their COCO categories; the only place that adds one."""

NUM_DIGITS = 10
NUM_CLASSES = NUM_DIGITS + 1
"""Classes of the detector: background (0) and category ids 1..10."""


def category_of(digit: int) -> int:
    """The COCO category id of a digit: 1 is the digit "0", 10 the digit "9".

    Raises:
        ValueError: `digit` lies outside 0..9.
    """
    if not 0 <= digit < NUM_DIGITS:
        raise ValueError(f"a digit lies in 0..9, got {digit}")
    return digit + 1


def digit_of(category_id: int) -> int:
    """The digit of a COCO category id.

    Raises:
        ValueError: `category_id` lies outside 1..10.
    """
    if not 1 <= category_id <= NUM_DIGITS:
        raise ValueError(f"a category id lies in 1..{NUM_DIGITS}, got {category_id}")
    return category_id - 1


def coco_categories() -> list[dict[str, object]]:
    """The `categories` list of an annotation file of digits."""
    return [{"id": category_of(digit), "name": str(digit)} for digit in range(NUM_DIGITS)]
