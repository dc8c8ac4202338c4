"""What more trials would gain, and the end of a search that is settled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposing import EPOCHS, Told
from search.policy.outlook import FEWEST_TRIALS, SETTLED, chance_of, outlook_of, whole_scores
from spaces.catalogue import SPACES

DENSE = lambda random, size: 0.7 - random.gamma(1.0, 0.1, size)  # noqa: E731
"""Many configurations are nearly as good as possible."""

SCORES = st.lists(st.floats(0, 1), min_size=2, max_size=40)


@given(SCORES, st.floats(0, 0.5), st.integers(1, 50))
def test_the_chance_falls_with_the_gain_and_rises_with_the_number_of_trials(scores, gain, more):
    best = max(scores)
    chance = chance_of(scores, best + gain, more)
    assert 0 <= chance <= 1
    assert chance_of(scores, best + gain + 0.01, more) <= chance
    assert chance_of(scores, best + gain, more + 5) >= chance
    assert chance_of(scores, best, 1) == pytest.approx(1 / (len(scores) + 1))


@pytest.mark.parametrize(
    "draw",
    [
        lambda random, size: random.exponential(0.05, size),
        lambda random, size: random.beta(4, 2, size),
        DENSE,
    ],
    ids=["without an upper end", "rare at the upper end", "dense at the upper end"],
)
def test_a_search_is_rarely_called_settled_before_a_larger_gain(draw):
    """Simulated searches, whose gain by as many trials again is known."""
    random = np.random.default_rng(3)
    wrong = claimed = 0
    for _ in range(2000):
        scores, gain = draw(random, 24), random.uniform(0.0, 0.1)
        if chance_of(scores[:12], scores[:12].max() + gain, 12) <= SETTLED:
            claimed += 1
            wrong += scores[12:].max() > scores[:12].max() + gain
    assert wrong / 2000 < 0.05
    if draw is DENSE:
        assert claimed > 300  # most of them gain less than 0.1


def told_with(scores, **plan):
    told = Told(SPACES["anchors"], 40, **plan)
    for score in scores:
        told.train(told.suggest()["trial_id"], *[score] * EPOCHS)
    return told


def test_an_outlook_needs_enough_sampled_trials_and_counts_no_baselines():
    baselines = 3
    few = told_with([0.1] * baselines + [0.5] * (FEWEST_TRIALS - 1))
    assert outlook_of(few.record, 0.01) is None
    scores = [0.3, 0.31, 0.35, 0.4, 0.42, 0.44, 0.47, 0.5]
    found = outlook_of(told_with([0.1] * baselines + scores).record, 0.01)
    assert (found.trials, found.more, found.gain) == (FEWEST_TRIALS, 10, 0.01)
    assert found.chance == pytest.approx(chance_of(scores, 0.51, 10))
    assert 0 < found.expected < 0.5
    led = outlook_of(told_with([0.1, 0.9, 0.1, *scores]).record, 0.01)
    assert led.chance < found.chance  # a baseline is far ahead
    assert led.chance == pytest.approx(chance_of(scores, 0.91, 10))


def test_a_stopped_trial_is_expected_to_increase_like_the_others():
    told = Told(SPACES["anchors"], 6)
    told.train(told.suggest()["trial_id"], 0.1, 0.2, 0.3, 0.5)
    told.train(told.suggest()["trial_id"], 0.1, 0.15, 0.15, 0.25)
    told.train(told.suggest()["trial_id"], 0.05, 0.12, status="stopped")
    scores = whole_scores(told.trials, "val_map")
    assert scores == pytest.approx({"t0000": 0.5, "t0001": 0.25, "t0002": 0.12 + (0.3 + 0.1) / 2})


def test_a_settled_search_draws_no_more_and_its_replicates_follow():
    scores = [0.1, 0.2, 0.3, *[0.5 + number * 1e-5 for number in range(30)]]
    told = Told(SPACES["anchors"], 40, until_settled=True, gain=0.01, replicates=2, replicate_top=1)
    values = iter(scores)
    told.run_through(lambda config: next(values))
    roles = [trial.role for trial in told.trials]
    assert roles.count("search") == 3 + FEWEST_TRIALS
    assert roles.count("replicate") == 1
    assert outlook_of(told.record, 0.01).chance <= SETTLED
    whole = Told(SPACES["anchors"], 14)
    values = iter(scores)
    whole.run_through(lambda config: next(values))
    assert len(whole.trials) == 14  # without --until settled
