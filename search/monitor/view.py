"""A search in words and tables for a terminal: its slots, its best configurations, its progress."""

import contextlib
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil
from rich.console import Group
from rich.table import Table
from rich.text import Text

from digits_core.config.parameter import Flat
from digits_core.errors import RunError, printable
from digits_core.files import size_words
from results.record.folder import LOGS_FOLDER
from results.record.run import RunRecord
from results.record.schema import ENDED, FAILED
from results.record.trial import TrialRecord
from results.tables.matches import score_intervals
from results.views.fitted_columns import column_of, empty_table, fit
from results.views.leaderboard import SHOWN
from results.views.outlook import outlook_words
from results.views.parameters import changed_parameters, value_words
from results.views.time_left import seconds_left
from search.monitor.epoch_progress import Reached, progress_of

Side = Literal["left", "right"]

LEADERS = 5
"""Configurations in the table of the best ones."""

MOST_SLOTS = 16
"""Maximum number of slots in the table."""

CONFIGURATION = "configuration"
"""The column of changed parameters, after all scores; it is cut to fit."""

LEFT: Side = "left"
RIGHT: Side = "right"
BARS = "▁▂▃▄▅▆▇█"


def setting_words(config: Flat, base: Flat) -> str:
    """The parameters that a configuration changes, if they have an effect: `anchor_sizes 8,13,21,34,55, lr 0.001`."""
    changed = [one for one in changed_parameters(config, base) if one.idle is None]
    parts = [
        f"{one.name.rpartition('.')[2]} {value_words(one.value)}"
        for one in changed
        if not one.name.startswith("runtime.")
    ]
    return ", ".join(parts) or "default"


