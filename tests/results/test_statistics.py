import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics import (
    Difference,
    holm,
    interval,
    model_difference,
    needed,
    pooled_variance,
    setting_difference,
)

RNG = np.random.default_rng(0)


def test_an_interval_is_the_percentiles_moved_onto_the_score():
    resampled = RNG.normal(0.45, 0.01, 4000)
    low, high = interval(0.44, resampled)
    assert low == pytest.approx(0.44 - 1.96 * 0.01, abs=0.001)
    assert high == pytest.approx(0.44 + 1.96 * 0.01, abs=0.001)


@given(st.floats(0, 1), st.integers(0, 99))
def test_an_interval_lies_in_the_unit_range_and_holds_its_score(point, seed):
    resampled = np.clip(np.random.default_rng(seed).normal(point, 0.2, 60), 0, 1)
    low, high = interval(point, resampled)
    assert 0 <= low <= point <= high <= 1


def test_resamples_without_digits_are_left_out_and_none_at_all_says_nothing():
    assert interval(0.5, np.array([np.nan, np.nan])) == (0.0, 1.0)
    low, high = interval(0.5, np.array([np.nan, 0.4, 0.6]))
    assert low < 0.5 < high


def test_models_are_told_apart_by_the_spread_of_their_paired_difference():
    common = RNG.normal(0, 0.05, 1000)  # hard images are hard for both
    first, second = 0.46 + common + RNG.normal(0, 0.002, 1000), 0.44 + common
    one = model_difference(0.46, 0.44, first, second)
    assert one.estimate == pytest.approx(0.02)
    assert one.image_error == pytest.approx(0.002, rel=0.1)
    assert one.p < 1e-6
    assert one.low < 0.02 < one.high
    other = one.swapped()
    assert (other.estimate, other.low, other.high) == (-one.estimate, -one.high, -one.low)


def test_equal_models_are_no_difference_at_all():
    same = RNG.normal(0.4, 0.01, 100)
    one = model_difference(0.4, 0.4, same, same)
    assert (one.p, one.low, one.high) == (1.0, 0.0, 0.0)


def test_without_an_image_part_settings_are_compared_as_students_t_does():
    first, second = [0.45, 0.47, 0.44], [0.41, 0.43, 0.44]
    variance, freedom = pooled_variance([first, second])
    flat = np.zeros((3, 50))
    ours = setting_difference(first, second, flat, flat, variance, freedom)
    theirs = stats.ttest_ind(first, second)
    assert freedom == 4
    assert ours.p == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high))
    assert ours.image_error == 0


def test_variance_is_pooled_over_all_replicated_settings_of_a_run():
    groups = [[1.0, 3.0], [5.0], [], [2.0, 2.0, 5.0]]
    variance, freedom = pooled_variance(groups)
    assert freedom == 3
    assert variance == pytest.approx((2 + 6) / 3)
    assert pooled_variance([[1.0], [2.0]]) == (0.0, 0)


def test_the_intervals_of_images_and_seeds_are_joined_by_their_squares():
    first, second = [0.45, 0.47, 0.44], [0.41, 0.43, 0.44]
    flat, spread = np.zeros((3, 400)), np.tile(RNG.normal(0, 0.02, 400), (3, 1))
    seeds = setting_difference(first, second, flat, flat, 2e-4, 4)
    both = setting_difference(first, second, spread, flat, 2e-4, 4)
    assert both.error == pytest.approx(math.hypot(seeds.error, 0.02), rel=0.05)
    widths = seeds.high - seeds.estimate, 1.96 * both.image_error
    assert both.high - both.estimate == pytest.approx(math.hypot(*widths), rel=1e-4)


@given(st.floats(-0.2, 0.2), st.floats(1e-4, 0.05), st.floats(1e-6, 1e-3), st.integers(1, 20))
def test_a_p_value_is_under_the_level_just_where_the_interval_leaves_out_zero(size, images, variance, freedom):
    spread = np.array([[-1.0, 1.0, -1.0, 1.0]]) * images
    one = setting_difference([0.5 + size], [0.5], spread, np.zeros((1, 4)), variance, freedom)
    assert (one.p < 0.05) == (one.low > 0 or one.high < 0) or abs(one.p - 0.05) < 1e-9
    assert 0 <= one.p <= 1


def test_holm_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p_value_nor_changes_the_order(values):
    corrected = holm(values)
    assert all(after >= before for before, after in zip(values, corrected, strict=True))
    assert all(value <= 1 for value in corrected)
    order = sorted(range(len(values)), key=lambda one: values[one])
    assert [corrected[one] for one in order] == sorted(corrected.tolist())
    assert all(after <= min(1, before * len(values)) + 1e-12 for before, after in zip(values, corrected, strict=True))


def difference(estimate, images, seeds, replicates):
    return Difference(estimate, 0, 0, 0.5, images, seeds, replicates)


@pytest.mark.parametrize(
    ("one", "images", "expected"),
    [
        (difference(0.0, 0.01, None, 0), 500, "no number of replicates"),
        # (1.96 + 0.84) standard errors must fit into the difference: seeds .01 at 3 replicates -> 24 in all
        (difference(0.01, 0.0, 0.01, 3), 500, "needs about 21 more replicates of each"),
        (difference(0.01, 0.01, None, 0), 500, "needs about 3,400 more images"),
        (difference(0.01, 0.01, 0.01, 3), 500, "more images and more replicates"),
        (difference(0.0001, 0.0, 0.01, 3), 500, "over 1000 replicates"),
        (difference(0.0001, 0.01, None, 0), 500, "over a hundred times the images"),
    ],
)
def test_what_it_would_take_is_said_in_words(one, images, expected):
    assert expected in needed(one, images)


def test_being_one_of_many_takes_more():
    one = difference(0.01, 0.01, None, 0)
    assert needed(one, 500) == "needs about 3,400 more images"
    assert needed(one, 500, comparisons=100) == "needs about 8,800 more images"


def test_the_replicates_proposed_are_what_a_simulation_needs():
    """With the number proposed, about four in five repetitions find a difference of the size seen."""
    generator = np.random.default_rng(3)
    size, sigma = 0.01, 0.008
    one = difference(size, 0.0, sigma * math.sqrt(2 / 3), 3)
    count = 3 + int(needed(one, 500).split()[2])
    first = generator.normal(size, sigma, (2000, count))
    second = generator.normal(0, sigma, (2000, count))
    found = stats.ttest_ind(first, second, axis=1).pvalue < 0.05
    assert 0.68 < found.mean() < 0.9
