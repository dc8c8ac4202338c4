import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from digits_core.evaluation.bootstrap import resample_weights
from results.statistics import (
    holm,
    image_error,
    image_p_values,
    interval,
    model_difference,
    paired_difference,
    pooled_variance,
    setting_difference,
)

RNG = np.random.default_rng(0)


Z = stats.norm.ppf(0.975)
MANY = 10**9
"""Images, so many that they are no luck."""


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (9, 10), (97, 100), (500, 500), (1234, 3000)])
def test_a_share_of_images_has_wilsons_interval(right, images):
    ends = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert interval(right / images, np.zeros(9), images, share=True) == pytest.approx((ends.low, ends.high))


def test_a_score_that_varies_as_a_share_of_some_images_has_the_interval_of_that_share():
    spread = math.sqrt(0.45 * 0.55 / 730)
    resampled = np.tile([0.45 - spread, 0.45 + spread], 50_000)
    low, high = interval(0.45, resampled, 10**6)
    ends = stats.binomtest(round(0.45 * 730), 730).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((ends.low, ends.high), abs=1e-3)


@given(st.floats(0, 1), st.integers(0, 99), st.integers(1, 200))
def test_an_interval_lies_in_the_unit_range_and_holds_its_score(point, seed, images):
    resampled = np.clip(np.random.default_rng(seed).normal(point, 0.2, 60), 0, 1)
    for share in (False, True):
        low, high = interval(point, resampled, images, share=share)
        assert 0 <= low <= point <= high <= 1


@pytest.mark.parametrize("point", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("images", [2, 30, 3000])
def test_resamples_that_never_differ_give_no_interval_of_width_zero(point, images):
    low, high = interval(point, np.full(1000, point), images)
    assert high - low > 2 / (images + 4)


def test_one_image_says_nothing_of_a_score():
    assert interval(0.7, np.full(1000, 0.7), 1) == (0.0, 1.0)


def test_resamples_without_digits_are_left_out():
    whole = np.random.default_rng(2).normal(0.5, 0.02, 1000)
    assert interval(0.5, np.append(whole, [np.nan] * 40), 60) == interval(0.5, whole, 60)


@pytest.mark.parametrize(("share", "images"), [(0.97, 100), (0.99, 100), (0.97, 30), (0.99, 500)])
def test_intervals_near_one_cover(share, images):
    """With percentiles of the bootstrap those of the share of images cover .86, .63, .58 and .91 of the time."""
    generator = np.random.default_rng(8)
    weights = resample_weights(images, 400).astype(np.float64)
    digits = generator.integers(1, 4, (images, 300))
    right = generator.binomial(digits, share)
    whole = (generator.random((images, 300)) < share).astype(np.float64)
    hits = {"numbers": 0, "digits": 0}
    for one in range(300):
        points = whole[:, one].mean(), right[:, one].sum() / digits[:, one].sum()
        low, high = interval(points[0], weights @ whole[:, one] / images, images, share=True)
        hits["numbers"] += low <= share <= high
        low, high = interval(points[1], (weights @ right[:, one]) / (weights @ digits[:, one]), images)
        hits["digits"] += low <= share <= high
    assert min(hits.values()) >= 0.9 * 300


def test_models_are_told_apart_by_the_spread_of_their_paired_difference():
    common = RNG.normal(0, 0.05, 1000)  # hard images are hard for both
    first, second = 0.46 + common + RNG.normal(0, 0.002, 1000), 0.44 + common
    one = model_difference(0.46, 0.44, first, second, MANY)
    assert one.estimate == pytest.approx(0.02)
    assert one.image_error == pytest.approx(0.002, rel=0.1)
    assert one.p < 1e-6
    assert one.low < 0.02 < one.high
    other = one.swapped()
    assert (other.estimate, other.low, other.high) == (-one.estimate, -one.high, -one.low)


def test_equal_models_are_no_difference():
    same = RNG.normal(0.4, 0.01, 100)
    one = model_difference(0.4, 0.4, same, same, 500)
    assert (one.p, one.estimate) == (1.0, 0.0)


def test_without_an_image_part_settings_are_compared_as_students_t_does():
    first, second = [0.45, 0.47, 0.44], [0.41, 0.43, 0.44]
    variance, freedom = pooled_variance([first, second])
    flat = np.zeros((3, 50))
    ours = setting_difference(first, second, flat, flat, MANY, variance, freedom)
    theirs = stats.ttest_ind(first, second)
    assert freedom == 4
    assert ours.p == pytest.approx(theirs.pvalue)
    ends = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high))
    assert ours.image_error == pytest.approx(0, abs=1e-6)


