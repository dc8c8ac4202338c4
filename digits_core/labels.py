"""Classes of a data set: digits, or whatever its annotation file names; the only place that adds one."""

from dataclasses import dataclass

NUM_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Categories:
    """The classes of a data set.

    The detector's label 0 is background; label 1 is the first of these.

    Attributes:
        ids: category ids of the annotation file, ascending; they need not be dense.
        names: their names.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Classes of the detector, background included."""
        return len(self.ids) + 1

    @property
    def are_digits(self) -> bool:
        """Whether they are the ten digits, so that the boxes of an image make a number."""
        return self == DIGITS

    @property
    def words(self) -> str:
        """What they are, for people."""
        return "digits" if self.are_digits else f"{len(self.ids)} categories ({', '.join(self.names)})"

    def label_of(self, category_id: int) -> int:
        """The detector's label of a category id.

        Raises:
            ValueError: there is no such category.
        """
        return self.ids.index(category_id) + 1

    def name_of(self, label: int) -> str:
        """The name of a label."""
        return self.names[label - 1]


DIGITS = Categories(tuple(range(1, NUM_DIGITS + 1)), tuple(str(digit) for digit in range(NUM_DIGITS)))
"""The course data's: category id 1 is the digit "0", 10 the digit "9"; labels and ids are the same."""

NUM_CLASSES = DIGITS.num_classes


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
    return [{"id": number, "name": name} for number, name in zip(DIGITS.ids, DIGITS.names, strict=True)]
