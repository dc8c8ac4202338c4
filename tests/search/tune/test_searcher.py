"""Which trial Ray gets next, by the record: no Ray is started."""

import pytest
from ray.tune.search import Searcher

from proposing import Told
from spaces.catalogue import SPACES
from spaces.registry import Space


def test_replicates_follow_when_the_settings_are_used_up():
    told = Told(SPACES["anchors"], 2, replicates=2, replicate_top=1)
    first, second = told.suggest(), told.suggest()
    assert [first["role"], second["role"]] == ["search", "search"]
    assert told.suggest() is None  # who is best is open
    told.train(first["trial_id"], 0.5, 0.5, 0.5, 0.9)
    assert told.suggest() is None
    told.train(second["trial_id"], 0.5, 0.5, 0.5, 0.5)
    params = told.suggest()
    assert (params["role"], params["trial_id"], params["config"]["runtime.seed"]) == ("replicate", "t0002", 1)
    assert params["config"] == {**first["config"], "runtime.seed": 1}
    assert told.suggest() is None  # what runs may yet have to be started again
    told.train("t0002", 0.99, 0.99, 0.99, 0.99)
    assert told.suggest() == Searcher.FINISHED


def test_a_trial_whose_driver_died_before_it_wrote_the_end_is_ended_and_not_trained():
    first = Told(SPACES["anchors"], 1)
    name = first.suggest()["trial_id"]
    first.train(name, 0.1, 0.2, 0.3, 0.4, status=None)
    first.tell("checkpoint", trial_id=name, path="c", epoch=4)
    again = Told(SPACES["anchors"], 1, events=first.events)
    assert again.suggest() == Searcher.FINISHED
    assert again.record.trials[name].status == "finished"
    waiting = Told(SPACES["anchors"], 1, events=first.events)
    waiting.closing.add(name)  # its end waits for room on the disk
    assert waiting.suggest() == Searcher.FINISHED
    assert waiting.record.trials[name].status == "running"


def test_a_training_that_a_fault_broke_off_is_the_next_to_start():
    told = Told(SPACES["anchors"], 12)
    first = told.suggest()
    told.searcher.on_trial_complete("ray1", None, error=True)
    told.tell("fault", trial_id=first["trial_id"], fault="worker_died", reason="its process died", epoch=0)
    second = told.suggest()
    assert (second["trial_id"], second["starts"]) == (first["trial_id"], 1)


def test_a_training_that_failed_for_good_is_not_started_again():
    told = Told(SPACES["anchors"], 12)
    first = told.suggest()
    told.searcher.on_trial_complete("ray1", None, error=True)
    told.tell("end", trial_id=first["trial_id"], status="failed", reason="its process died")
    assert told.suggest()["trial_id"] == "t0001"


def test_trials_of_a_driver_that_was_killed_go_on_before_anything_new_begins():
    first = Told(SPACES["anchors"], 12)
    names = [first.suggest()["trial_id"] for _ in range(3)]
    first.train(names[1], 0.1, 0.2, 0.3, 0.4)
    again = Told(SPACES["anchors"], 12, events=first.events)
    assert [again.suggest()["trial_id"] for _ in range(3)] == [names[0], names[2], "t0003"]


@pytest.mark.parametrize("left", [0, 1])
def test_nothing_starts_while_it_is_held_and_a_search_with_nothing_left_to_do_ends(left):
    held = [False]
    told = Told(SPACES["anchors"], 1 + left, held=lambda: held[0])
    told.suggest()
    held[0] = True
    assert told.suggest() is None
    told.train("t0000", 0.5, 0.5, 0.5, 0.5)
    assert told.suggest() == (None if left else Searcher.FINISHED)
    held[0] = False
    after = told.suggest()
    assert (after["trial_id"] if left else after) == ("t0001" if left else Searcher.FINISHED)


def test_a_run_that_ends_early_starts_nothing_more_and_keeps_ray_waiting_for_nothing():
    reason = []
    told = Told(SPACES["anchors"], 5, ending=lambda: reason[-1] if reason else None)
    assert told.suggest()["trial_id"] == "t0000"
    reason.append("time budget")
    assert told.suggest() == Searcher.FINISHED
    assert list(told.record.trials) == ["t0000"]


def test_a_space_that_is_used_up_is_not_drawn_from_again_while_something_still_runs():
    drawn = []

    def suggest(trial):
        drawn.append(True)
        return {"optim.batch_size": trial.suggest_categorical("b", [8, 16])}

    told = Told(Space(name="few", summary="", suggest=suggest), 30)
    told.suggest()  # runs on
    while (params := told.suggest()) is not None:
        told.train(params["trial_id"], 0.5, 0.5, 0.5, 0.5)
    before = len(drawn)
    assert [told.suggest() for _ in range(5)] == [None] * 5
    assert len(drawn) == before
