"""Schedulers decide from recorded scores only: compared with Ray's own, and across crashes."""

import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from conftest import introduce, report
from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError
from results.record.log import EventWriter, read_record
from results.record.run import RunRecord
from search.defaults import GRACE_EPOCHS, REDUCTION_FACTOR
from search.policy.decisions import Policy
from search.policy.plan import Plan
from search.policy.stopping import Asha, Median, Stopping
from search.replay import replay
from search.tune.scheduler import PolicyScheduler
from spaces.catalogue import SPACES

EPOCHS = 9


def simulate(seed, make_rule, *, kill=lambda step: False, trials=30, slots=4):
    """Trials in slots with a score per epoch; a rule decides after each. `kill` says where the driver dies.

    Every trial goes on from its last epoch then, and one of them repeats one, as after a checkpoint not yet stored.

    Returns:
        Every decision: trial, epoch, whether it was stopped.
    """
    draw = random.Random(seed)
    scores = {(t, e): draw.random() * 0.3 + 0.05 * e + 0.01 * t for t in range(trials) for e in range(1, EPOCHS + 1)}
    waiting, running, said = list(range(trials)), {}, []
    rule, step = make_rule([]), 0
    while waiting or running:
        while waiting and len(running) < slots:
            running[waiting.pop(0)] = 0
        name = draw.choice(sorted(running))
        running[name] += 1
        epoch = running[name]
        stop = rule.decide(f"t{name}", epoch, scores[name, epoch]) is not None
        said.append((f"t{name}", epoch, scores[name, epoch], stop))
        if stop or epoch == EPOCHS:
            del running[name]
        step += 1
        if kill(step):
            rule = make_rule(said)
            if running:
                again = sorted(running)[step % len(running)]
                running[again] = max(running[again] - 1, 0)
    return said


def rebuilt(rule_class):
    """Our rule after the earlier reports."""

    def make(said):
        rule = rule_class("val_map", EPOCHS)
        for name, epoch, score, _ in said:
            rule.decide(name, epoch, score)
        return rule

    return make


class RaysTrial:
    """The attributes of a trial that Ray's schedulers read."""

    status = Trial.RUNNING

    def __init__(self, name):
        self.trial_id, self.config = name, {}


class Rays:
    """Ray's own scheduler with the interface of our rules."""

    def __init__(self, scheduler):
        self._scheduler, self._trials, self._controller = scheduler, {}, SimpleNamespace(_trials=[])

    def decide(self, name, epoch, score):
        if name not in self._trials:
            self._trials[name] = RaysTrial(name)
            self._scheduler.on_trial_add(self._controller, self._trials[name])
        result = {"epoch": epoch, "val_map": score}
        action = self._scheduler.on_trial_result(self._controller, self._trials[name], result)
        return "stopped" if action == TrialScheduler.STOP and epoch < EPOCHS else None


def rays_asha(said):
    """Always empty: Tuner.restore does not restore the state of schedulers."""
    return Rays(
        AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="val_map",
            mode="max",
            max_t=EPOCHS,
            grace_period=GRACE_EPOCHS,
            reduction_factor=REDUCTION_FACTOR,
        )
    )


def rays_median(said):
    rule = MedianStoppingRule(time_attr="epoch", metric="val_map", mode="max", grace_period=1, min_samples_required=3)
    rule._on_insufficient_samples = lambda *_: TrialScheduler.CONTINUE
    return Rays(rule)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_uninterrupted_it_decides_as_rays_own(seed):
    assert simulate(seed, rebuilt(Asha)) == simulate(seed, rays_asha)
    assert simulate(seed, rebuilt(Median)) == simulate(seed, rays_median)


