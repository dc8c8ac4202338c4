import math

import numpy as np
import pytest

from results.statistics import Difference, model_difference, pooled_variance, setting_difference
from results.verdicts.effort import Way, needed, ways_to_show


def difference(estimate, images, seeds, replicates):
    return Difference(estimate, 0, 0, 0.5, images, seeds, replicates)


@pytest.mark.parametrize(
    ("one", "images", "expected"),
    [
        (difference(0.0, 0.01, None, 0), 500, "the scores are equal; a difference under 0.028 would often be missed"),
        # (1.96 + 0.84) standard errors must fit into the difference: seeds .01 at 3 replicates -> 23.5 in all, and
        # 1.0 for a variance that is estimated
        (difference(0.01, 0.0, 0.01, 3), 500, "needs about 22 more replicates of each"),
        (difference(0.01, 0.01, None, 0), 500, "needs about 3,400 more images"),
        (difference(0.01, 0.01, 0.01, 3), 500, "needs about 7,300 more images and 46 more replicates of each"),
        (difference(0.0001, 0.0, 0.01, 3), 500, "a difference this small needs more than 1,000 replicates of each"),
        (difference(0.0001, 0.01, None, 0), 500, "more than 100 times as many images as now (500)"),
    ],
)
def test_what_it_would_take_is_said_in_words(one, images, expected):
    assert expected in needed(one, images)


def test_being_one_of_many_takes_more():
    one = difference(0.01, 0.01, None, 0)
    assert needed(one, 500) == "needs about 3,400 more images"
    assert needed(one, 500, comparisons=100) == "needs about 8,800 more images"


def significant(generator, size, replicates, images, *, seed_spread, image_spread, repeats=400):
    """How often two configurations that differ by `size` are told apart, each search simulated from its trainings.

    `seed_spread` is the standard deviation of a training's score over seeds, `image_spread` that of the difference of
    the two on one image.
    """
    found = 0
    for _ in range(repeats):
        common = generator.normal(0, image_spread / math.sqrt(images))
        first = size + common + generator.normal(0, seed_spread, replicates)
        second = generator.normal(0, seed_spread, replicates)
        resampled = np.tile(generator.normal(0, image_spread / math.sqrt(images), 200), (replicates, 1))
        variance = pooled_variance([first, second])
        one = setting_difference(first, second, resampled, np.zeros_like(resampled), images, *variance)
        found += one.p < 0.05
    return found / repeats


@pytest.mark.parametrize(
    ("size", "seed_spread", "image_spread", "kind"),
    [
        (0.010, 0.008, 0.03, "replicates"),
        (0.020, 0.010, 0.03, "replicates"),
        (0.020, 0.004, 0.25, "images"),
        (0.010, 0.008, 0.15, "both"),
    ],
)
def test_with_what_is_proposed_four_of_five_simulated_searches_find_the_difference(
    size, seed_spread, image_spread, kind
):
    replicates, images = 3, 500
    seen = difference(size, image_spread / math.sqrt(images), seed_spread * math.sqrt(2 / replicates), replicates)
    way = next(
        one
        for one in ways_to_show(seen, images)
        if {"replicates": not one.images, "images": not one.replicates, "both": True}[kind]
    )
    assert (way.replicates > 0, way.images > 0) == (kind != "images", kind != "replicates")
    spreads = {"seed_spread": seed_spread, "image_spread": image_spread}
    generator = np.random.default_rng(3)
    power = significant(generator, size, replicates + way.replicates, images + way.images, **spreads)
    assert 0.7 < power < 0.9
    half = significant(generator, size, replicates + way.replicates // 3, images + way.images // 3, **spreads)
    assert half < power - 0.1


def test_two_models_are_told_apart_in_four_of_five_draws_of_the_images_proposed():
    """Each model reads an image rightly or not; the images are drawn anew, and every draw is bootstrapped."""
    generator = np.random.default_rng(5)
    rates = np.array([0.05, 0.02, 0.93])  # only the first is right, only the second, both or none
    images = 200
    variance = rates[0] + rates[1] - (rates[0] - rates[1]) ** 2
    [way] = ways_to_show(difference(0.03, math.sqrt(variance / images), None, 0), images)
    assert way.replicates == 0
    found = []
    for size in (images, images + way.images):
        told = 0
        for _ in range(400):
            counts = generator.multinomial(size, rates)
            resampled = generator.multinomial(size, counts / size, 300)
            first, second = counts[[0, 2]].sum() / size, counts[1:].sum() / size
            ours = (resampled[:, [0, 2]].sum(axis=1) / size, resampled[:, 1:].sum(axis=1) / size)
            told += model_difference(first, second, *ours, size).p < 0.05
        found.append(told / 400)
    assert 0.72 < found[1] < 0.88
    assert found[0] < found[1] - 0.2


def test_the_way_against_the_larger_part_of_the_error_comes_first():
    seeds = ways_to_show(difference(0.02, 0.003, 0.006, 3), 500)
    images = ways_to_show(difference(0.02, 0.006, 0.003, 3), 500)
    assert [one.images > 0 for one in seeds] == [False, True]
    assert [one.images > 0 for one in images] == [True, False]
    assert ways_to_show(difference(0.0, 0.01, 0.01, 3), 500) == []
    assert ways_to_show(difference(0.01, 0.02, 0.0, 3), 500) == [
        Way(0, math.ceil(500 * (0.02**2 * 2.8015852**2 / 0.01**2 - 1)))
    ]
