"""The record of a run: events in, one row per trial and per epoch out.

`events.jsonl` is the truth of a run folder. Each line is one event: `n` (its number), `time` (UTC),
`kind`, and what belongs to the kind. Everything else in the folder can be rebuilt from it.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from digits_core.config.stages import parse_stages, spans
from digits_core.config.train_config import knob_named
from digits_core.errors import RunError
from results.events import Event, check_event
from results.lengths import run_of, varied_lengths
from results.lock import lock_run, unlock_run
from results.schema import ENDED, EPOCH_NUMBERS, FAILED

EVENTS_FILE = "events.jsonl"
RESERVE_FILE = ".reserve"
RESERVE_BYTES = 4 * 2**20
"""A few thousand events."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk, or of a quota used up."""

_TRIAL_KEYS = (
    "trial_id",
    "space",
    "role",
    "baseline",
    "config",
    "config_hash",
    "seed",
    "params",
    "coverage",
    "parent",
    "trained_on",
)


@dataclass(slots=True)
class TrialRecord:
    """All that is known of one trial."""

    trial_id: str
    space: str
    baseline: str | None
    config: dict[str, Any]
    config_hash: str
    seed: int
    params: dict[str, Any]
    role: str = "search"
    parent: str | None = None
    """The trial that a retraining is of."""
    trained_on: str = "train"
    """`train`, or `train+valid` of a retraining that kept nothing apart."""
    coverage: dict[str, float] | None = None
    """How the realised anchors cover the training boxes."""
    status: str = "running"
    stop_reason: str | None = None
    cut: str | None = None
    """Why the scheduler decided to stop it, as its last report says."""
    faults: list[Event] = field(default_factory=list)
    """What broke it off before it was started again: `fault`, `reason` and `epoch` of each."""
    epochs: dict[int, Event] = field(default_factory=dict)
    early_stopped: bool = False
    planned_epochs: int | None = None
    """Epochs that the run was to train for when the trial was made, or made longer; None in records without them."""
    model: dict[str, Any] | None = None
    device: str | None = None
    optima_after: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The best thresholds of each task, after each epoch that was better than those before."""
    claim: Event | None = None
    """Of a retraining: `epoch` of the model that its folder holds, and what that scores at the folder's thresholds."""
    confirm_after: dict[int, dict[str, float | None]] = field(default_factory=dict)
    """The scores on the images set apart to confirm, after each epoch that was better than those before."""
    weights: dict[int, str] = field(default_factory=dict)
    """A digest of the model's weights after each epoch."""
    saved_epoch: int = 0
    """The epoch after which that was written."""
    saved: str | None = None
    """Ray's latest checkpoint folder to go on from, relative to the run folder."""
    checkpoint: str | None = None
    """The kept checkpoint of the best epoch, relative to the run folder."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    since: datetime | None = None
    """Start of the part in a slot that has not ended."""
    parts: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Start and end of each part in a slot that has; a fault or an interruption begins another."""
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What was worked out of all of the above, until the next event: the whole board is ranked at every report."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to train, and what was trained is all in its checkpoint."""
        return (self.trained_out or self.cut is not None) and self.saved_epoch >= self.num_epochs

    @property
    def optima(self) -> dict[str, Any]:
        """The best thresholds of each task, of the best epoch's sweep; empty without one."""
        return self.optima_after[max(self.optima_after)] if self.optima_after else {}

    @property
    def confirm(self) -> dict[str, float | None]:
        """The best epoch's scores on the images set apart to confirm; empty without any."""
        return self.confirm_after[max(self.confirm_after)] if self.confirm_after else {}

    @property
    def slot_seconds(self) -> float:
        """All the time in a slot, but for a part that has not ended."""
        return sum((end - start).total_seconds() for start, end in self.parts)

    @property
    def num_epochs(self) -> int:
        """Epochs done."""
        return max(self.epochs, default=0)

    @property
    def trained_out(self) -> bool:
        """Whether its training came to its own end: all epochs, or early stopping."""
        return self.early_stopped or self.num_epochs >= int(self.config["optim.epochs"])

    def forget_after(self, epoch: int) -> None:
        """Drop later epochs: the trial lost their checkpoint and started again from an earlier one."""
        if self.num_epochs <= epoch:
            return
        for known in (self.epochs, self.weights, self.optima_after, self.confirm_after):
            for later in [one for one in known if one > epoch]:
                del known[later]
        if self.saved_epoch > epoch:
            self.saved_epoch = 0

    def best_epoch(self, metric: str) -> int | None:
        """The number of that epoch; None before the first with a score."""
        best = self.best(metric)
        return None if best is None else int(best["epoch"])

    def best(self, metric: str) -> Event | None:
        """The epoch with the highest metric, of the latest stage begun; the earlier of equals. None without any."""
        if metric not in self.known:
            self.known[metric] = self._find_best(metric)
        found: Event | None = self.known[metric]
        return found

    def _find_best(self, metric: str) -> Event | None:
        if self.claim is not None:
            return self.epochs[int(self.claim["epoch"])] | self.claim
        first = stage_begun(self.config, self.num_epochs)
        scored = [one for epoch, one in sorted(self.epochs.items()) if epoch >= first and one.get(metric) is not None]
        return max(scored, key=lambda epoch: float(epoch[metric]), default=None)

    @property
    def train_seconds(self) -> float:
        """Spent in training steps, over all epochs."""
        if "train_seconds" not in self.known:
            self.known["train_seconds"] = sum(float(epoch["train_seconds"] or 0) for epoch in self.epochs.values())
        return float(self.known["train_seconds"])


