"""The policy decides from the record and the plan only: its state between calls changes nothing."""

import random

from history import History
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import report
from digits_core.config.train_config import TrainConfig
from search.policy.decisions import Add, Close, End, Policy, Start, how_it_ended
from search.policy.faults import Fault
from search.policy.plan import Plan
from search.policy.replicates import Idle
from spaces.catalogue import SPACES

EPOCHS = 4
BASE = TrainConfig.from_flat({"optim.epochs": EPOCHS})


def started():
    return History(asha=[2, 2], epochs=EPOCHS)


def walk(plan, chance, *, slots=2, check=lambda history, policy, running: None):
    """Run a search to its end with only its policy, with random scores, faults and kills."""
    history, policy, running = started(), Policy(plan), []
    for _ in range(400):
        check(history, policy, tuple(running))
        action = policy.next_action(history.record, running) if len(running) < slots else Idle.WAIT
        match action:
            case Idle.DONE:
                return history
            case Add():
                history.add(action.trial_id, action.role, action.proposed)
                continue
            case Close(name):
                end = how_it_ended(history.record.trials[name])
                history.tell("end", trial_id=name, status=end.status, reason=end.reason)
                continue
            case Start(name):
                history.tell("start", trial_id=name)
                running.append(name)
                continue
        if chance.random() < 0.1:  # the driver is killed, and another one goes on
            history.tell("run", metric="val_map", epochs=EPOCHS)
            policy, running = Policy(plan), []
            continue
        name = chance.choice(running)
        trial = history.record.trials[name]
        if chance.random() < 0.1:
            running.remove(name)
            after = policy.after_fault(trial, Fault("worker_died", "its process died"))
            if isinstance(after, End):
                history.tell("end", trial_id=name, status=after.status, reason=after.reason)
            else:
                history.tell(
                    "fault", trial_id=name, fault="worker_died", reason="r", epoch=trial.num_epochs, change=after
                )
            continue
        epoch, value = trial.saved_epoch + 1, round(chance.random(), 3)
        cut = policy.judge(history.record, name, epoch, value)
        assert cut == Policy(plan).judge(history.read_again(), name, epoch, value)
        history.tell("report", trial_id=name, **report(epoch, value), **({} if cut is None else {"cut": cut}))
        assert cut == policy.judge(history.record, name, epoch, value)  # asked again, by whoever writes it down
        if chance.random() < 0.8:  # else the driver or the trial may die before its checkpoint is stored
            history.tell("checkpoint", trial_id=name, path="c", epoch=epoch)
        if trial.done:
            running.remove(name)
            if chance.random() < 0.9:  # else the driver dies before the end is written
                end = how_it_ended(trial)
                history.tell("end", trial_id=name, status=end.status, reason=end.reason)
    raise AssertionError("the search did not come to its end")


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(["random", "tpe"]), st.sampled_from(["asha", "median", "none"]))
def test_another_driver_decides_the_same_at_every_moment(seed, sampler, scheduler):
    plan = Plan(
        SPACES["lr_schedules"], BASE, 5, sampler=sampler, scheduler=scheduler, replicates=2, replicate_top=1, confirm=1
    )

    def check(history, policy, running):
        assert Policy(plan).next_action(history.read_again(), running) == policy.next_action(history.record, running)

    history = walk(plan, random.Random(seed), check=check)
    trials = list(history.record.trials.values())
    searched = [trial for trial in trials if trial.role == "search"]
    assert len(searched) == 5
    assert len({trial.config_hash for trial in searched}) == 5
    assert {trial.status for trial in trials} <= {"finished", "stopped", "failed"}
    assert all(trial.status != "stopped" for trial in trials if trial.role != "search" or scheduler == "none")
    # Whoever finished first among the best got its second seed, and the default was confirmed with three others.
    finished = [trial for trial in searched if trial.status == "finished"]
    assert sum(trial.role == "replicate" for trial in trials) == bool(finished)


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_an_order_of_reports_that_no_decision_looks_at_changes_no_setting(seed):
    """Grid and baselines do not learn: the same configurations are trained for any reports."""
    plan = Plan(SPACES["roi_levels"], BASE, 4, sampler="grid", scheduler="none")
    found = {
        tuple(
            trial.config_hash for trial in walk(plan, random.Random(seed + more), slots=1 + more).record.trials.values()
        )
        for more in range(3)
    }
    assert len(found) == 1


def test_a_slot_takes_what_was_broken_off_before_anything_new():
    history, policy = started(), Policy(Plan(SPACES["lr_schedules"], BASE, 3))
    first = policy.next_action(history.record)
    assert (first.trial_id, first.role, first.proposed.baseline) == ("t0000", "search", "default")
    history.add(first.trial_id, first.role, first.proposed)
    assert policy.next_action(history.record) == Start("t0000")
    second = policy.next_action(history.record, ["t0000"])
    assert second.trial_id == "t0001"
    history.tell("fault", trial_id="t0000", fault="worker_died", reason="r", epoch=0)
    assert policy.next_action(history.record) == Start("t0000")
    history.tell("end", trial_id="t0000", status="failed", reason="r")
    assert isinstance(policy.next_action(history.record), Add)


def test_a_trial_whose_end_waits_for_room_keeps_no_slot_busy():
    history, policy = started(), Policy(Plan(SPACES["lr_schedules"], BASE, 1))
    first = policy.next_action(history.record)
    history.add(first.trial_id, first.role, first.proposed)
    for epoch in range(1, EPOCHS + 1):
        history.tell("report", trial_id="t0000", **report(epoch, 0.5))
    history.tell("checkpoint", trial_id="t0000", path="c", epoch=EPOCHS)
    assert policy.next_action(history.record) == Close("t0000")
    assert policy.next_action(history.record, closing=["t0000"]) is Idle.DONE
    assert policy.next_action(history.record, running=["t0000"]) is Idle.WAIT


def test_so_many_checkpoints_stay_that_replicates_and_confirmation_can_still_choose():
    def kept(**asked):
        return Policy(Plan(SPACES["lr_schedules"], BASE, 9, **asked)).kept(2)

    assert kept() == 2
    assert kept(replicates=3, replicate_top=4) == 4
    assert kept(replicates=1, replicate_top=4) == 2
    assert kept(confirm=5) == 6
