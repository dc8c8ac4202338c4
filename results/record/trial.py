"""The state of one trial."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from digits_core.config.stages import parse_stages, spans
from digits_core.config.train_config import parameter_named
from results.record.events import Event
from results.record.schema import ENDED, EPOCH_NUMBERS


class Checked(NamedTuple):
    """A check of a trial's mAP by another program.

    Attributes:
        epoch: the epoch that it scored.
        map: its mAP.
        by: name and version of the program.
    """

    epoch: int
    map: float
    by: str


@dataclass(slots=True)
class TrialRecord:
    """The state of one trial after its events."""

    trial_id: str
    space: str
    baseline: str | None
    config: dict[str, Any]
    config_hash: str
    seed: int
    params: dict[str, Any]
    role: str = "search"
    parent: str | None = None
    """The trial that a retraining repeats."""
    trained_on: str = "train"
    """`train`, or `train+valid` for a retraining on all images."""
    coverage: dict[str, float] | None = None
    """How well the anchors cover the training boxes."""
    status: str = "running"
    stop_reason: str | None = None
    cut: str | None = None
    """Why the scheduler stopped it, from its last report."""
    faults: list[Event] = field(default_factory=list)
    """Its failures before restarts: `fault`, `reason` and `epoch` of each."""
    epochs: dict[int, Event] = field(default_factory=dict)
    early_stopped: bool = False
    planned_epochs: int | None = None
    """Epochs per training in the plan under which the trial was created or extended; None in records without them."""
    model: dict[str, Any] | None = None
    device: str | None = None
    cost: dict[str, float] = field(default_factory=dict)
    """Measured costs of the model: some of `schema.COSTS`."""
    checked: Checked | None = None
    """The last check of its mAP by another program."""
    optima_after: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The best thresholds of each task after each epoch with a new best score."""
    claim: Event | None = None
    """For a retraining: `epoch` of the model in its folder, and its scores at the thresholds in the folder."""
    confirm_after: dict[int, dict[str, float | None]] = field(default_factory=dict)
    """The scores on the confirmation images after each epoch with a new best score."""
    weights: dict[int, str] = field(default_factory=dict)
    """A digest of the weights after each epoch."""
    saved_epoch: int = 0
    """The epoch of the checkpoint `saved`."""
    saved: str | None = None
    """Ray's latest checkpoint folder, from which the trial can continue, relative to the run folder."""
    checkpoint: str | None = None
    """The kept checkpoint of the best epoch, relative to the run folder."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    since: datetime | None = None
    """Start of the current period in a slot; None if the trial is not running."""
    parts: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Start and end of each earlier period in a slot; a failure or an interruption ends a period."""
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Cache of derived values until the next event, because all trials are ranked after every report."""

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
            case "checked":
                self.checked = Checked(int(event["epoch"]), float(event["map"]), event["by"])
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
        self.cost = event.get("cost") or self.cost
        for key, values in (
            ("optima", self.optima_after),
            ("confirm", self.confirm_after),
            ("weights", self.weights),
        ):
            if event.get(key):
                values[epoch] = event[key]

    @property
    def done(self) -> bool:
        """Whether the training is complete and its last epoch is in the checkpoint."""
        return (self.trained_out or self.cut is not None) and self.saved_epoch >= self.num_epochs

    @property
    def optima(self) -> dict[str, Any]:
        """The best thresholds of each task from the sweep of the best epoch; empty without a sweep."""
        return self.optima_after[max(self.optima_after)] if self.optima_after else {}

    @property
    def confirm(self) -> dict[str, float | None]:
        """The scores of the best epoch on the confirmation images; empty without them."""
        return self.confirm_after[max(self.confirm_after)] if self.confirm_after else {}

    @property
    def slot_seconds(self) -> float:
        """Time in slots without the current period, seconds."""
        return sum((end - start).total_seconds() for start, end in self.parts)

    @property
    def seconds(self) -> float | None:
        """Time in slots, seconds; of a retraining, which has no slot, the sum of its epochs, None if unknown."""
        if self.role != "retrain":
            return self.slot_seconds
        spent = [one["epoch_seconds"] for one in self.epochs.values() if one["epoch_seconds"] is not None]
        return float(sum(spent)) if spent and len(spent) == len(self.epochs) else None

    @property
    def num_epochs(self) -> int:
        """Number of finished epochs."""
        return max(self.epochs, default=0)

    @property
    def trained_out(self) -> bool:
        """Whether the training ended regularly: after all epochs or by early stopping."""
        return self.early_stopped or self.num_epochs >= int(self.config["optim.epochs"])

    def forget_after(self, epoch: int) -> None:
        """Drop later epochs, because the trial restarted from an earlier checkpoint."""
        if self.num_epochs <= epoch:
            return
        for known in (self.epochs, self.weights, self.optima_after, self.confirm_after):
            for later in [one for one in known if one > epoch]:
                del known[later]
        if self.saved_epoch > epoch:
            self.saved_epoch = 0

    def best_epoch(self, metric: str) -> int | None:
        """The number of the best epoch; None before the first score."""
        best = self.best(metric)
        return None if best is None else int(best["epoch"])

    def best(self, metric: str) -> Event | None:
        """The epoch with the highest metric in the current stage, the first of equals; None without a score."""
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
        """Time in training steps over all epochs, seconds."""
        if "train_seconds" not in self.known:
            self.known["train_seconds"] = sum(float(epoch["train_seconds"] or 0) for epoch in self.epochs.values())
        return float(self.known["train_seconds"])


def stage_begun(config: dict[str, Any], epoch: int) -> int:
    """The first epoch of the stage of an epoch; 1 for a training without stages."""
    if config.get("optim.stages") is None:
        return 1
    return _stage_begun(json.dumps({"stages": config["optim.stages"], "epochs": config["optim.epochs"]}), epoch)


@lru_cache(maxsize=4096)
def _stage_begun(text: str, epoch: int) -> int:
    tree = json.loads(text)
    parts = spans(parse_stages(tree["stages"], parameter_named), tree["epochs"])
    return max((part.first for part in parts if part.first <= max(epoch, 1)), default=1)


def leave_slot(trial: TrialRecord, time: datetime | None) -> None:
    """End the current period in a slot at a time, or at the last sign of life."""
    if trial.since is not None:
        end = max(time or last_sign(trial), trial.since)
        trial.parts.append((trial.since, end))
    trial.since = None


def last_sign(trial: TrialRecord) -> datetime:
    """The last sign of life of a started trial: its latest report, or the start of its latest period."""
    begun = trial.since or trial.started_at
    assert begun is not None
    reports: list[datetime] = [epoch["reported_at"] for epoch in trial.epochs.values()]
    return max([begun, *reports])
