"""Ray Tune's scheduler: stops a trial when the policy decides so."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from results.record.run import RunRecord
from search.policy.decisions import Policy


class PolicyScheduler(FIFOScheduler):
    """Asks the policy at every report. It decides nothing itself."""

    def __init__(self, policy: Policy, record: RunRecord, metric: str) -> None:
        """Ray checks that every report contains `metric`."""
        super().__init__()
        self.set_search_properties(metric, "max")
        self._policy, self._record = policy, record

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop or continue the trial; Ray then calls the recorder, which records why."""
        if "epoch" not in result:  # the report of a divergence
            return str(TrialScheduler.CONTINUE)
        name = str(trial.config["trial_id"])
        reason = self._policy.judge(self._record, name, int(result["epoch"]), result.get(self.metric))
        return str(TrialScheduler.CONTINUE if reason is None else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its scheduler; an open record cannot be pickled."""
        return {}
