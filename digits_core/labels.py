"""The classes of a data set: digits, or those of its annotation file. Converts digits, labels and category ids."""

from dataclasses import dataclass

NUM_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Categories:
    """The classes of a data set.

    Label 0 of the detector is background; label 1 is the first class.

    Attributes:
        ids: category ids of the annotation file, ascending; there can be gaps.
        names: the name of each category.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes of the detector, including background."""
        return len(self.ids) + 1

    @property
    def are_digits(self) -> bool:
        """Whether the classes are the ten digits, so that the boxes of an image form a number."""
        return self == DIGITS

    @property
    def words(self) -> str:
        """A description for messages."""
        return "digits" if self.are_digits else f"{len(self.ids)} categories ({', '.join(self.names)})"

    def label_of(self, category_id: int) -> int:
        """The label of a category id.

        Raises:
            ValueError: there is no such category.
        """
        return self.ids.index(category_id) + 1

    def name_of(self, label: int) -> str:
        """The name of a label."""
        return self.names[label - 1]


DIGITS = Categories(tuple(range(1, NUM_DIGITS + 1)), tuple(str(digit) for digit in range(NUM_DIGITS)))
"""The classes of the course data: category id 1 is the digit "0", 10 is the digit "9"; labels equal category ids."""

NUM_CLASSES = DIGITS.num_classes


def category_of(digit: int) -> int:
    """The COCO category id of a digit: 1 is the digit "0", 10 the digit "9".

    Raises:
        ValueError: `digit` is not in 0..9.
    """
    if not 0 <= digit < NUM_DIGITS:
        raise ValueError(f"a digit must be in 0..9, got {digit}")
    return digit + 1


def digit_of(category_id: int) -> int:
    """The digit of a COCO category id.

    Raises:
        ValueError: `category_id` is not in 1..10.
    """
    if not 1 <= category_id <= NUM_DIGITS:
        raise ValueError(f"a category id must be in 1..{NUM_DIGITS}, got {category_id}")
    return category_id - 1


def coco_categories() -> list[dict[str, object]]:
    """The `categories` list of an annotation file with digits."""
    return [{"id": number, "name": name} for number, name in zip(DIGITS.ids, DIGITS.names, strict=True)]
