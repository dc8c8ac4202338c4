"""Shows a running search on the terminal."""

import contextlib
from typing import TextIO

from rich.console import Group
from rich.live import Live
from rich.text import Text

from digits_core.terminal import open_console
from results.record.run import RunRecord
from results.record.schema import FAILED
from search.monitor.view import SearchView


class Progress:
    """A live view on a terminal; elsewhere one line per event."""

    def __init__(self, out: TextIO, view: SearchView, *, quiet: bool = False) -> None:
        """Show a search.

        Args:
            out: the terminal.
            view: describes the search.
            quiet: print only failures.
        """
        self.console = open_console(out)
        self._view, self._quiet = view, quiet
        self._record: RunRecord | None = None
        self._shown: Group | Text = Text("starting")
        self._live = None
        if out.isatty() and not quiet:  # Ray's output goes to its log, not above the view
            self._live = Live(
                console=self.console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                get_renderable=self._render,
            )
        self._printed: dict[str, tuple[str, int, int]] = {}

    def __enter__(self) -> "Progress":
        """Start showing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop showing."""
        if self._live:
            self._live.stop()

    def _render(self) -> Group | Text:
        """The current view. Rich calls this from its own thread, while the record grows."""
        if self._record is not None:
            with contextlib.suppress(RuntimeError, KeyError):  # it grew in this moment: try again in half a second
                self._shown = self._view.view(self._record, self.console.width)
        return self._shown

    def update(self, record: RunRecord, trial_id: str) -> None:
        """Show the new state of a trial."""
        self._record = record
        trial = record.trials[trial_id]
        state = (trial.status, trial.num_epochs, len(trial.faults))
        before = self._printed.get(trial_id)
        if before == state:
            return
        self._printed[trial_id] = state
        if trial.status in FAILED:
            self._print(f"{trial_id} {trial.status}: {trial.stop_reason}{self._view.log_words(trial_id)}", "red")
        elif trial.status == "interrupted" and trial.faults and trial.stop_reason == trial.faults[-1]["reason"]:
            again = f"continues after epoch {trial.num_epochs}" if trial.num_epochs else "restarts"
            halved = trial.config.get("runtime.micro_batch")
            some = f", {halved} images at once" if trial.faults[-1]["fault"] == "out_of_memory" else ""
            self._print(f"{trial_id}: {trial.stop_reason}; it {again}{some}{self._view.log_words(trial_id)}", "yellow")
        elif not self._live and not self._quiet and trial.num_epochs:
            if before is not None and before[1] == trial.num_epochs:  # its score is in the last line
                if trial.status != "running":
                    words = f"{trial.status} after {trial.num_epochs} epoch{'s' * (trial.num_epochs != 1)}"
                    self._print(f"{self._view.elapsed():>7}  {trial_id}  {words}")
            else:
                self._print(self._view.epoch_line(record, trial))

    def _print(self, words: str, style: str | None = None) -> None:
        self.console.print(words, style=style, soft_wrap=True)