def differing(said, make_rule):
    """Decisions that differ from those of an uninterrupted scheduler on the same reports."""
    rule, known, found = make_rule([]), set(), 0
    for name, epoch, score, stop in said:
        if (name, epoch) in known:  # a report again: the decision then stands
            found += stop
            continue
        known.add((name, epoch))
        found += (rule.decide(name, epoch, score) is not None) != stop
    return found


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 50]), st.sampled_from([Asha, Median]))
def test_killed_once_or_fifty_times_it_has_decided_as_if_never(seed, kills, rule_class):
    steps = set(random.Random(seed).choices(range(1, 150), k=kills))
    said = simulate(seed, rebuilt(rule_class), kill=steps.__contains__)
    assert differing(said, rebuilt(rule_class)) == 0


@pytest.mark.parametrize("rule_class", [Asha, Median])
def test_the_storms_of_these_tests_do_stop_trials(rule_class):
    stopping = [any(stop for *_, stop in simulate(seed, rebuilt(rule_class))) for seed in range(10)]
    assert sum(stopping) >= 5


def test_rays_own_forgets_at_a_restart():
    """Ray's scheduler fails where ours does not, with the same crashes and reports."""
    wrong = 0
    for seed in range(20):
        steps = set(random.Random(seed).choices(range(1, 150), k=5))
        wrong += differing(simulate(seed, rays_asha, kill=steps.__contains__), rays_asha)
    assert wrong > 20


@pytest.mark.parametrize("rule_class", [Asha, Median])
def test_an_epoch_told_again_gets_the_decision_that_it_got(rule_class):
    rule = rule_class("val_map", EPOCHS)
    for number in range(4):
        rule.decide(f"t{number}", GRACE_EPOCHS, 0.5 + 0.1 * number)
    cut = rule.decide("t9", GRACE_EPOCHS, 0.1)
    assert cut is not None
    assert rule.decide("t9", GRACE_EPOCHS, 0.9) == cut
    assert rule.decide("t3", GRACE_EPOCHS, 0.0) is None


def trial_of(name):
    return SimpleNamespace(trial_id="ray", config={"trial_id": name})


def test_replicates_are_not_raced(tmp_path):
    events = EventWriter(tmp_path, "r")
    events.write("run", metric="val_map", scheduler="asha", epochs=EPOCHS, trials=8, resumed=False, asha=[2, 2])
    base = TrainConfig.from_flat({"optim.epochs": EPOCHS})
    policy = Policy(Plan(SPACES["anchors"], base, 9, scheduler="asha"))
    scheduler = PolicyScheduler(policy, events.record, "val_map")
    for name, role in (("t0", "search"), ("t1", "search"), ("t2", "replicate"), ("t3", "search"), ("t4", "search")):
        introduce(events, name, role=role)
    for name, score in (("t0", 0.9), ("t1", 0.8)):
        scheduler.on_trial_result(None, trial_of(name), {"epoch": GRACE_EPOCHS, "val_map": score})
        events.write("report", trial_id=name, **report(GRACE_EPOCHS, score))
    bad = {"epoch": GRACE_EPOCHS, "val_map": 0.0}
    assert scheduler.on_trial_result(None, trial_of("t2"), bad) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, trial_of("t3"), bad) == TrialScheduler.STOP
    said = policy.judge(events.record, "t3", GRACE_EPOCHS, 0.0)  # asked again, by the recorder
    assert f"val_map 0.000 at epoch {GRACE_EPOCHS} lies under the cut" in said
    for unmeasured in (None, float("nan")):
        result = {"epoch": GRACE_EPOCHS, "val_map": unmeasured}
        assert scheduler.on_trial_result(None, trial_of("t4"), result) == TrialScheduler.CONTINUE
    events.close()


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 4))
def test_other_rungs_are_decided_as_by_ray_too(seed, grace, factor):
    def ours(said):
        return Asha("val_map", EPOCHS, grace=grace, factor=factor)

    def rays(said):
        return Rays(
            AsyncHyperBandScheduler(
                time_attr="epoch", metric="val_map", mode="max", max_t=EPOCHS, grace_period=grace,
                reduction_factor=factor,
            )
        )  # fmt: skip

    assert simulate(seed, ours) == simulate(seed, rays)


