"""The schedulers by name: ASHA, the median rule, or none. Each remembers why it stopped a trial."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

GRACE_EPOCHS = 1
REDUCTION_FACTOR = 3


def is_race(trial: Trial) -> bool:
    """Whether a trial may be stopped for being weak: the first training of a setting may."""
    return str(trial.config.get("role", "search")) == "search"


class Asha(AsyncHyperBandScheduler):
    """Ray's ASHA over epochs.

    Source:
        Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, Algorithm 2.
    """

    def __init__(self, metric: str, epochs: int) -> None:
        """Rungs at 1, 3, 9, ... epochs; the best third of those that reach a rung goes on."""
        super().__init__(
            time_attr="epoch",
            metric=metric,
            mode="max",
            max_t=epochs,
            grace_period=min(GRACE_EPOCHS, epochs),
            reduction_factor=REDUCTION_FACTOR,
        )
        self.reasons: dict[str, str] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Trials of the search race each other; further seeds of a setting do not."""
        if is_race(trial):
            super().on_trial_add(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Likewise."""
        if is_race(trial):
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Likewise."""
        if is_race(trial):
            super().on_trial_remove(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide, and keep the reason of a stop."""
        if not is_race(trial):
            return str(TrialScheduler.CONTINUE)
        action = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP and result["epoch"] < self._max_t:
            self.reasons[trial.trial_id] = (
                f"asha: {self._metric} {result[self._metric]:.3f} at epoch {result['epoch']} lies under the cut that "
                f"keeps the best 1/{REDUCTION_FACTOR} of those that came this far before"
            )
        return str(action)


class Median(MedianStoppingRule):
    """Ray's median stopping rule over epochs.

    Source:
        Golovin et al. 2017, Google Vizier, section 3.2.2.
    """

    def __init__(self, metric: str) -> None:
        """Stop a trial whose best lies under the median of the others' running means."""
        super().__init__(time_attr="epoch", metric=metric, mode="max", grace_period=1, min_samples_required=3)
        self.reasons: dict[str, str] = {}

    def _on_insufficient_samples(self, tune_controller: Any, trial: Trial, time: float) -> str:
        """Go on: Ray's rule would pause the trial to let others catch up, and a pause costs a slot."""
        return str(TrialScheduler.CONTINUE)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide, and keep the reason of a stop; further seeds of a setting run to their end."""
        if not is_race(trial):
            return str(TrialScheduler.CONTINUE)
        action = super().on_trial_result(tune_controller, trial, result)
        if action == TrialScheduler.STOP:
            self.reasons[trial.trial_id] = (
                f"median: best {self._metric} by epoch {result['epoch']} is under the median of the other trials"
            )
        return str(action)


class NoStopping(FIFOScheduler):
    """Every trial trains to its end."""

    def __init__(self, metric: str) -> None:
        """The metric is named for Ray's check of reports."""
        super().__init__()
        self.set_search_properties(metric, "max")
        self.reasons: dict[str, str] = {}


def build_scheduler(name: str, metric: str, epochs: int) -> Asha | Median | NoStopping:
    """The scheduler of `--scheduler NAME`."""
    match name:
        case "asha":
            return Asha(metric, epochs)
        case "median":
            return Median(metric)
        case _:
            return NoStopping(metric)
