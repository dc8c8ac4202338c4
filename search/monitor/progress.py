"""What the person at the terminal sees while a search runs."""

import contextlib
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psutil
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from digits_core.config.parameter import Flat
from digits_core.errors import RunError, printable
from digits_core.files import size_words
from digits_core.terminal import open_console
from results.record.folder import LOGS_FOLDER
from results.record.run import RunRecord
from results.record.schema import ENDED, FAILED
from results.record.trial import TrialRecord
from results.tables.matches import score_intervals
from results.views.leaderboard import SHOWN
from search.monitor.time_left import seconds_left

LEADERS = 5
"""Settings that lead, shown under the slots."""

MOST_SLOTS = 16
"""Slots that are shown one by one."""

BARS = "▁▂▃▄▅▆▇█"


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


def spark(values: list[float | None], low: float, high: float) -> str:
    """A line of bars, one per value, from `low` to `high`; a space where there is no value. The last twelve alone."""
    span = max(high - low, 1e-9)
    return "".join(
        " " if value is None else BARS[round(min(max((value - low) / span, 0.0), 1.0) * (len(BARS) - 1))]
        for value in values[-12:]
    )


def _cut_to_fit(words: str) -> Text:
    """A cell that is cut where its column ends, and never takes a second line."""
    return Text(printable(words), overflow="ellipsis", no_wrap=True)


