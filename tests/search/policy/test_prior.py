"""What a search learns from earlier runs and beliefs: which configurations it proposes first, without Ray."""

import math

import numpy as np
import pytest

from conftest import report
from digits_core.config.train_config import TrainConfig
from digits_core.errors import UsageError
from proposing import EPOCHS, Told
from search.cli.settings import SearchSettings, make_plan
from search.policy.prior import FIRST_DRAWS, Learned, Prior, normal_scores, seen_of
from spaces.registry import Space

RATES = Space(
    name="rates",
    summary="",
    suggest=lambda trial: {
        "optim.lr": trial.suggest_float("lr", 1e-6, 0.9, log=True),
        "optim.weight_decay": trial.suggest_float("decay", 0.0, 1.0),
        "optim.schedule": trial.suggest_categorical("schedule", ["step", "cosine", "onecycle"]),
    },
)


def near(config):
    """A score with its maximum at a learning rate of 2e-3."""
    return 1 - abs(math.log10(config["optim.lr"]) - math.log10(2e-3)) / 3


def learned(num, score=near):
    random = np.random.default_rng(0)
    rates = np.exp(random.uniform(math.log(1e-6), math.log(0.9), num)).tolist()
    ranked = np.argsort(np.argsort([score({"optim.lr": rate}) for rate in rates]))
    return [Learned({"optim.lr": rate}, float(rank / num * 2 - 1)) for rate, rank in zip(rates, ranked, strict=True)]


def first_rates(prior, seeds=6, **plan):
    """The learning rates of the first drawn configuration of searches with several seeds."""
    told = [Told(RATES, 5, prior=prior, seed=seed, **plan) for seed in range(seeds)]
    for one in told:
        one.train(one.suggest()["trial_id"], *[0.5] * EPOCHS)  # the default
    return [one.suggest()["config"]["optim.lr"] for one in told]


def test_the_best_predicted_follow_the_baselines():
    plain = [near({"optim.lr": rate}) for rate in first_rates(None)]
    guided = [near({"optim.lr": rate}) for rate in first_rates(Prior(learned(20), {}))]
    assert min(guided) > 0.7
    assert np.mean(guided) > np.mean(plain) + 0.2


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_believed_value_is_tried_near_first(sampler):
    rates = first_rates(Prior([], {"optim.lr": 3e-5}), sampler=sampler)
    assert all(3e-6 < rate < 3e-4 for rate in rates)
    for schedule in ("step", "cosine", "onecycle"):  # each of the choices
        told = Told(RATES, 4, prior=Prior([], {"optim.schedule": schedule}), seed=1)
        assert [one["config"]["optim.schedule"] for one in told.run_through()[1:]] == [schedule] * 3


def test_its_word_fades_with_the_trials_of_the_search():
    """A wrong prior costs a few trials; then the search finds what is good."""
    wrong = Prior(learned(30, lambda config: -near(config)), {})
    assert [wrong.draws(done) for done in (0, 6, 12, 40)] == [FIRST_DRAWS, 32, round(FIRST_DRAWS / 27), 1]
    told = Told(RATES, 40, prior=wrong, sampler="tpe", seed=2)
    told.run_through(near)
    scores = [near(trial.config) for trial in told.trials[1:]]
    assert np.mean(scores[:3]) < np.mean(scores[-15:])
    plain = Told(RATES, 40, sampler="tpe", seed=2)
    plain.run_through(near)
    assert max(scores) > max(near(trial.config) for trial in plain.trials) - 0.1


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_that_was_killed_proposes_what_it_would_have_proposed(sampler):
    prior = Prior(learned(12), {"optim.weight_decay": 0.3})
    whole = Told(RATES, 12, prior=prior, sampler=sampler, seed=5)
    whole.run_through(near)
    for kept in (3, 6, 10):
        ends = [number for number, event in enumerate(whole.events) if event["kind"] == "end"]
        again = Told(RATES, 12, prior=prior, sampler=sampler, seed=5, events=whole.events[: ends[kept] + 1])
        again.run_through(near)
        assert [trial.config for trial in again.trials] == [trial.config for trial in whole.trials]


def test_scores_are_ranks_and_those_that_were_stopped_come_after_those_that_went_on():
    told = Told(RATES, 6)
    for values, status in (((0.1, 0.9), "stopped"), ((0.5,) * EPOCHS, "finished"), ((0.2,) * EPOCHS, "finished")):
        told.train(told.suggest()["trial_id"], *values, status=status)
    running = told.suggest()["trial_id"]
    told.tell("report", trial_id=running, **report(1, 0.99))
    failed = told.suggest()["trial_id"]
    told.train(failed, None, status="failed")
    trials = [one for one in told.trials if one.trial_id != running]
    scores = normal_scores(trials, "val_map")
    assert sorted(scores, key=scores.get) == ["t0000", "t0002", "t0001"]
    assert sum(scores.values()) == pytest.approx(0)
    settings, own = seen_of(told.record, ["optim.lr"])
    assert own == [scores[name] for name in ("t0000", "t0001", "t0002")]
    assert settings[0] == {"optim.lr": TrainConfig().optim.lr}


def test_what_is_learned_survives_as_text():
    one = Learned({"optim.lr": 1e-3, "optim.schedule": "step", "optim.t_max": None}, -0.25)
    assert Learned.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"config": {"optim.lr": [1]}, "score": 1}',
        '{"config": {"optim.lrr": 1}, "score": 1}',
        '{"config": [], "score": 1}',
        '{"config": {}, "score": NaN}',
        '{"config": {}, "score": 1' + "0" * 400 + "}",
    ],
)
def test_damaged_text_of_an_earlier_trial_is_one_sentence(text):
    with pytest.raises(UsageError, match=r"'learned' of .* is damaged"):
        make_plan(SearchSettings(space="lr_schedules", learned={"a:t0000": text}))


def test_a_trial_without_a_parameter_of_this_version_counts_with_the_others():
    told = Told(RATES, 6)
    told.run_through(near)
    del told.trials[1].config["optim.weight_decay"]
    settings, scores = seen_of(told.record, ["optim.lr", "optim.weight_decay"])
    assert [len(one) for one in settings] == [2, 1, 2, 2, 2, 2]
    draws = [{"optim.lr": 1e-3, "optim.weight_decay": 0.5}, {"optim.lr": 0.5, "optim.weight_decay": 0.5}]
    assert np.isfinite(Prior(learned(10), {}).predict(draws, settings, scores)).all()