def test_variance_is_pooled_over_all_replicated_settings_of_a_run():
    groups = [[1.0, 3.0], [5.0], [], [2.0, 2.0, 5.0]]
    variance, freedom = pooled_variance(groups)
    assert freedom == 3
    assert variance == pytest.approx((2 + 6) / 3)
    assert pooled_variance([[1.0], [2.0]]) == (0.0, 0)


def test_the_intervals_of_images_and_seeds_are_joined_by_their_squares():
    first, second = [0.45, 0.47, 0.44], [0.41, 0.43, 0.44]
    flat, spread = np.zeros((3, 400)), np.tile(RNG.normal(0, 0.02, 400), (3, 1))
    seeds = setting_difference(first, second, flat, flat, MANY, 2e-4, 4)
    both = setting_difference(first, second, spread, flat, MANY, 2e-4, 4)
    assert both.error == pytest.approx(math.hypot(seeds.error, 0.02), rel=0.05)
    widths = seeds.high - seeds.estimate, 1.96 * both.image_error
    assert both.high - both.estimate == pytest.approx(math.hypot(*widths), rel=1e-4)


@given(
    st.floats(-0.4, 0.4), st.floats(0, 0.05), st.floats(1e-6, 1e-3) | st.just(0), st.integers(1, 20), st.integers(1, 99)
)
def test_a_p_value_is_under_the_level_just_where_the_interval_leaves_out_zero(size, images, variance, freedom, number):
    spread = np.array([[-1.0, 1.0, -1.0, 1.0]]) * images
    one = setting_difference([0.5 + size], [0.5], spread, np.zeros((1, 4)), number, variance, freedom)
    assert (one.p < 0.05) == (one.low > 0 or one.high < 0) or abs(one.p - 0.05) < 1e-9
    assert 0 <= one.p <= 1
    assert -1 <= one.low <= one.estimate <= one.high <= 1


@pytest.mark.parametrize(("only_first", "only_second", "images"), [(5, 1, 60), (9, 2, 500), (30, 12, 160), (0, 0, 100)])
def test_models_read_on_the_same_images_are_told_apart_as_mcnemars_test_does(only_first, only_second, images):
    differ = np.concatenate([np.ones(only_first), -np.ones(only_second), np.zeros(images - only_first - only_second)])
    resampled = resample_weights(images, 4000) @ differ / images
    one = model_difference(0.9 + differ.mean(), 0.9, 0.9 + resampled, np.full(4000, 0.9), images)
    discordant = only_first + only_second
    statistic = (only_first - only_second) / math.sqrt(discordant) if discordant else 0.0
    assert one.p == pytest.approx(2 * stats.t.sf(statistic, images - 1), rel=0.1)
    assert one.high > one.low


@pytest.mark.parametrize("images", range(1, 7))
def test_nothing_is_told_from_fewer_than_seven_images(images):
    nothing = np.zeros(1000)
    assert model_difference(1.0, 0.0, nothing + 1, nothing, images).p > 0.05
    assert setting_difference([1.0, 1.0], [0.0, 0.0], np.ones((2, 9)), np.zeros((2, 9)), images, 0.0, 2).p > 0.05
    assert paired_difference([1.0, 1.0], np.ones((2, 9)), images).p > 0.05


@pytest.mark.parametrize(("share", "images"), [(0.5, 4), (0.5, 10), (0.9, 30), (0.97, 100), (0.99, 500)])
def test_equal_models_near_one_and_on_few_images_are_seldom_told_apart(share, images):
    """With normal p-values of the bootstrap .26 of equal models were on 4 images, and .10 on 10."""
    generator = np.random.default_rng(4)
    weights = resample_weights(images, 300)
    sides = (generator.random((2, images, 2000)) < share).astype(np.float64)
    differ = sides[0] - sides[1]
    resampled = weights @ differ / images
    errors = np.array([image_error(one, images) for one in resampled.T])
    p = image_p_values(np.abs(differ.mean(axis=0)), errors, images)
    assert np.mean(p < 0.05) <= 0.065


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
