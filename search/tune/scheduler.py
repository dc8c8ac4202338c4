"""A stopping rule behind Ray Tune's scheduler interface."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.policy.stopping import Rule


class RuleScheduler(FIFOScheduler):
    """A rule behind Ray Tune's scheduler interface.

    Attributes:
        cuts: why a trial was stopped, by its name.
    """

    def __init__(self, rule: Rule, metric: str) -> None:
        """The metric is named for Ray's check of reports."""
        super().__init__()
        self.set_search_properties(metric, "max")
        self._rule = rule
        self.cuts: dict[str, str] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide; trials of the search race each other, further seeds of a setting run to their end."""
        value, name = result.get(self.metric), str(trial.config["trial_id"])
        if trial.config["role"] != "search" or value is None:
            return str(TrialScheduler.CONTINUE)
        reason = self._rule.decide(name, int(result["epoch"]), float(value))
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self.cuts[name] = reason
        return str(TrialScheduler.STOP)
