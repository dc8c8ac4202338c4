"""The record of a run: the state of all trials after its events, and their ranking.

Each line of `events.jsonl` is one event with `n` (its number), `time` (UTC), `kind`, and the values of its kind. All
tables in the run folder can be rebuilt from it.
"""

from dataclasses import dataclass, field
from itertools import chain

from digits_core.errors import RunError, did_you_mean, printable
from results.record.events import Event
from results.record.front import front_numbers
from results.record.lengths import run_of, varied_lengths
from results.record.schema import AIMS, FAILED
from results.record.trial import TrialRecord, leave_slot

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


@dataclass(frozen=True, slots=True)
class Arrival:
    """One report as the scheduler received it.

    Attributes:
        number: the number of its event.
        trial_id: the trial.
        epoch: from 1; after a fault the same epoch can be reported again.
        value: the metric of the run; None if it was not measured.
        cut: why the scheduler stopped the trial; None if it continues.
    """

    number: int
    trial_id: str
    epoch: int
    value: float | None
    cut: str | None


@dataclass(slots=True)
class RunRecord:
    """The state of one run after its events."""

    run: str
    metric: str = "val_map"
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    num_events: int = 0
    comparison: bool = False
    """All configurations are trained to the end and equally often, so that every training counts as a replicate."""
    asha: tuple[int, int] = (1, 3)
    """Grace period and reduction factor at the first start; the default is for records without them."""
    several: bool = False
    """Several runs as one: ranked by score only, because their plans and numbers of replicates can differ."""
    num_drivers: int = 0
    """Number of starts of the search, including resumes."""
    planned_epochs: int | None = None
    """Epochs per training of the latest start; None in records without them."""
    aims: tuple[str, ...] = ()
    """Costs that the search makes small beside its metric, of `schema.AIMS`."""
    outlook: Event | None = None
    """What more trials would probably gain, as after the last trial that ended."""
    arrivals: list[Arrival] = field(default_factory=list)
    """All reports in the order of arrival."""
    num_lost: int = 0
    """Number of events that repairs dropped or found missing."""
    lost_trials: set[str] = field(default_factory=set)
    """Trials that repairs dropped; their names are not used again."""

    def apply(self, event: Event) -> None:
        """Update the record with one event.

        Raises:
            ValueError: the event does not follow the event before, introduces a trial twice, or names a trial that no
                event has introduced. The record is unchanged then.
        """
        self.check_place(event)
        self.num_events = int(event["n"])
        match event["kind"]:
            case "run":
                self._begin_search(event)
            case "repaired":
                self.num_lost += event["num_lost"]
                self.lost_trials |= set(event["trials"])
                self.num_drivers += event["drivers"]
                self._leave_slots()
            case "outlook":
                self.outlook = event
            case "trial":
                known = {key: event[key] for key in _TRIAL_KEYS if key in event}
                self.trials[event["trial_id"]] = TrialRecord(**known, planned_epochs=self.planned_epochs)
            case kind if "trial_id" in event:
                trial = self.trials[event["trial_id"]]
                trial.apply(event, self.planned_epochs)
                if kind == "report":
                    value = event.get(self.metric)
                    self.arrivals.append(
                        Arrival(self.num_events, trial.trial_id, int(event["epoch"]), value, trial.cut)
                    )

    def _begin_search(self, event: Event) -> None:
        """Apply a `run` event: a driver starts the search or resumes it."""
        self.metric = event["metric"]
        self.comparison = bool(event.get("comparison"))
        self.aims = tuple(event.get("aims", ()))
        if not self.num_drivers and "asha" in event:
            self.asha = (event["asha"][0], event["asha"][1])
        self.num_drivers += 1
        self.planned_epochs = event.get("epochs", self.planned_epochs)
        self._leave_slots()

    def _leave_slots(self) -> None:
        """End all parts in slots: no trial runs any more when the driver has ended."""
        for trial in self.trials.values():
            leave_slot(trial, None)

    def check_place(self, event: Event) -> None:
        """Check that an event can be the next one.

        Raises:
            ValueError: as in `apply`.
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
        """The metric at a trial's best epoch; None without a score or if the trial failed."""
        best = None if trial.status in FAILED else trial.best(self.metric)
        found = None if best is None else best.get(self.metric)  # missing for a retraining on all images
        return None if found is None else float(found)

    def point(self, trial: TrialRecord) -> tuple[float, ...] | None:
        """The metric of a trial, and its costs if the search has several aims; None if one of them is missing."""
        value, costs = self.value(trial), [trial.cost.get(AIMS[name]) for name in self.aims]
        known = [float(one) for one in costs if one is not None]
        return None if value is None or len(known) < len(costs) else (value, *known)

    def on_front(self) -> dict[str, bool]:
        """For a search with several aims, whether no other trial is better than it; by trial id."""
        searched = [one for one in self.trials.values() if one.role == "search" and self.aims]
        points = {one.trial_id: point for one in searched if (point := self.point(one)) is not None}
        return {name: number == 1 for name, number in zip(points, front_numbers([*points.values()]), strict=True)}

    def fresh_seeds(self) -> dict[str, list[TrialRecord]]:
        """Finished replicates by `config_hash`, ordered by id: trainings that did not affect a selection."""
        found: dict[str, dict[int, TrialRecord]] = {}
        for _, trial in sorted(self.trials.items()):
            counts = trial.role in ("replicate", "confirm") or (self.comparison and trial.role == "search")
            if counts and trial.status == "finished" and self.value(trial) is not None:
                # a seed counts once, even if two merged runs trained it
                found.setdefault(trial.config_hash, {}).setdefault(trial.seed, trial)
        return {digest: list(seeds.values()) for digest, seeds in found.items()}

    def standing(self, trial: TrialRecord) -> float | None:
        """The score by which a configuration is ranked: the mean of its replicates, otherwise its first training."""
        mean = self._replicate_mean(self.fresh_seeds().get(trial.config_hash, []))
        return self.value(trial) if mean is None else mean

    def _replicate_mean(self, seeds: list[TrialRecord]) -> float | None:
        """The mean over the replicates of a configuration, without confirming ones; None without replicates."""
        values = [self.value(one) or 0.0 for one in seeds if one.role != "confirm"]
        return sum(values) / len(values) if values else None

    def epochs_now(self) -> int:
        """Epochs per training in the current plan; if the record has none, those of the longest training."""
        asked = (int(one.config["optim.epochs"]) for one in self.trials.values() if one.role == "search")
        return max(asked, default=0) if self.planned_epochs is None else self.planned_epochs

    def short(self) -> set[str]:
        """Trials of an earlier plan with fewer epochs than the current plan.

        Trials whose space varies the number of epochs are not included.
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
        """The short trials, if a training of the current length has finished: they rank after the others."""
        short = set() if self.several else self.short()
        whole = short and any(
            trial.role == "search" and trial.status == "finished" and self.value(trial) is not None
            for trial in self.trials.values()
            if trial.trial_id not in short
        )
        return short if whole else set()

    def settings(self) -> list[TrialRecord]:
        """The first training of every configuration, best first.

        Configurations with replicates come first, ranked by the mean of their replicates; then the others, ranked by
        their single training; then those that are `behind`; then failed ones. Within each, those without a score come
        last. Ties are ordered by training time, then by id. In several runs as one, only the score decides.
        """
        seeds, behind = self.fresh_seeds(), self.behind()

        def key(trial: TrialRecord) -> tuple[bool, bool, bool, bool, float, float, str]:
            best = trial.best(self.metric)
            mean = self._replicate_mean(seeds.get(trial.config_hash, []))
            score = mean if mean is not None else None if best is None else float(best[self.metric])
            rank = score is None, trial.trial_id in behind, mean is None and not self.several
            return trial.status in FAILED, *rank, -(score or 0.0), trial.train_seconds, trial.trial_id

        return sorted((trial for trial in self.trials.values() if trial.role == "search"), key=key)

    def whole_first_trainings(self) -> list[TrialRecord]:
        """First trainings that finished with a score, best first; `short` ones last.

        A search replicates the configurations at the head of this list.
        """
        short = self.short()
        scored = [
            (value, trial)
            for trial in self.trials.values()
            if trial.role == "search" and trial.status == "finished" and (value := self.value(trial)) is not None
        ]
        ranked = sorted(scored, key=lambda pair: (pair[1].trial_id in short, -pair[0], pair[1].trial_id))
        return [trial for _, trial in ranked]

    def ranked(self) -> list[TrialRecord]:
        """All trials, best configuration first: its first training, then its replicates and retrainings.

        Replicates and retrainings without a first training or parent come last.
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
        # without a first training: it was extended, or a repair dropped it
        for one in chain.from_iterable(seeds.values()):
            found += [one, *retrained.pop(one.trial_id, [])]
        return [*found, *chain.from_iterable(retrained.values())]

    def named(self, name: str, flag: str) -> TrialRecord:
        """The trial of a name.

        Args:
            name: its id.
            flag: the flag that names it, for messages.

        Raises:
            RunError: there is none.
        """
        trial = self.trials.get(name)
        if trial is None:
            raise RunError(
                f"{flag} {printable(name)}: run '{self.run}' has no such trial{did_you_mean(name, self.trials)}"
            )
        return trial

    def winner(self) -> TrialRecord | None:
        """The first training of the best configuration; None before the first score."""
        return next((trial for trial in self.settings() if self.value(trial) is not None), None)