def clock(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def spark(values: list[float | None], low: float, high: float) -> str:
    """A line of bars, one per value, from `low` to `high`; a space for None. Only the last twelve values."""
    span = max(high - low, 1e-9)
    return "".join(
        " " if value is None else BARS[round(min(max((value - low) / span, 0.0), 1.0) * (len(BARS) - 1))]
        for value in values[-12:]
    )


def _cut_to_fit(words: str) -> Text:
    """A table cell in one line, cut at the end of its column."""
    return Text(printable(words), overflow="ellipsis", no_wrap=True)


def _curve(record: RunRecord, trial: TrialRecord, span: tuple[float, float]) -> str:
    """The scores of a trial, epoch by epoch, as bars in the range of all curves."""
    return spark([one.get(record.metric) for _, one in sorted(trial.epochs.items())], *span)


def _table(
    names: Mapping[str, Side], rows: list[dict[str, str | Text]], hide: tuple[str, ...], width: int | None
) -> Table:
    """A table of the columns that fit, with a caption that names the others.

    Args:
        names: the headings, each with the side that its cells are aligned to.
        rows: the cells by heading; missing ones are empty.
        hide: the columns that can be hidden, the first one first.
        width: characters of the terminal; None is any number.
    """
    cells = [{name: row.get(name, "") for name in names} for row in rows]
    fitted = fit([column_of(one, one, cells, is_text=one == CONFIGURATION) for one in names], hide, width)
    table: Table = empty_table(fitted)
    for one in fitted.columns:
        table.add_column(one.heading, justify=names[one.name], min_width=one.width, no_wrap=not one.is_text)
    for row in cells:
        table.add_row(*(row[one.name] for one in fitted.columns))
    table.caption, table.caption_justify = fitted.hidden_words, "left"
    return table


def _named_setting(trial: TrialRecord, base: Flat) -> str:
    """The parameters of a configuration that differ from the base, and its name as a baseline."""
    words = setting_words(trial.config, base)
    return words if trial.baseline in (None, words) else f"{words} ({trial.baseline})"


class SearchView:
    """Describes a search from its record."""

    def __init__(
        self,
        base: Flat,
        *,
        trials: int,
        epochs: int,
        slots: int,
        folder: Path | None = None,
        started: float | None = None,
        reached: Mapping[str, Reached] | None = None,
    ) -> None:
        """Describe a search.

        Args:
            base: the config that configurations change.
            trials: all trainings: configurations, replicates and confirmations.
            epochs: epochs of a full training.
            slots: trials that run at the same time.
            folder: the run folder, for intervals, the free disk space and the logs of failed trials.
            started: start of the search on the monotonic clock; None is now.
            reached: the progress of running trials inside their epochs; may change while the view exists.
        """
        self._reached = {} if reached is None else reached
        self._base, self._trials, self._epochs, self._slots, self._folder = base, trials, epochs, slots, folder
        self._started = time.monotonic() if started is None else started

    def elapsed(self) -> str:
        """The time since the start of the search."""
        return clock(time.monotonic() - self._started)

    def log_words(self, trial_id: str) -> str:
        """Where the log of a failed trial is; empty without a log."""
        path = None if self._folder is None else self._folder / LOGS_FOLDER / f"{trial_id}.txt"
        return f"; log: {path}" if path is not None and path.is_file() else ""

    def epoch_line(self, record: RunRecord, trial: TrialRecord) -> str:
        """One line about the last epoch of a trial."""
        last = trial.epochs[trial.num_epochs][record.metric]
        score = "no score" if last is None else f"{SHOWN[record.metric]} {last:.2f}"
        state = "" if trial.status == "running" else f"  {trial.status}"
        if trial.role != "search":
            state = f"  ({trial.role}, seed {trial.seed}){state}"
        return (
            f"{self.elapsed():>7}  {trial.trial_id}  epoch {trial.num_epochs}/{self._epochs}"
            f"  {score}  best {self._best(record)}  {setting_words(trial.config, self._base)}{state}"
        )

    def _leads(self, record: RunRecord) -> list[TrialRecord]:
        """The configurations with a score, best first, shorter trainings last, whether replicated or not."""
        scored = [one for one in record.settings() if record.value(one) is not None]
        behind = record.behind()
        return sorted(scored, key=lambda one: (one.trial_id in behind, -(record.standing(one) or 0.0)))

    def _best(self, record: RunRecord) -> str:
        leads = self._leads(record)
        return f"{record.standing(leads[0]):.2f} ({leads[0].trial_id})" if leads else "-"

    def _interval(self, record: RunRecord, trial: TrialRecord) -> str:
        """The interval of a trial's score, if it is already computed."""
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

    def view(self, record: RunRecord, width: int | None = None) -> Group:
        """Everything that the terminal shows; columns that do not fit `width` are hidden, and named."""
        return Group(self.table(record, width), self.leaders(record, width), *self.summary(record))

    def table(self, record: RunRecord, width: int | None = None) -> Table:
        """The slots and their trials."""
        running = [one for one in record.trials.values() if one.status == "running" and one.since is not None]
        span, num_free = self._range(record), min(self._slots, MOST_SLOTS) - len(running)
        rows = [self._slot(record, trial, span) for trial in running[:MOST_SLOTS]]
        rows += [{"state": Text("free", style="dim")} for _ in range(num_free)]
        rows = [{"slot": str(number), **row} for number, row in enumerate(rows, start=1)]
        if len(running) > MOST_SLOTS:
            rows.append({"trial": f"and {len(running) - MOST_SLOTS} more"})
        numbers = dict.fromkeys((SHOWN[record.metric], "best"), RIGHT)
        names = {"slot": RIGHT, "trial": LEFT, "state": LEFT, **numbers, "curve": LEFT, "images/s": RIGHT}
        hide = ("curve", "images/s", CONFIGURATION, "slot")
        return _table({**names, CONFIGURATION: LEFT}, rows, hide, width)

    def _slot(self, record: RunRecord, trial: TrialRecord, span: tuple[float, float]) -> dict[str, str | Text]:
        """The cells of a slot, without its number; `span` is the range of every curve."""
        last = trial.epochs.get(trial.num_epochs, {})
        best = trial.best(record.metric) or {}
        score, highest = (
            f"{row[record.metric]:.2f}" if row.get(record.metric) is not None else "-" for row in (last, best)
        )
        return {
            "trial": trial.trial_id,
            "state": self._state(trial).ljust(len(Reached(0, self._epochs, 1.0).words(self._epochs))),  # stays in place
            SHOWN[record.metric]: score,
            "best": highest,
            "curve": _curve(record, trial, span),
            "images/s": f"{last['images_per_second']:.0f}" if last.get("images_per_second") else "-",
            CONFIGURATION: _cut_to_fit(setting_words(trial.config, self._base)),
        }

    def _state(self, trial: TrialRecord) -> str:
        """What a trial does, with its part of the epoch, or else for how many seconds."""
        reached = progress_of(trial, self._reached)
        if reached is not None:
            return reached.words(self._epochs)
        last = trial.epochs.get(trial.num_epochs, {}).get("reported_at")
        begun = max((one for one in (trial.since, last) if one is not None), default=None)
        seconds = 0.0 if begun is None else max((datetime.now(UTC) - begun).total_seconds(), 0.0)
        what = "starts" if not trial.num_epochs else "ends"
        if trial.num_epochs and trial.num_epochs < self._epochs:
            what = f"epoch {trial.num_epochs + 1}/{self._epochs}"
        return f"{what}, {seconds:.0f} s"

    def leaders(self, record: RunRecord, width: int | None = None) -> Table | Text:
        """The best configurations so far."""
        leads = self._leads(record)[:LEADERS]
        if not leads:
            return Text("")
        metric, span = SHOWN[record.metric], self._range(record)
        rows: list[dict[str, str | Text]] = [
            {
                "best": trial.trial_id,
                metric: f"{record.standing(trial) or 0:.2f}",
                "95 %": self._interval(record, trial),
                "epochs": f"{trial.num_epochs}/{self._epochs}",
                "curve": _curve(record, trial, span),
                "status": trial.status,
                CONFIGURATION: _cut_to_fit(_named_setting(trial, self._base)),
            }
            for trial in leads
        ]
        hide = ("curve", "status", "epochs", CONFIGURATION, "95 %")
        names = dict.fromkeys(rows[0], LEFT) | {metric: RIGHT, "epochs": RIGHT}
        return _table(names, rows, hide, width)

    def _range(self, record: RunRecord) -> tuple[float, float]:
        """Lowest and highest score of the run, the range of every curve."""
        scores = [
            float(one[record.metric])
            for trial in record.trials.values()
            for one in trial.epochs.values()
            if one.get(record.metric) is not None
        ]
        return min(scores, default=0.0), max(scores, default=1.0)

    def summary(self, record: RunRecord) -> list[str]:
        """The progress of the search, in two lines, and what more trials would gain."""
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
        parts.append(f"elapsed {self.elapsed()}, {self._left(record)}")
        ahead = outlook_words(record)
        return [first, "   ".join([*parts, *self._machine()]), *([] if ahead is None else [ahead])]

    def _left(self, record: RunRecord) -> str:
        found = seconds_left(record, trials=self._trials, slots=self._slots)
        if found is None:
            return "time left unknown"
        low, high = (clock(seconds) for seconds in found)
        return f"about {high} left" if low == high else f"{low} to {high} left"

    def _machine(self) -> list[str]:
        """Memory and free disk space of the driver's machine."""
        memory = psutil.virtual_memory()
        parts = [f"memory {size_words(memory.total - memory.available)} of {size_words(memory.total)}"]
        if self._folder is not None:
            with contextlib.suppress(OSError):
                parts.append(f"disk {size_words(shutil.disk_usage(self._folder).free)} free")
        return parts
