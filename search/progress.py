"""What the person at the terminal sees while a search runs."""

import time
from typing import TextIO

from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from digits_core.knob import Flat
from results.leaderboard import SHOWN
from results.record import RunRecord, TrialRecord
from results.schema import ENDED, FAILED
from results.terminal import open_console


def setting_words(config: Flat, base: Flat) -> str:
    """A setting as what it changes: `anchor_sizes 8,13,21,34,55, lr 0.001`."""
    parts = []
    for name, value in config.items():
        if name in base and value != base[name] and not name.startswith("runtime."):
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            parts.append(f"{name.rpartition('.')[2]} {text}")
    return ", ".join(parts) or "default"


def clock(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Progress:
    """A live table on a terminal, one line per event elsewhere."""

    def __init__(
        self,
        out: TextIO,
        base: Flat,
        *,
        trials: int,
        epochs: int,
        slots: int,
        further: int = 0,
        started: float | None = None,
    ) -> None:
        """Show a search.

        Args:
            out: the terminal.
            base: the config that settings change.
            trials: settings to train.
            epochs: of a whole training.
            slots: trials side by side.
            further: seeds to follow.
            started: on the monotonic clock; None is now.
        """
        self.console = open_console(out)
        self._base, self._trials, self._epochs, self._slots = base, trials + further, epochs, slots
        self._started = time.monotonic() if started is None else started
        self._live = None
        if out.isatty():  # what Ray prints goes to its log, not above the table
            self._live = Live(
                console=self.console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        self._told: dict[str, tuple[str, int, int]] = {}

    def __enter__(self) -> "Progress":
        """Start showing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop showing."""
        if self._live:
            self._live.stop()

    def update(self, record: RunRecord, trial_id: str) -> None:
        """Show what became of one trial."""
        if self._live:
            self._live.update(Group(self.table(record), Text(self.summary(record))))
        trial = record.trials[trial_id]
        state = (trial.status, trial.num_epochs, len(trial.faults))
        if self._told.get(trial_id) == state:
            return
        self._told[trial_id] = state
        if trial.status in FAILED:
            self.console.print(Text(f"{trial_id} {trial.status}: {trial.stop_reason}", style="red"))
        elif trial.status == "interrupted" and trial.faults and trial.stop_reason == trial.faults[-1]["reason"]:
            again = f"goes on after epoch {trial.num_epochs}" if trial.num_epochs else "starts again"
            halved = trial.config.get("runtime.micro_batch")
            some = f", {halved} images at once" if trial.faults[-1]["fault"] == "out_of_memory" else ""
            self.console.print(Text(f"{trial_id}: {trial.stop_reason}; it {again}{some}", style="yellow"))
        elif not self._live and trial.num_epochs:
            self.console.print(self._line(record, trial), markup=False)

    def _line(self, record: RunRecord, trial: TrialRecord) -> str:
        last = trial.epochs[trial.num_epochs][record.metric]
        score = "no score" if last is None else f"{SHOWN[record.metric]} {last:.2f}"
        state = "" if trial.status == "running" else f"  {trial.status}"
        if trial.role != "search":
            state = f"  ({trial.role}, seed {trial.seed}){state}"
        return (
            f"{clock(time.monotonic() - self._started):>7}  {trial.trial_id}  epoch {trial.num_epochs}/{self._epochs}"
            f"  {score}  best {self._best(record)}  {setting_words(trial.config, self._base)}{state}"
        )

    def _best(self, record: RunRecord) -> str:
        winner = record.winner()
        best = None if winner is None else winner.best(record.metric)
        return "-" if winner is None or best is None else f"{best[record.metric]:.2f} ({winner.trial_id})"

    def table(self, record: RunRecord) -> Table:
        """The trials that run."""
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for header in ("trial", "epoch", SHOWN[record.metric], "best", "images/s", "setting"):
            table.add_column(header, justify="left" if header in ("trial", "setting") else "right")
        for trial in record.trials.values():
            if trial.status != "running" or trial.since is None:
                continue
            last = trial.epochs.get(trial.num_epochs, {})
            best = trial.best(record.metric) or {}
            scores = [
                f"{row[record.metric]:.2f}" if row.get(record.metric) is not None else "-" for row in (last, best)
            ]
            speed = f"{last['images_per_second']:.0f}" if last.get("images_per_second") else "-"
            words = Text(setting_words(trial.config, self._base), overflow="ellipsis", no_wrap=True)
            table.add_row(trial.trial_id, f"{trial.num_epochs}/{self._epochs}", *scores, speed, words)
        return table

    def summary(self, record: RunRecord) -> str:
        """How far the search is, in a line."""
        states = [trial.status for trial in record.trials.values() if trial.status != "screened"]
        ended = sum(state in ENDED for state in states)
        failed = sum(state in FAILED for state in states)
        elapsed = time.monotonic() - self._started
        return (
            f"{ended} of {self._trials} trials ended ({states.count('stopped')} stopped, {failed} failed)   best "
            f"{self._best(record)}   {clock(elapsed)} gone, about {self._left(record)} left"
        )

    def _left(self, record: RunRecord) -> str:
        """A guess: the trials to come take as many epochs as those that ended, at the mean pace."""
        trials = [trial for trial in record.trials.values() if trial.status != "screened"]
        ended = [trial for trial in trials if trial.status in ENDED]
        seconds = [float(epoch["epoch_seconds"]) for trial in trials for epoch in trial.epochs.values()]
        if not ended or not seconds:
            return "?"
        typical = sum(trial.num_epochs for trial in ended) / len(ended)
        running = [trial for trial in trials if trial.status == "running"]
        to_come = max(self._trials - len(trials), 0) * typical
        to_come += sum(max(typical - trial.num_epochs, 0.5) for trial in running)
        return clock(to_come * sum(seconds) / len(seconds) / self._slots)