@pytest.fixture
def recorded(tmp_path):
    """A run folder whose reports were decided by ASHA under three drivers."""
    draw = random.Random(7)
    events = EventWriter(tmp_path, "r")
    for driver in range(3):
        events.write("run", metric="val_map", scheduler="asha", epochs=EPOCHS, trials=8, resumed=driver > 0)
        stopping = Stopping("asha", EPOCHS)
        for number in range(4 * driver, 4 * driver + 4):
            name = f"t{number:04d}"
            facts = {"space": "s", "role": "search", "baseline": None, "config": {"optim.epochs": EPOCHS}, "seed": 0}
            events.write("trial", trial_id=name, config_hash=name, params={}, **facts)
        for name in list(events.record.trials):
            trial = events.record.trials[name]
            for epoch in range(trial.num_epochs + 1, min(trial.num_epochs + 4, EPOCHS) + 1):
                if trial.cut is not None:
                    break
                value = draw.random()
                cut = stopping.judge(events.record, name, epoch, value)
                more = {} if cut is None else {"cut": cut}
                events.write("report", trial_id=name, epoch=epoch, val_map=value, early_stopped=False, **more)
        events.close()
        events = EventWriter(tmp_path, "r")
    events.close()
    return tmp_path


def test_a_replay_finds_every_recorded_decision_and_a_changed_one(recorded):
    found = replay(recorded)
    assert found.drivers == 3
    assert found.stops > 3
    assert found.differing == []
    path = recorded / "events.jsonl"
    lines = path.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if '"cut"' in line)
    lines[at] = lines[at].replace("asha:", "somebody:")
    path.write_text("\n".join(lines) + "\n")
    assert len(replay(recorded).differing) == 1


def test_a_run_is_decided_as_it_began_whatever_the_defaults_are_now(tmp_path):
    """Records without grace period and factor were decided at epochs 1, 3, 9 by thirds."""
    for name, named, stopped_at in (("old", {}, 1), ("new", {"asha": [2, 2]}, 2), ("other", {"asha": [4, 3]}, 4)):
        (tmp_path / name).mkdir()
        events = EventWriter(tmp_path / name, name)
        events.write("run", metric="val_map", scheduler="asha", epochs=EPOCHS, trials=2, resumed=False, **named)
        events.write("run", metric="val_map", scheduler="asha", epochs=EPOCHS, trials=2, resumed=True, asha=[3, 5])
        stopping = Stopping("asha", EPOCHS)
        for trial_id in ("t0", "t1"):
            introduce(events, trial_id)
        record = events.record
        assert [stopping.judge(record, "t0", epoch, 0.9) for epoch in range(1, EPOCHS + 1)] == [None] * EPOCHS
        decisions = [stopping.judge(record, "t1", epoch, 0.1) is not None for epoch in range(1, stopped_at + 1)]
        events.close()
        assert decisions == [False] * (stopped_at - 1) + [True]


@pytest.mark.parametrize("wrong", [[0, 2], [1, 1], [1], "1,3", [1.5, 2]])
def test_a_record_with_impossible_rungs_is_damaged(tmp_path, wrong):
    events = EventWriter(tmp_path, "r")
    events.write("run", metric="val_map", scheduler="asha", epochs=EPOCHS, trials=2, resumed=False, asha=[1, 3])
    events.close()
    path = tmp_path / "events.jsonl"
    path.write_text(path.read_text().replace("[1,3]", json.dumps(wrong)))
    with pytest.raises(RunError, match="'asha' of a 'run' is wrong"):
        read_record(tmp_path, "r")


def test_arrivals_are_in_the_order_of_the_record(recorded):
    record = read_record(recorded, "r")
    numbers = [one.number for one in record.arrivals]
    assert numbers == sorted(numbers)
    assert len(numbers) == sum(len(trial.epochs) for trial in record.trials.values())
    assert isinstance(record, RunRecord)