def stage_begun(config: dict[str, Any], epoch: int) -> int:
    """The first epoch of the stage that an epoch belongs to; 1 where a training has no stages."""
    if config.get("optim.stages") is None:
        return 1
    return _stage_begun(json.dumps({"stages": config["optim.stages"], "epochs": config["optim.epochs"]}), epoch)


@lru_cache(maxsize=4096)
def _stage_begun(text: str, epoch: int) -> int:
    tree = json.loads(text)
    parts = spans(parse_stages(tree["stages"], knob_named), tree["epochs"])
    return max((part.first for part in parts if part.first <= max(epoch, 1)), default=1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One report in the order of arrival, as a scheduler saw it.

    Attributes:
        number: of its event.
        trial_id: whose it is.
        epoch: from 1; after a fault the same one may arrive again.
        value: the run's metric; None where it could not be measured.
        cut: why it stopped the trial; None when it went on.
    """

    number: int
    trial_id: str
    epoch: int
    value: float | None
    cut: str | None


@dataclass(slots=True)
class RunRecord:
    """All that is known of one run, folded from its events."""

    run: str
    metric: str = "val_map"
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    num_events: int = 0
    comparison: bool = False
    """Every setting is trained alike, to its end and as often: no choice has looked at any seed."""
    asha: tuple[int, int] = (1, 3)
    """Its grace period and reduction factor, as the run began; those of records that do not name them."""
    num_drivers: int = 0
    """Starts of the search: one more with each resume."""
    planned_epochs: int | None = None
    """Epochs that its latest start was to train for; None in records without them."""
    arrivals: list[Arrival] = field(default_factory=list)
    """Every report, in the order of arrival."""
    num_lost: int = 0
    """Events that repairs of a damaged record dropped, or found missing."""
    lost_trials: set[str] = field(default_factory=set)
    """Trials that repairs dropped whole: their names are not given again."""

    def apply(self, event: Event) -> None:
        """Take in one event.

        Raises:
            ValueError: it does not follow the event before, introduces a trial twice, or names a trial that no event
                has introduced. Nothing is taken in then.
        """
        self.check_place(event)
        self.num_events = int(event["n"])
        kind, time = event["kind"], datetime.fromisoformat(event["time"])
        if kind == "repaired":
            self.num_lost += event["num_lost"]
            self.lost_trials |= set(event["trials"])
            self.num_drivers += event["drivers"]
        if kind == "run":
            self.metric = event["metric"]
            self.comparison = bool(event.get("comparison"))
            if not self.num_drivers and "asha" in event:
                self.asha = (event["asha"][0], event["asha"][1])
            self.num_drivers += 1
            self.planned_epochs = event.get("epochs", self.planned_epochs)
        if kind in ("run", "repaired"):
            # A new driver, or none: whatever was under way when the last one died is not any more.
            for trial in self.trials.values():
                _leave_slot(trial, None)
            return
        if kind == "trial":
            known = {key: event[key] for key in _TRIAL_KEYS if key in event}
            self.trials[event["trial_id"]] = TrialRecord(**known, planned_epochs=self.planned_epochs)
            return
        if "trial_id" not in event:
            return
        trial = self.trials[event["trial_id"]]
        trial.known.clear()
        match kind:
            case "start":
                trial.status, trial.stop_reason, trial.finished_at = "running", None, None
                trial.started_at = trial.started_at or time
                _leave_slot(trial, time)
                trial.since = time
            case "report":
                trial.forget_after(int(event["epoch"]))
                trial.epochs[int(event["epoch"])] = {key: event.get(key) for key in EPOCH_NUMBERS} | {
                    "epoch": int(event["epoch"]),
                    "reported_at": time,
                }
                trial.early_stopped = bool(event.get("early_stopped"))
                trial.cut = event.get("cut")
                value = event.get(self.metric)
                self.arrivals.append(Arrival(self.num_events, trial.trial_id, int(event["epoch"]), value, trial.cut))
                trial.model = event.get("model") or trial.model
                trial.device = event.get("device") or trial.device
                if event.get("optima"):
                    trial.optima_after[int(event["epoch"])] = event["optima"]
                if event.get("confirm"):
                    trial.confirm_after[int(event["epoch"])] = event["confirm"]
                if event.get("weights"):
                    trial.weights[int(event["epoch"])] = event["weights"]
            case "checkpoint":
                trial.saved, trial.saved_epoch = event["path"], int(event.get("epoch", trial.num_epochs))
            case "claim" if int(event["epoch"]) in trial.epochs:
                trial.claim = {key: value for key, value in event.items() if key == "epoch" or key in EPOCH_NUMBERS}
            case "kept":
                trial.checkpoint = event["path"]
            case "fault":
                trial.faults.append({key: event.get(key) for key in ("fault", "reason", "epoch")})
                trial.status, trial.stop_reason = "interrupted", event["reason"]
                trial.config = {**trial.config, **event.get("change", {})}
                _leave_slot(trial, time)
            case "longer":  # the run trains for more epochs than it did
                trial.config, trial.config_hash = event["config"], event["config_hash"]
                trial.planned_epochs = self.planned_epochs
                trial.status, trial.stop_reason, trial.finished_at = "interrupted", None, None
            case "end":
                trial.status, trial.stop_reason = event["status"], event.get("reason")
                trial.finished_at = time if trial.status in ENDED else None
                _leave_slot(trial, time)

    def check_place(self, event: Event) -> None:
        """See that an event can come next.

        Raises:
            ValueError: as `apply`.
        """
        if event["n"] != self.num_events + 1:
            raise ValueError(f"event {event['n']} follows event {self.num_events}")
        if "trial_id" not in event:
            return
        if event["kind"] == "trial" and event["trial_id"] in self.trials:
            raise ValueError(f"event {event['n']} introduces trial {event['trial_id']} again")
        if event["kind"] != "trial" and event["trial_id"] not in self.trials:
            raise ValueError(f"event {event['n']} names an unknown trial, {event['trial_id']}")

    def value(self, trial: TrialRecord) -> float | None:
        """The run's metric at a trial's best epoch; None without one, or when it failed."""
        best = None if trial.status in FAILED else trial.best(self.metric)
        found = None if best is None else best.get(self.metric)  # a retraining on all images has none
        return None if found is None else float(found)

    def fresh_seeds(self) -> dict[str, list[TrialRecord]]:
        """Whole trainings with seeds that no choice has looked at, in the order of their ids, by their setting."""
        found: dict[str, dict[int, TrialRecord]] = {}
        for _, trial in sorted(self.trials.items()):
            counts = trial.role in ("replicate", "confirm") or (self.comparison and trial.role == "search")
            if counts and trial.status == "finished" and self.value(trial) is not None:
                # Trained twice (in two runs looked at as one), a seed still counts once.
                found.setdefault(trial.config_hash, {}).setdefault(trial.seed, trial)
        return {digest: list(seeds.values()) for digest, seeds in found.items()}

    def standing(self, trial: TrialRecord) -> float | None:
        """What a setting is ranked by: the mean of its replicates, or its first training; never what confirms it."""
        mean = self._replicate_mean(self.fresh_seeds().get(trial.config_hash, []))
        return self.value(trial) if mean is None else mean

    def _replicate_mean(self, seeds: list[TrialRecord]) -> float | None:
        """The mean over a setting's fresh seeds, but for those that confirm it; None without any."""
        values = [self.value(one) or 0.0 for one in seeds if one.role != "confirm"]
        return sum(values) / len(values) if values else None

    def epochs_now(self) -> int:
        """Epochs that the run trains for now; those of its longest training where the record does not name them."""
        asked = (int(one.config["optim.epochs"]) for one in self.trials.values() if one.role == "search")
        return max(asked, default=0) if self.planned_epochs is None else self.planned_epochs

    def short(self) -> set[str]:
        """Trials of an earlier plan, which had fewer epochs than the run trains for now.

        A trial whose number of epochs was set by its space is none of them.
        """
        now = self.epochs_now()
        fewer = [trial for trial in self.trials.values() if int(trial.config["optim.epochs"]) < now]
        varied = varied_lengths(self.trials.values())["optim.epochs"] if fewer else set()
        return {
            trial.trial_id
            for trial in fewer
            if trial.planned_epochs in (None, trial.config["optim.epochs"])
            and (run_of(trial), trial.space) not in varied
        }

    def behind(self) -> set[str]:
        """The same trials, once a training as long as the run trains for now has ended: they rank after the others."""
        short = self.short()
        whole = short and any(
            trial.role == "search" and trial.status == "finished" and self.value(trial) is not None
            for trial in self.trials.values()
            if trial.trial_id not in short
        )
        return short if whole else set()

    def settings(self) -> list[TrialRecord]:
        """The first training of every setting, best first.

        Those that are behind with their epochs come after the others. Replicated settings come
        first, by the mean of their replicates; the rest by their one training. Of equals the cheaper leads, then the
        earlier. Those that failed come after all others, without a score last.
        """
        seeds, behind = self.fresh_seeds(), self.behind()

        def key(trial: TrialRecord) -> tuple[bool, bool, bool, bool, float, float, str]:
            best = trial.best(self.metric)
            mean = self._replicate_mean(seeds.get(trial.config_hash, []))
            score = mean if mean is not None else None if best is None else float(best[self.metric])
            rank = score is None, trial.trial_id in behind, mean is None
            return trial.status in FAILED, *rank, -(score or 0.0), trial.train_seconds, trial.trial_id

        return sorted((trial for trial in self.trials.values() if trial.role == "search"), key=key)

    def ranked(self) -> list[TrialRecord]:
        """All trials: each setting's first training, best setting first; under it its further seeds and retrainings.

        Last come those whose setting or trial is not there.
        """
        seeds: dict[str, list[TrialRecord]] = {}
        retrained: dict[str, list[TrialRecord]] = {}
        for _, trial in sorted(self.trials.items()):
            if trial.role == "retrain":
                retrained.setdefault(str(trial.parent), []).append(trial)
            elif trial.role != "search":
                seeds.setdefault(trial.config_hash, []).append(trial)
        found = []
        for trial in self.settings():
            for one in [trial, *seeds.pop(trial.config_hash, [])]:
                found += [one, *retrained.pop(one.trial_id, [])]
        # Those of a setting that is not there: it was made longer, or a repair dropped its first training.
        for one in chain.from_iterable(seeds.values()):
            found += [one, *retrained.pop(one.trial_id, [])]
        return [*found, *chain.from_iterable(retrained.values())]

    def winner(self) -> TrialRecord | None:
        """The first training of the best setting; None when no trial that did not fail has a score."""
        return next((trial for trial in self.settings() if self.value(trial) is not None), None)


def _leave_slot(trial: TrialRecord, time: datetime | None) -> None:
    if trial.since is not None:
        end = max(time or last_sign(trial), trial.since)
        trial.parts.append((trial.since, end))
    trial.since = None


def last_sign(trial: TrialRecord) -> datetime:
    """The last sign of life of a trial that has started: its latest report, or the start of its latest part."""
    begun = trial.since or trial.started_at
    assert begun is not None
    reports: list[datetime] = [epoch["reported_at"] for epoch in trial.epochs.values()]
    return max([begun, *reports])


class EventWriter:
    """Appends events to a run's record: numbered, one line each, on disk before the call returns.

    Whoever holds it is the only one who writes: the system takes the lock back when the process ends, however it does.
    """

    def __init__(self, folder: Path, run: str, lock: BinaryIO | None = None) -> None:
        """Open the record, making it if missing; a line cut short by a crash is cut off.

        Args:
            folder: the run's.
            run: its name.
            lock: of the folder, where it was taken before; the writer gives it back.

        Raises:
            RunError: another process writes this run.
        """
        self.record = RunRecord(run)
        self._folder = folder
        self._lock = lock or lock_run(folder)
        try:
            path = folder / EVENTS_FILE
            self._whole = 0
            if path.exists():
                for _, end in _read(path, self.record):
                    self._whole = end
            self._file: BinaryIO = path.open("ab")
            self._file.truncate(self._whole)
        except BaseException:
            unlock_run(self._lock)
            raise
        self.reserve()

    def write(self, kind: str, **values: Any) -> None:
        """Append one event and take it in. Values must be JSON; NaN is refused.

        Raises:
            ValueError: it could not be read again.
            RunError: the disk is full, to the last of what was set aside for the record.
        """
        event: Event = {
            "n": self.record.num_events + 1,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kind": kind,
            **values,
        }
        check_event(event)  # what could not be read again is never written
        self.record.check_place(event)
        line = (json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n").encode()
        try:
            self._append(line)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.release()
            try:
                self._append(line)
            except OSError:
                raise RunError(
                    f"{self._folder}: the disk is full; make room and go on with --resume {self._folder.name}"
                ) from None
        self._whole += len(line)
        self.record.apply(event)

    def _append(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # Python keeps what it could not write, and would write it later
                self._file.close()
            self._file = (self._folder / EVENTS_FILE).open("ab")
            self._file.truncate(self._whole)
            raise

    def reserve(self) -> None:
        """Set some bytes of the disk aside, for the record to go on when it is full."""
        path = self._folder / RESERVE_FILE
        with contextlib.suppress(OSError):
            if not path.exists() or path.stat().st_size < RESERVE_BYTES:
                path.write_bytes(bytes(RESERVE_BYTES))

    def release(self) -> None:
        """Give the bytes set aside back."""
        (self._folder / RESERVE_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and let others write; a second time nothing happens."""
        if self._file.closed:
            return
        self._file.close()
        self.release()
        unlock_run(self._lock)


def read_record(folder: Path, run: str) -> RunRecord:
    """Fold the events of a run folder; a last line that a crash cut short is passed over.

    Raises:
        RunError: there is no record, or a line before the last is broken.
    """
    record = RunRecord(run)
    for _ in read_events(folder, record):
        pass
    return record


def read_events(folder: Path, record: RunRecord) -> Iterator[Event]:
    """The events of a run folder, in order, each after the record has taken it in.

    A last line that a crash cut short is passed over.

    Args:
        folder: the run's.
        record: an empty one.

    Raises:
        RunError: there is no record, or a line before the last is broken.
    """
    path = folder / EVENTS_FILE
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it holds no {EVENTS_FILE}")
    for event, _ in _read(path, record):
        yield event


def _read(path: Path, record: RunRecord) -> Iterator[tuple[Event, int]]:
    """Each whole event, taken in, and the offset after it."""
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = check_event(json.loads(line))
                record.apply(event)
            except (ValueError, RecursionError) as error:
                raise RunError(
                    f"{path} line {number} is damaged ({error}); python -m results.repair {quote(str(path.parent))} "
                    "says what can be saved"
                ) from None
            yield event, offset
