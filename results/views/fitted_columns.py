"""Which columns of a table fit a terminal: texts and details are hidden before scores, and numbers are never cut."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

TEXT_WIDTH = 12
"""Letters of a text that must fit; the rest continues on another line, after a comma or a space, or is cut."""

LOOSE, TIGHT = 3, 2
"""Characters between two columns, in a wide and in a narrow terminal."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a printed table.

    Attributes:
        name: its key in the cells of a row.
        heading: the printed heading.
        is_text: whether long cells need not fit completely.
        width: the characters that it needs.
        longest: the characters of its longest cell, or of its heading.
    """

    name: str
    heading: str
    is_text: bool
    width: int
    longest: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """The columns that fit a terminal.

    Attributes:
        columns: in order.
        hidden: the headings of the others.
        gap: characters between two columns.
    """

    columns: list[Column]
    hidden: list[str]
    gap: int

    @property
    def hidden_words(self) -> str | None:
        """A line that names what is hidden; None if nothing is."""
        return f"hidden: {', '.join(self.hidden)} (the terminal is too narrow)" if self.hidden else None


def column_of(name: str, heading: str, rows: Sequence[Mapping[str, Any]], *, is_text: bool = False) -> Column:
    """A column with the width that its cells need."""
    longest = max((len(row[name]) for row in rows), default=0)
    needed = max(min(TEXT_WIDTH, longest) if is_text else longest, len(heading))
    return Column(name, heading, is_text, needed, max(longest, len(heading)))


def fit(columns: Sequence[Column], hide: Sequence[str], width: int | None) -> Fitted:
    """Hide columns until the others fit.

    Args:
        columns: all columns, in order.
        hide: names of columns that can be hidden, the first one first.
        width: characters of the terminal; None is any number.
    """
    kept, hidden = list(columns), list[str]()
    whole = [replace(one, width=one.longest) for one in kept]
    if width is None or _needed(whole, LOOSE) <= width:
        return Fitted(whole, hidden, LOOSE)
    for name in hide:
        if _needed(kept, TIGHT) <= width:
            break
        hidden += [one.heading for one in kept if one.name == name]
        kept = [one for one in kept if one.name != name]
    spare = max(width - _needed(kept, TIGHT), 0)
    for place, one in enumerate(kept):
        more = min(spare, one.longest - one.width)
        kept[place] = replace(one, width=one.width + more)
        spare -= more
    return Fitted(kept, hidden, TIGHT)


def in_lines(text: str, width: int) -> str:
    """A text with line breaks after commas and spaces, so that no number in it is broken; long words stay whole."""
    lines = [""]
    for piece in re.split(r"(?<=[, ])", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip(" ") for line in lines)


def _needed(columns: Sequence[Column], gap: int) -> int:
    return sum(one.width for one in columns) + gap * (len(columns) - 1) + 2


def empty_table(fitted: Fitted) -> Any:
    """A rich Table without columns and rows, in the style of every table of the product."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=fitted.gap == TIGHT)
