"""What prints sentences for the user from a thread of its own, while the terminal changes hands."""

import contextlib
from collections.abc import Callable, Iterator


class Speaker:
    """Prints sentences by a function that can be replaced for a while."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Print by `say`."""
        self._say = say

    @contextlib.contextmanager
    def telling(self, say: Callable[[str], None]) -> Iterator[None]:
        """Use another `say` inside the with block."""
        before, self._say = self._say, say
        try:
            yield
        finally:
            self._say = before
