"""How long a search will take: before it starts, and while it runs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import introduce, report
from results.record.log import EventWriter
from results.views.time_left import seconds_left
from search.machine.cost import Speed, Workload, cost_of, expected_epochs, hours_words
from search.monitor.view import spark


@pytest.fixture
def events(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    writer = EventWriter(folder, "run")
    writer.write("run", metric="val_map", trials=8, resumed=False)
    yield writer
    writer.close()


def trained(events, name, epochs, status, seconds=10.0):
    introduce(events, name, **{"optim.epochs": 4, "optim.lr": 1e-3 + int(name[1:]) / 1e4})
    events.write("start", trial_id=name)
    for epoch in range(1, epochs + 1):
        events.write("report", trial_id=name, **report(epoch, 0.5) | {"epoch_seconds": seconds})
    if status != "running":
        events.write("end", trial_id=name, status=status, reason=None)


def test_nothing_is_said_before_the_first_epoch(events):
    introduce(events, "t0000")
    assert seconds_left(events.record, trials=8, slots=2) is None


def test_before_two_have_ended_the_range_is_from_one_epoch_each_to_all(events):
    trained(events, "t0000", 1, "running")
    low, high = seconds_left(events.record, trials=3, slots=1)
    assert (low, high) == (10 * (2 + 1), 10 * (2 * 4 + 3))


def test_trials_to_come_are_taken_to_be_like_those_that_ended(events):
    for number in range(4):
        trained(events, f"t{number:04d}", 1 if number % 2 else 4, "stopped" if number % 2 else "finished")
    low, high = seconds_left(events.record, trials=8, slots=2)
    middle = 4 * 2.5 * 10 / 2
    assert low < middle < high
    assert high <= 4 * 4 * 10 / 2
    assert low >= 0


def test_nothing_is_left_when_all_have_ended(events):
    for number in range(3):
        trained(events, f"t{number:04d}", 2, "stopped")
    assert seconds_left(events.record, trials=3, slots=2) == (0.0, 0.0)


@given(st.sampled_from(["asha", "median", "none"]), st.integers(1, 40), st.integers(1, 60))
def test_the_expected_epochs_lie_between_one_and_all_of_each_trial(scheduler, trials, epochs):
    expected = expected_epochs(scheduler, trials, epochs)
    assert trials <= expected <= trials * epochs
    assert expected_epochs(scheduler, trials + 1, epochs) > expected
    assert expected_epochs("none", trials, epochs) == trials * epochs


def test_halving_lets_the_first_and_half_of_the_later_trials_continue():
    assert expected_epochs("asha", 1, 8) == 8
    assert expected_epochs("asha", 9, 8) == 2 * 9 + 2 * 5 + 4 * 3
    assert expected_epochs("asha", 0, 8) == 0


def test_a_cost_grows_with_what_it_is_of():
    speed = Speed(train_per_second=50, eval_per_second=100, peak_memory_bytes=10**9, num_parameters=10**6)
    work = Workload(trials=10, further=2, epochs=4, images=500, valid_images=100, slots=2, keep=5, scheduler="asha")
    cost, whole = cost_of(speed, work), cost_of(speed, replace(work, scheduler="none"))
    assert whole.seconds == whole.most_seconds == cost.most_seconds == 12 * 4 * 11 / 2
    assert cost.epochs == expected_epochs("asha", 10, 4) + 2 * 4
    assert cost.seconds == pytest.approx(cost.epochs * 11 / 2)
    assert cost.memory_bytes == 2 * 10**9
    assert cost.disk_bytes > 5 * 4 * 10**6


def test_a_time_budget_limits_epochs_and_seconds():
    speed = Speed(train_per_second=50, eval_per_second=100, peak_memory_bytes=0, num_parameters=0)
    work = Workload(
        trials=10, further=0, epochs=4, images=500, valid_images=100, slots=2, keep=5, scheduler="none", budget_s=55
    )
    short, long = cost_of(speed, work), cost_of(speed, replace(work, budget_s=10_000))
    assert (short.epochs, short.seconds, short.most_seconds) == (10, 55, 55)
    assert long == cost_of(speed, replace(work, budget_s=None))


def test_a_spark_line_runs_from_the_lowest_to_the_highest():
    assert spark([0.0, 0.5, None, 1.0], 0.0, 1.0) == "▁▅ █"
    assert spark([0.3] * 20, 0.3, 0.3) == "▁" * 12
    assert spark([], 0.0, 1.0) == ""


def test_guesses_are_told_in_two_digits():
    assert [hours_words(one) for one in (0.2, 40, 700, 9000, 400_000)] == [
        "1 s",
        "40 s",
        "12 min",
        "2.5 h",
        "1.1e+02 h",
    ]
