"""Opens the data of a search and prints its size, its categories and what is left out."""

import time

from rich.console import Console

from digits_core.data.cache import DigitData, open_data
from digits_core.data.source import DRAWN
from digits_core.errors import UsageError
from search.cli.settings import SearchSettings


def prepare_data(settings: SearchSettings, console: Console) -> DigitData:
    """Open the data and describe it on the console.

    Raises:
        UserError: the data cannot be used, or not with this metric.
    """
    what = "the built-in drawn house numbers" if settings.data.folder == DRAWN else settings.data.folder
    started = time.monotonic()
    data = open_data(settings.data)
    took = time.monotonic() - started
    sizes = f"{len(data.train):,} training and {len(data.valid):,} validation images"
    if data.confirm is not None:
        sizes += f", {len(data.confirm):,} more for confirmations"
    console.print(f"data: {what}, {sizes}" + (f" (decoded in {took:.0f} s)" if took > 1 else ""))
    if not data.categories.are_digits:
        console.print(f"data: {data.categories.words}: these are not digits, so no numbers are read")
        if settings.metric == "val_number_accuracy":
            raise UsageError(
                "--metric val_number_accuracy: the categories of this data are no digits, so there are no numbers; "
                "use val_map"
            )
    left_out = [f"{count} {name.replace('_', ' ')}" for name, count in data.notes.items() if count]
    if left_out:
        console.print(f"data: {', '.join(left_out)}")
    return data
