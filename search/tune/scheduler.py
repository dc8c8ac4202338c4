"""Ray Tune's Scheduler over the policy: a trial that it judges to be weak is stopped."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from results.record.run import RunRecord
from search.policy.decisions import Policy


class PolicyScheduler(FIFOScheduler):
    """Asks the policy at every report. It decides nothing."""

    def __init__(self, policy: Policy, record: RunRecord, metric: str) -> None:
        """The metric is named for Ray's check of reports."""
        super().__init__()
        self.set_search_properties(metric, "max")
        self._policy, self._record = policy, record

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop the trial or let it go on; the recorder, which Ray tells next, writes down why."""
        if "epoch" not in result:  # it says why there is none
            return str(TrialScheduler.CONTINUE)
        name = str(trial.config["trial_id"])
        reason = self._policy.judge(self._record, name, int(result["epoch"]), result.get(self.metric))
        return str(TrialScheduler.CONTINUE if reason is None else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its parts with a run; an open record has no place there."""
        return {}
