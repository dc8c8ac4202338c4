"""A search with several aims: what it proposes, what it stops, and what is on the front; no Ray is started."""

import math

import pytest

from conftest import report
from digits_core.errors import UsageError
from proposing import EPOCHS, Told
from results.record.schema import AIMS
from results.views.costs import COST_WORDS
from results.views.front import front_words
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import read_metric
from search.defaults import COSTS
from search.policy.optuna_study import study_of
from search.policy.stopping import Asha, ParetoAsha
from spaces.registry import Space, quiet_study

SIZES = Space(
    name="sizes",
    summary="",
    suggest=lambda trial: {
        "model.min_size": trial.suggest_int("size", 32, 200),
        "optim.lr": trial.suggest_float("lr", 1e-5, 0.1, log=True),
    },
)


def score(config):
    """Larger images are better, with less and less to gain; the rate should be 1e-3."""
    return 1 - 20 / config["model.min_size"] - abs(math.log10(config["optim.lr"]) + 3) / 10


def train(told, name, status="finished", epochs=EPOCHS):
    config = told.record.trials[name].config
    for epoch in range(1, epochs + 1):
        cost = {"cost": {"latency_ms": config["model.min_size"] / 20, "megabytes": 5.0}} if epoch == 1 else {}
        told.tell("report", trial_id=name, **report(epoch, score(config)), **cost)
    told.tell("checkpoint", trial_id=name, path="c", epoch=epochs)
    told.tell("end", trial_id=name, status=status, reason=None)
    ray = next(ray for ray, trial in told.searcher._running.items() if trial == name)
    told.searcher.on_trial_complete(ray)


def told_of(num, aims=("latency",), events=(), **plan):
    told = Told(SIZES, num, events=events, **plan)
    told.tell("run", metric="val_map", aims=list(aims))
    return told


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_front_has_what_no_trial_beats_and_a_killed_search_goes_on_as_it_would_have(sampler):
    whole = told_of(25, sampler=sampler, seed=1)
    while isinstance(params := whole.suggest(), dict):
        train(whole, params["trial_id"])
    trials = whole.trials
    points = {one.trial_id: (score(one.config), one.config["model.min_size"]) for one in trials}
    front = whole.record.on_front()
    for name, (value, size) in points.items():
        beaten = any(
            (other >= value and cost <= size) and (other > value or cost < size) for other, cost in points.values()
        )
        assert front[name] == (not beaten)
    assert front_words(whole.record)[0].count("ms") == sum(front.values())
    cut = next(number for number, event in enumerate(whole.events) if event.get("trial_id") == "t0015")
    again = told_of(25, sampler=sampler, seed=1, events=whole.events[:cut])
    while isinstance(params := again.suggest(), dict):
        train(again, params["trial_id"])
    assert [one.config for one in again.trials] == [one.config for one in trials]


def test_optuna_learns_both_values_and_stopped_trials_count():
    told = told_of(4)
    for status in ("finished", "stopped", "failed"):
        train(told, told.suggest()["trial_id"], status)
    study = study_of(told.record, SIZES, quiet_study(None, 1))
    first, failed = study.get_trials(deepcopy=False)  # the default is a baseline, which has no draw
    assert len(study.directions) == 2
    trial = told.record.trials["t0001"]
    assert first.values == [score(trial.config), trial.config["model.min_size"] / 20]
    assert failed.values is None


def test_a_trial_without_its_cost_is_not_on_the_front():
    told = told_of(3)
    name = told.suggest()["trial_id"]
    told.tell("report", trial_id=name, **report(1, 0.5))
    assert told.record.on_front() == {}
    assert told.record.point(told.record.trials[name]) is None
    one_aim = Told(SIZES, 3)
    name = one_aim.suggest()["trial_id"]
    one_aim.tell("report", trial_id=name, **report(1, 0.5))
    assert one_aim.record.point(one_aim.record.trials[name]) == (0.5,)
    assert one_aim.record.on_front() == {}


def test_halving_by_fronts_keeps_cheap_trials_and_is_plain_halving_if_all_cost_the_same():
    costs = {"a": (2.0,), "b": (1.0,), "c": (3.0,), "d": (2.5,)}
    rule = ParetoAsha("val_map", 8, costs.__getitem__)
    assert rule.decide("a", 2, 0.5) is None
    assert rule.decide("b", 2, 0.1) is None  # worse but cheaper: on the front
    assert "1 of 2 trials" not in (rule.decide("c", 2, 0.6) or "")  # the best score
    reason = rule.decide("d", 2, 0.4)  # worse and dearer than a, which is in a better front with b and c
    assert "3 of 3 trials that came this far before are in better fronts" in reason
    assert rule.decide("d", 2, 0.9) == reason  # a repeated epoch
    same = ParetoAsha("val_map", 8, lambda name: (1.0,))
    plain = Asha("val_map", 8)
    for number, value in enumerate([0.5, 0.4, 0.6, 0.55, 0.1, 0.58]):
        decisions = [one.decide(str(number), 2, value) is None for one in (same, plain)]
        assert decisions[0] == decisions[1] or abs(value - 0.55) < 0.04  # at the cut itself plain halving interpolates


def test_names_are_the_same_everywhere():
    assert tuple(AIMS) == COSTS
    assert set(AIMS.values()) == COST_WORDS.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latency", "begins with the metric to maximise"),
        ("val_mapp", "did you mean 'val_map'"),
        ("val_map,speed", "after val_map come costs to make small, each once: latency, latency_32, megabytes"),
        ("val_map,latency,latency", "each once"),
    ],
)
def test_a_wrong_metric_is_one_sentence(text, said):
    with pytest.raises(UsageError) as caught:
        read_metric(text)
    assert said in str(caught.value)
    assert read_metric("val_number_accuracy, latency") == ("val_number_accuracy", "latency")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "gp"}, "--sampler gp: needs one aim, but --metric names several; use tpe or random"),
        ({"scheduler": "median"}, "--scheduler median: needs one aim, but --metric names several; use asha or none"),
        ({"until_settled": True}, "--until settled: needs one aim"),
        ({"believed": {"optim.lr": 0.1}}, "--believe: needs one aim, but --metric names several; remove it"),
    ],
)
def test_what_needs_one_aim_is_refused(given, said):
    with pytest.raises(UsageError) as caught:
        make_plan(SearchSettings(space="lr_schedules", aims="latency", **given))
    assert said in str(caught.value)
