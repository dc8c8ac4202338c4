"""What the benchmarks compute, not how fast anything is."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from digits_core.evaluation.metrics import MatchTable, Truth, average_precision
from search.policy.stopping import Asha, NoStopping

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def replays():
    return script("search")


@pytest.mark.parametrize("name", ["BANK", "OTHER"])
def test_a_bank_has_different_settings_of_its_space_trained_to_the_end(replays, name):
    bank = replays.read_bank(getattr(replays, name))
    assert bank.curves.shape[0] >= 40
    assert not np.isnan(bank.curves).any()
    assert {params["schedule"] for params in bank.params} == {"onecycle", "cosine", "step"}
    assert len({tuple(params.items()) for params in bank.params}) == len(bank.params)
    assert all(set(one) == replays.PLAN.space.fields() for one in bank.overrides)
    assert all(params.keys() <= replays.DISTRIBUTIONS.keys() for params in bank.params)


def small_bank(replays):
    """Setting i ends at i / 10; its curve rises evenly."""
    curves = np.outer(np.arange(6) / 10, np.arange(1, 5) / 4)
    settings = [{"lr": float(i)} for i in range(6)]
    return replays.Bank(settings, settings, curves, np.arange(6)[::-1].astype(float))


def test_a_search_that_learned_begins_with_what_was_good(replays):
    bank, other = replays.read_bank(replays.BANK), replays.read_bank(replays.OTHER)
    final = bank.curves.max(axis=1)
    first = [final[replays.Learning(bank, seed, other).next()] for seed in range(10)]
    assert np.mean(first) > np.mean(final)


def test_a_replay_without_stopping_sees_every_epoch_once_and_ends_at_the_best(replays):
    bank = small_bank(replays)
    seen = replays.replay(bank, replays.Picker(bank, 3), NoStopping("val_map", 4), 30)
    assert len(seen) == 30
    assert (np.diff(seen) >= 0).all()
    assert seen[23] == seen[-1] == 0.5
    assert seen[22] <= 0.5


def test_one_seed_is_one_replay_and_another_is_another(replays):
    bank = replays.read_bank(replays.BANK)

    def run(seed):
        return replays.replay(bank, replays.Picker(bank, seed), Asha("val_map", 12), 40).tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_screened_start_takes_the_best_covering_of_those_it_looks_at(replays):
    bank = small_bank(replays)
    picker = replays.Screened(bank, 0, most=6)
    assert [picker.next() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert picker.next() is None


def test_a_paused_setting_goes_on_once_it_is_among_the_best_of_its_rung(replays):
    rule = replays.Promoting(8, 2, 2)
    assert rule.paused(7, 2, 0.3)
    assert rule.promoted() is None
    assert rule.paused(8, 2, 0.5)
    assert rule.promoted() == (8, 2)
    assert rule.promoted() is None


def test_what_a_record_says_of_start_and_slots():
    times = itertools.count()

    def event(kind, at, **more):
        return {"kind": kind, "time": f"2026-01-01T00:00:{at:06.3f}+00:00", "n": next(times), **more}

    def report(name, at):
        return event("report", at, trial_id=name, epoch_seconds=4.0, train_seconds=3.0, eval_seconds=0.8)

    events = [event("run", 2)]
    for name, begun in (("a", 4.0), ("b", 5.0)):
        events.append(event("start", begun, trial_id=name))
    events += [report("a", 10.0), report("b", 11.0), event("start", 10.5, trial_id="c"), report("c", 15.0)]
    from datetime import datetime

    launched = datetime.fromisoformat("2026-01-01T00:00:00+00:00").timestamp()
    found = script("speed").of_events(events, launched)
    assert found["start: command to first training step, s"] == pytest.approx(6.0)
    assert found["a further trial in a warm slot: last report to next first step, s"] == pytest.approx(1.0)
    # From 6 to 11 both slots are taken: a works 3.8 s of it, b 3.8 s, c none.
    assert found["share of slot time in training and evaluation, %"] == pytest.approx(100 * 7.6 / 10)


def test_the_race_counts_a_target_not_reached_as_all_the_time_that_a_search_had():
    race = script("race")
    text = race.table(
        [
            race.Outcome(race.LOOP, 0, 300.0, 3, [[200.0, 0.4], [300.0, 0.1]]),
            race.Outcome("plain Optuna", 0, 90.0, 3, [[45.0, 0.395], [90.0, 0.3]]),
            race.Outcome("plain Ray Tune", 0, 80.0, 3, [[45.0, 0.395], [80.0, 0.3]], target=45.0),
            race.Outcome(race.OURS, 0, 40.0, 3, [[15.0, 0.39], [40.0, 0.41]], target=15.0),
        ]
    )
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")] for line in text.splitlines()[2:]}
    assert rows[race.LOOP][2:4] == ["300 (300 to 300), 1 of 1 reached it", "20.0 (20.0 to 20.0)"]
    assert rows["plain Optuna"][2:4] == ["90 (90 to 90), 0 of 1 reached it", "6.0 (6.0 to 6.0)"]
    assert rows["plain Ray Tune"][2:6] == [
        "45 (45 to 45), 1 of 1 reached it", "3.0 (3.0 to 3.0)", "40.0 (40.0 to 40.0)", "2.0 (2.0 to 2.0)"
    ]  # fmt: skip


def test_a_model_reaches_the_target_of_the_race_unless_it_is_significantly_worse():
    race = script("race")
    noise = np.random.default_rng(0).normal(0, 0.01, 1000)
    best = race.Scored(0.5, 0.5 + noise)
    assert not race.Scored(0.6, 0.6 - noise).is_worse_than(best, 500)
    assert not race.Scored(0.49, 0.49 - noise).is_worse_than(best, 500)  # a difference of half its standard error
    assert race.Scored(0.49, 0.49 + noise * 0.9).is_worse_than(best, 500)  # the same one, measured ten times as exactly


@pytest.fixture(scope="module")
def coverage():
    return script("coverage")


@pytest.mark.parametrize(("draw", "whole"), [("numbers_of", True), ("digits_of", False)])
def test_intervals_near_one_hold_the_truth_where_percentiles_do_not(coverage, draw, whole):
    plain, ours = coverage.share_coverage(getattr(coverage, draw), 30, 0.97, 400, whole=whole)
    assert plain < 0.9
    assert ours > 0.92


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_equal_models_are_told_apart_on_few_images_by_the_plain_bootstrap_only(coverage, alike):
    plain, ours = coverage.false_verdicts(1, 0.5, alike, 400)
    assert plain > 0
    assert ours == 0


def test_equal_settings_of_two_seeds_are_seldom_told_apart(coverage):
    held, told = coverage.two_seeds(40, 0.97, 0.01, 100)
    assert held > 0.9
    assert told < 0.1


def test_images_drawn_from_a_split_are_a_split(coverage):
    image, labels = np.repeat(np.arange(30), 2), np.tile([1, 2], 30)
    generator = np.random.default_rng(0)
    right = generator.random(60) < 0.7
    columns = {
        "image": image, "rank": np.tile([0, 1], 30), "labels": labels, "scores": generator.random(60),
        "boxes": np.zeros((60, 4)), "iou": np.ones(60), "matched": np.where(right, 1023, 0).astype(np.uint16),
        "ignored": np.zeros(60, np.uint16), "digits": np.zeros(60, np.uint8),
    }  # fmt: skip
    table, truth = MatchTable(**columns), Truth(30, image, labels)
    same, whole = coverage.drawn_from(table, truth, np.arange(30))
    assert np.array_equal(average_precision(same, whole), average_precision(table, truth))
    some, part = coverage.drawn_from(table, truth, np.array([7, 3]))
    assert part.num_images == 2
    assert some.scores.tolist() == table.scores[[14, 15, 6, 7]].tolist()
    [name, *_] = next(coverage.ap_coverage(table, truth, 10, 3))
    assert name == "mAP"
