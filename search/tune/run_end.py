"""Why a run ends before its last trial: a signal or its time budget."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; the first signal of Slurm, systemd, Docker and Kubernetes; a closed terminal."""


class Ending:
    """Why the run ends before its last trial: a signal or the time budget.

    Attributes:
        signal: the number of the signal that ended the run; None without one.
    """

    def __init__(self, time_budget_s: float | None) -> None:
        self._deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
        self.signal: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 plus the number of the signal, as in shells; None without one."""
        return None if self.signal is None else 128 + self.signal

    def reason(self) -> str | None:
        """`interrupted`, `time budget` or None."""
        if self.signal is not None:
            return "interrupted"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "time budget"
        return None

    @contextlib.contextmanager
    def on_signals(self, say: Callable[[str], None]) -> Iterator[None]:
        """End the run in order at the first of `SIGNALS`, and at once at the second.

        An ignored SIGHUP stays ignored, as under nohup. An ignored SIGINT is handled: shells ignore it for every
        background job of a script.
        """

        def handle(number: int, frame: object) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = number
            say("ending the search: running trials stop at their last checkpoint; repeat the signal to end at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