class Progress:
    """A live view on a terminal, one line per event elsewhere."""

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
        folder: Path | None = None,
        quiet: bool = False,
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
            folder: the run folder, for intervals, the disk and the logs of what failed.
            quiet: say nothing but what went wrong.
        """
        self.console = open_console(out)
        self._base, self._trials, self._epochs, self._slots = base, trials + further, epochs, slots
        self._started = time.monotonic() if started is None else started
        self._folder, self._quiet = folder, quiet
        self._record: RunRecord | None = None
        self._view: Group | Text = Text("starting")
        self._live = None
        if out.isatty() and not quiet:  # what Ray prints goes to its log, not above the view
            self._live = Live(
                console=self.console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                get_renderable=self._look,
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

    def _look(self) -> Group | Text:
        """What is to be seen now. Asked from a thread of the view's own, while the record grows."""
        if self._record is not None:
            with contextlib.suppress(RuntimeError, KeyError):  # it grew just now: the next look is half a second away
                self._view = self.view(self._record)
        return self._view

    def update(self, record: RunRecord, trial_id: str) -> None:
        """Show what became of one trial."""
        self._record = record
        trial = record.trials[trial_id]
        state = (trial.status, trial.num_epochs, len(trial.faults))
        before = self._told.get(trial_id)
        if before == state:
            return
        self._told[trial_id] = state
        if trial.status in FAILED:
            self._print(f"{trial_id} {trial.status}: {trial.stop_reason}{self._log(trial_id)}", "red")
        elif trial.status == "interrupted" and trial.faults and trial.stop_reason == trial.faults[-1]["reason"]:
            again = f"goes on after epoch {trial.num_epochs}" if trial.num_epochs else "starts again"
            halved = trial.config.get("runtime.micro_batch")
            some = f", {halved} images at once" if trial.faults[-1]["fault"] == "out_of_memory" else ""
            self._print(f"{trial_id}: {trial.stop_reason}; it {again}{some}{self._log(trial_id)}", "yellow")
        elif not self._live and not self._quiet and trial.num_epochs:
            if before is not None and before[1] == trial.num_epochs:  # its score stands in the line before
                if trial.status != "running":
                    words = f"{trial.status} after {trial.num_epochs} epoch{'s' * (trial.num_epochs != 1)}"
                    self._print(f"{self._clock()}  {trial_id}  {words}")
            else:
                self._print(self._line(record, trial))

    def _print(self, words: str, style: str | None = None) -> None:
        self.console.print(words, style=style, soft_wrap=True)

    def _log(self, trial_id: str) -> str:
        """Where more stands of what went wrong."""
        path = None if self._folder is None else self._folder / LOGS_FOLDER / f"{trial_id}.txt"
        return f"; log: {path}" if path is not None and path.is_file() else ""

    def _clock(self) -> str:
        return f"{clock(time.monotonic() - self._started):>7}"

    def _line(self, record: RunRecord, trial: TrialRecord) -> str:
        last = trial.epochs[trial.num_epochs][record.metric]
        score = "no score" if last is None else f"{SHOWN[record.metric]} {last:.2f}"
        state = "" if trial.status == "running" else f"  {trial.status}"
        if trial.role != "search":
            state = f"  ({trial.role}, seed {trial.seed}){state}"
        return (
            f"{self._clock()}  {trial.trial_id}  epoch {trial.num_epochs}/{self._epochs}"
            f"  {score}  best {self._best(record)}  {setting_words(trial.config, self._base)}{state}"
        )

    def _leads(self, record: RunRecord) -> list[TrialRecord]:
        """The settings with a score, best first, shorter trainings last; only the board puts further seeds first."""
        scored = [one for one in record.settings() if record.value(one) is not None]
        behind = record.behind()
        return sorted(scored, key=lambda one: (one.trial_id in behind, -(record.standing(one) or 0.0)))

    def _best(self, record: RunRecord) -> str:
        leads = self._leads(record)
        return f"{record.standing(leads[0]):.2f} ({leads[0].trial_id})" if leads else "-"

    def _interval(self, record: RunRecord, trial: TrialRecord) -> str:
        """The interval of a trial's score, once it has been worked out."""
        best = trial.best(record.metric)
        if self._folder is None or best is None or trial.status == "running":
            return ""
        name = record.metric.removeprefix("val_")
        try:
            found = score_intervals(
                self._folder,
                trial.trial_id,
                trial.config,
                "val",
                {name: best[record.metric]},
                epoch=best["epoch"],
                make=False,
            )
        except RunError:
            return ""
        return f"[{found[name][0]:.2f}, {found[name][1]:.2f}]" if name in found else ""

    def view(self, record: RunRecord) -> Group:
        """All that a terminal shows."""
        return Group(self.table(record), self.leaders(record), *self.summary(record))

    def table(self, record: RunRecord) -> Table:
        """The slots and what they do."""
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        metric = SHOWN[record.metric]
        for header in ("slot", "trial", "does", metric, "best", "curve", "images/s", "setting"):
            table.add_column(header, justify="right" if header in ("slot", metric, "best", "images/s") else "left")
        running = [one for one in record.trials.values() if one.status == "running" and one.since is not None]
        low, high = self._range(record)
        for number, trial in enumerate(running[:MOST_SLOTS], start=1):
            last = trial.epochs.get(trial.num_epochs, {})
            best = trial.best(record.metric) or {}
            scores = [
                f"{row[record.metric]:.2f}" if row.get(record.metric) is not None else "-" for row in (last, best)
            ]
            speed = f"{last['images_per_second']:.0f}" if last.get("images_per_second") else "-"
            curve = [one.get(record.metric) for _, one in sorted(trial.epochs.items())]
            words = _cut_to_fit(setting_words(trial.config, self._base))
            row = (trial.trial_id, self._does(trial), *scores, spark(curve, low, high), speed)
            table.add_row(str(number), *row, words)
        for number in range(len(running) + 1, min(self._slots, MOST_SLOTS) + 1):
            table.add_row(str(number), "", Text("waits", style="dim"), "", "", "", "", "")
        if len(running) > MOST_SLOTS:
            table.add_row("", f"and {len(running) - MOST_SLOTS} more", "", "", "", "", "", "")
        return table

    def _does(self, trial: TrialRecord) -> str:
        """What a trial is at, and for how long."""
        last = trial.epochs.get(trial.num_epochs, {}).get("reported_at")
        begun = max((one for one in (trial.since, last) if one is not None), default=None)
        seconds = 0.0 if begun is None else max((datetime.now(UTC) - begun).total_seconds(), 0.0)
        what = "starts" if not trial.num_epochs else "ends"
        if trial.num_epochs and trial.num_epochs < self._epochs:
            what = f"epoch {trial.num_epochs + 1}/{self._epochs}"
        return f"{what}, {seconds:.0f} s"

    def leaders(self, record: RunRecord) -> Table | Text:
        """The best settings so far."""
        leads = self._leads(record)[:LEADERS]
        if not leads:
            return Text("")
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for header in ("leads", SHOWN[record.metric], "95 %", "epochs", "curve", "status", "setting"):
            table.add_column(header, justify="right" if header in (SHOWN[record.metric], "epochs") else "left")
        low, high = self._range(record)
        for trial in leads:
            curve = [one.get(record.metric) for _, one in sorted(trial.epochs.items())]
            name = f" ({trial.baseline})" if trial.baseline else ""
            table.add_row(
                trial.trial_id,
                f"{record.standing(trial) or 0:.2f}",
                self._interval(record, trial),
                f"{trial.num_epochs}/{self._epochs}",
                spark(curve, low, high),
                trial.status,
                _cut_to_fit(setting_words(trial.config, self._base) + name),
            )
        return table

    def _range(self, record: RunRecord) -> tuple[float, float]:
        """Lowest and highest score of the run, which every curve is drawn between."""
        scores = [
            float(one[record.metric])
            for trial in record.trials.values()
            for one in trial.epochs.values()
            if one.get(record.metric) is not None
        ]
        return min(scores, default=0.0), max(scores, default=1.0)

    def summary(self, record: RunRecord) -> list[str]:
        """How far the search is, in two lines."""
        trials = [trial for trial in record.trials.values() if trial.status != "screened"]
        states = [trial.status for trial in trials]
        ended = sum(state in ENDED for state in states)
        failed = sum(state in FAILED for state in states)
        interval = "".join(f" {self._interval(record, lead)}".rstrip() for lead in self._leads(record)[:1])
        first = (
            f"{ended} of {self._trials} trials ended ({states.count('stopped')} stopped, {failed} failed)   best "
            f"{self._best(record)}{interval}"
        )
        running = [trial for trial in trials if trial.status == "running" and trial.since is not None]
        speeds = [trial.epochs[trial.num_epochs]["images_per_second"] for trial in running if trial.num_epochs]
        parts = [f"{sum(speed or 0 for speed in speeds):.0f} images/s"] if any(speeds) else []
        parts.append(f"{clock(time.monotonic() - self._started)} gone, {self._left(record)} left")
        return [first, "   ".join([*parts, *self._machine()])]

    def _left(self, record: RunRecord) -> str:
        found = seconds_left(record, trials=self._trials, slots=self._slots)
        if found is None:
            return "?"
        low, high = (clock(seconds) for seconds in found)
        return f"about {high}" if low == high else f"{low} to {high}"

    def _machine(self) -> list[str]:
        """Disk and memory of the machine that drives the search."""
        memory = psutil.virtual_memory()
        parts = [f"memory {size_words(memory.total - memory.available)} of {size_words(memory.total)}"]
        if self._folder is not None:
            with contextlib.suppress(OSError):
                parts.append(f"disk {size_words(shutil.disk_usage(self._folder).free)} free")
        return parts
