from typing import NamedTuple

import pytest
from history import History

from conftest import report
from digits_core.config.train_config import TrainConfig
from search.policy.proposals import Proposed
from search.policy.replicates import CONFIRM_SEED, Idle, most_further, next_further, to_confirm


class Asked(NamedTuple):
    """The trainings to run after a search."""

    replicates: int
    replicate_top: int
    confirm: int


class Run(History):
    """A record to which trials are added one by one."""

    def trial(self, value, *, lr=None, config=None, role="search", status="finished", baseline=None):
        config = config or TrainConfig.from_flat({} if lr is None else {"optim.lr": lr})
        name = f"t{len(self.record.trials):04d}"
        self.add(name, role, Proposed(config, baseline=baseline))
        if value is not None:
            self.tell("report", trial_id=name, **report(4, value))
        if status != "running":
            self.tell("end", trial_id=name, status=status)
        return name

    def next(self, asked):
        return next_further(self.record, asked)

    def walk(self, asked, value=0.5):
        """Train everything that is due; returns (role, rate, seed) of each training."""
        done = []
        while (due := self.next(asked)) is not Idle.DONE:
            assert due is not Idle.WAIT
            config, role = due
            done.append((role, config.optim.lr, config.runtime.seed))
            self.trial(value, config=config, role=role)
        return done


def test_the_best_survivors_get_further_seeds_seed_after_seed():
    run = Run()
    run.trial(0.5, lr=1e-3)
    run.trial(0.9, lr=2e-3, status="stopped")  # did not survive
    run.trial(0.7, lr=3e-3)
    run.trial(0.6, lr=4e-3)
    asked = Asked(3, 2, 0)
    done = run.walk(asked)
    assert done == [("replicate", 3e-3, 1), ("replicate", 4e-3, 1), ("replicate", 3e-3, 2), ("replicate", 4e-3, 2)]
    assert len(done) == most_further(asked, 4)


def test_a_setting_that_is_sure_of_its_place_does_not_wait_for_those_that_still_run():
    run = Run()
    run.trial(0.7, lr=1e-3)
    run.trial(0.6, lr=2e-3)
    run.trial(0.4, lr=3e-3, status="running")
    asked = Asked(2, 2, 0)
    config, role = run.next(asked)
    assert (config.optim.lr, role) == (1e-3, "replicate")  # at worst the second best
    run.trial(0.7, config=config, role=role)
    assert run.next(asked) is Idle.WAIT  # the other place is still open
    run.tell("report", trial_id="t0002", **report(5, 0.65))
    run.tell("end", trial_id="t0002", status="finished")
    assert run.walk(asked) == [("replicate", 3e-3, 1)]


def test_the_choice_is_by_the_first_seed_alone():
    run = Run()
    run.trial(0.7, lr=1e-3)
    run.trial(0.6, lr=2e-3)
    asked = Asked(2, 1, 0)
    assert run.walk(asked, value=0.1) == [("replicate", 1e-3, 1)]


def test_confirmation_trains_the_best_and_the_default_on_fresh_seeds():
    run = Run()
    run.trial(0.3, baseline="default", status="stopped")
    run.trial(0.7, lr=1e-3)
    run.trial(0.6, lr=2e-3)
    asked = Asked(1, 3, 1)
    default = TrainConfig().optim.lr
    done = run.walk(asked)
    assert done == [("confirm", rate, CONFIRM_SEED + seed) for seed in range(3) for rate in (1e-3, default)]
    assert len(done) == most_further(asked, 4)


def test_confirmation_waits_for_the_replicates_and_goes_by_them():
    run = Run()
    run.trial(0.3, baseline="default")
    run.trial(0.7, lr=1e-3)
    run.trial(0.6, lr=2e-3)
    asked = Asked(2, 2, 1)
    for value in (0.2, 0.65):
        config, role = run.next(asked)
        assert role == "replicate"
        last = run.trial(value, config=config, role=role, status="running")
        assert run.next(asked) is Idle.WAIT or value == 0.2
        run.tell("end", trial_id=last, status="finished")
    confirmed = run.walk(asked)
    assert {rate for _, rate, _ in confirmed} == {2e-3, TrainConfig().optim.lr}
    assert len(confirmed) == 6


def test_a_resumed_run_trains_only_what_is_missing():
    run = Run()
    run.trial(0.7, lr=1e-3)
    asked = Asked(4, 1, 0)
    config, role = run.next(asked)
    run.trial(0.6, config=config, role=role)
    assert [seed for *_, seed in run.walk(asked)] == [2, 3]


@pytest.mark.parametrize("status", ["screened", "diverged", "stopped"])
def test_nothing_follows_when_nothing_survived(status):
    run = Run()
    run.trial(0.5 if status == "stopped" else None, lr=1e-3, status=status)
    assert run.next(Asked(3, 3, 2)) is Idle.DONE


def test_a_shorter_training_gets_no_further_seeds_before_those_of_the_plan():
    run = Run()
    run.tell("run", metric="val_map", epochs=4)
    run.trial(0.9, lr=1e-3)
    run.tell("run", metric="val_map", epochs=6)
    run.trial(0.5, config=TrainConfig.from_flat({"optim.lr": 2e-3, "optim.epochs": 6}))
    asked = Asked(2, 1, 1)
    assert run.walk(asked)[0] == ("replicate", 2e-3, 1)
    assert [lead.trial_id for lead in to_confirm(run.record, 1)] == ["t0001"]
