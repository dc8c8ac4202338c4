"""A search with a formula instead of trainings: the record and the policy, without Ray and without files."""

from history import History
from ray.tune.search import Searcher

from conftest import report
from digits_core.config.train_config import TrainConfig
from search.policy.decisions import Policy, how_it_ended
from search.policy.plan import Plan
from search.tune.searcher import PolicySearcher

EPOCHS = 4


class Told(History):
    """One driver of a search; another driver can continue from its `events`."""

    def __init__(self, space, trials, *, screen=None, held=None, ending=None, events=(), **plan):
        super().__init__(events)
        self._num, self.closing = 0, set()
        base = TrainConfig.from_flat({"optim.epochs": EPOCHS})
        self.policy = Policy(Plan(space, base, trials, **{"sampler": "random", **plan}), screen)
        self.searcher = PolicySearcher(
            self.policy,
            self,
            metric="val_map",
            start=lambda trial: {"starts": len(trial.faults)},
            held=(lambda: False) if held is None else held,
            ending=(lambda: None) if ending is None else ending,
        )

    def settle(self, name):
        end = how_it_ended(self.record.trials[name])
        self.tell("end", trial_id=name, status=end.status, reason=end.reason)

    def suggest(self):
        """What Ray gets for the next trial."""
        self._num += 1
        return self.searcher.suggest(f"ray{self._num}")

    def train(self, trial_id, *values, status="finished"):
        """Report epochs of a trial and end it; status None leaves it running."""
        for epoch, value in enumerate(values, start=1):
            self.tell("report", trial_id=trial_id, **report(epoch, value))
        if status is not None:
            self.tell("checkpoint", trial_id=trial_id, path="c", epoch=len(values))
            self.tell("end", trial_id=trial_id, status=status, reason=None)
            ray = next(ray for ray, name in self.searcher._running.items() if name == trial_id)
            self.searcher.on_trial_complete(ray)

    def run_through(self, value=lambda config: 0.5):
        """Ask for trials until there is none, and train each to its end."""
        handed = []
        while (params := self.suggest()) != Searcher.FINISHED:
            handed.append(params)
            self.train(params["trial_id"], *[value(params["config"])] * EPOCHS)
        return handed

    @property
    def trials(self):
        return list(self.record.trials.values())
