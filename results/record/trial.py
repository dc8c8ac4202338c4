"""All that is known of one trial."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from digits_core.config.stages import parse_stages, spans
from digits_core.config.train_config import parameter_named
from results.record.events import Event
from results.record.schema import ENDED, EPOCH_NUMBERS


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

    def apply(self, event: Event, planned_epochs: int | None) -> None:
        """Update the trial with one of its events.

        Args:
            event: of any kind but `trial`; kinds without effect on a trial are ignored.
            planned_epochs: epochs that the run trains for when the event is written.
        """
        self.known.clear()
        time = datetime.fromisoformat(event["time"])
        match event["kind"]:
            case "start":
                self.status, self.stop_reason, self.finished_at = "running", None, None
                self.started_at = self.started_at or time
                leave_slot(self, time)
                self.since = time
            case "report":
                self._report(event, time)
            case "checkpoint":
                self.saved, self.saved_epoch = event["path"], int(event.get("epoch", self.num_epochs))
            case "claim" if int(event["epoch"]) in self.epochs:
                self.claim = {key: value for key, value in event.items() if key == "epoch" or key in EPOCH_NUMBERS}
            case "kept":
                self.checkpoint = event["path"]
            case "fault":
                self.faults.append({key: event.get(key) for key in ("fault", "reason", "epoch")})
                self.status, self.stop_reason = "interrupted", event["reason"]
                self.config = {**self.config, **event.get("change", {})}
                leave_slot(self, time)
            case "longer":  # the run trains for more epochs than before
                self.config, self.config_hash = event["config"], event["config_hash"]
                self.planned_epochs = planned_epochs
                self.status, self.stop_reason, self.finished_at = "interrupted", None, None
            case "end":
                self.status, self.stop_reason = event["status"], event.get("reason")
                self.finished_at = time if self.status in ENDED else None
                leave_slot(self, time)

    def _report(self, event: Event, time: datetime) -> None:
        """Add the numbers of an epoch; those of later epochs are dropped."""
        epoch = int(event["epoch"])
        self.forget_after(epoch)
        numbers = {key: event.get(key) for key in EPOCH_NUMBERS}
        self.epochs[epoch] = {**numbers, "epoch": epoch, "reported_at": time}
        self.early_stopped = bool(event.get("early_stopped"))
        self.cut = event.get("cut")
        self.model = event.get("model") or self.model
        self.device = event.get("device") or self.device
        for key, values in (
            ("optima", self.optima_after),
            ("confirm", self.confirm_after),
            ("weights", self.weights),
        ):
            if event.get(key):
                values[epoch] = event[key]

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
    parts = spans(parse_stages(tree["stages"], parameter_named), tree["epochs"])
    return max((part.first for part in parts if part.first <= max(epoch, 1)), default=1)


def leave_slot(trial: TrialRecord, time: datetime | None) -> None:
    """End the part in a slot that has not ended: at a time, or at the last sign of life."""
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
