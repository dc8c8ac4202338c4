"""Which configurations are proposed for a record and a plan: no Ray is started."""

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import report
from digits_core.config.train_config import TrainConfig
from digits_core.model.anchors import Coverage, setting_digest
from oracle import table_of
from proposing import EPOCHS, Told
from search.monitor.summary import fewer_words
from search.policy.plan import Plan
from search.policy.proposals import build_sampler
from search.policy.screen import Screen
from spaces.catalogue import SPACES
from spaces.registry import Space

RATES = Space(name="lr", summary="", suggest=lambda trial: {"optim.lr": trial.suggest_float("lr", 1e-6, 0.9, log=True)})


def near(config):
    """A score with its maximum at a learning rate of 2e-3."""
    return 1 - abs(math.log10(config["optim.lr"]) - math.log10(2e-3)) / 3


def test_baselines_come_first_then_drawn_settings_up_to_the_number_of_trials():
    told = Told(SPACES["anchors"], 7)
    handed = told.run_through()
    assert [trial.baseline for trial in told.trials] == ["default", "report B small", "report B normal"] + [None] * 4
    assert [params["trial_id"] for params in handed] == [f"t{number:04d}" for number in range(7)]
    assert handed[1]["config"]["model.anchor_sizes"] == "4,8,12,24,48"
    assert all(params["config"]["model.fresh_rpn"] for params in handed)


def test_no_setting_is_handed_out_twice_even_when_only_rounding_makes_it_the_same():
    few = Space(
        name="few",
        summary="",
        suggest=lambda trial: {"model.anchor_sizes": f"{trial.suggest_float('base', 8.0, 9.9):.3f},20,30,40,60"},
    )
    handed = Told(few, 30).run_through()
    digests = [setting_digest(TrainConfig.from_flat(params["config"])) for params in handed]
    assert len(set(digests)) == len(digests) < 30


@pytest.mark.parametrize("sampler", ["random", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_finite_space_is_searched_to_its_last_setting(sampler):
    space = Space(
        name="thirty",
        summary="",
        suggest=lambda trial: {
            "optim.batch_size": trial.suggest_categorical("batch", [2, 4, 6, 10, 12]),
            "optim.weight_decay": trial.suggest_categorical("decay", [1e-5, 2e-5, 5e-5, 2e-4, 5e-4, 1e-3]),
        },
    )
    handed = Told(space, 40, sampler=sampler).run_through(lambda config: 0.5 + config["optim.weight_decay"])
    found = {(params["config"]["optim.batch_size"], params["config"]["optim.weight_decay"]) for params in handed}
    assert len(found) == len(handed) == 31  # with the default, which is no point of it


def test_a_search_that_trained_less_than_asked_says_whether_the_space_is_used_up():
    base = TrainConfig.from_flat({"optim.epochs": 4})
    few = Space(
        name="few", summary="", suggest=lambda trial: {"optim.batch_size": trial.suggest_categorical("b", [2, 4])}
    )
    assert fewer_words(Plan(few, base, 9, []), 3, 3) == (
        "the space has only 3 different configurations; 3 of 9 were trained"
    )
    for space, tried in ((few, 2), (RATES, 3)):
        assert fewer_words(Plan(space, base, 9, []), tried, tried).startswith(
            f"{tried} of 9 configurations were trained: "
        )


def test_grid_walks_every_setting_once():
    space = Space(
        name="g",
        summary="",
        suggest=lambda trial: {
            "optim.batch_size": trial.suggest_categorical("b", [2, 4, 8]),
            "optim.schedule": trial.suggest_categorical("s", ["step", "cosine"]),
        },
    )
    handed = Told(space, 50, sampler="grid").run_through()
    found = {(params["config"]["optim.batch_size"], params["config"]["optim.schedule"]) for params in handed[1:]}
    assert len(handed) == 7  # the default, one-cycle at batch 8, is no point of the grid
    assert len(found) == 6


def test_tpe_finds_a_good_rate_sooner_than_chance():
    def mean_of_last(sampler):
        scores = []
        for seed in range(3):
            told = Told(RATES, 40, sampler=sampler, seed=seed)
            told.run_through(near)
            scores += [trial.best("val_map")["val_map"] for trial in told.trials[-15:]]
        return sum(scores) / len(scores)

    assert mean_of_last("tpe") > mean_of_last("random") + 0.1


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_samplers_walk_conditional_spaces_and_repeat_with_their_seed(name):
    def found(seed):
        told = Told(SPACES["lr_schedules"], 12, sampler=name, seed=seed)
        return [str(params["config"]) for params in told.run_through(lambda config: config["optim.lr"])]

    assert found(1) == found(1)
    assert found(1) != found(2)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(["random", "tpe"]), st.sampled_from(["lr_schedules", "roi_heads", "anchors"]))
def test_a_search_that_was_killed_proposes_what_it_would_have_proposed(data, sampler, space):
    """Two searches get the same reports in the same order; one of them is killed and resumed repeatedly."""
    screen = Screen(DIGITS, active=True)
    whole = Told(SPACES[space], 10, sampler=sampler, seed=3, screen=screen)
    killed = Told(SPACES[space], 10, sampler=sampler, seed=3, screen=screen)
    for _ in range(24):
        running = list(whole.searcher._running.values())
        if len(running) < 3 and data.draw(st.booleans()):
            mine, other = whole.suggest(), killed.suggest()
            assert mine == other
        elif running:
            name = data.draw(st.sampled_from(sorted(running)))
            done = whole.record.trials[name].num_epochs
            value = data.draw(st.floats(0, 1))
            ends = done + 1 == EPOCHS or data.draw(st.booleans())
            for one in (whole, killed):
                one.tell("report", trial_id=name, **report(done + 1, value))
                if ends:
                    one.tell("checkpoint", trial_id=name, path="c", epoch=done + 1)
                    one.tell("end", trial_id=name, status="finished" if done + 1 == EPOCHS else "stopped", reason=None)
                    ray = next(ray for ray, running in one.searcher._running.items() if running == name)
                    one.searcher.on_trial_complete(ray)
        if data.draw(st.booleans()):
            killed = Told(SPACES[space], 10, sampler=sampler, seed=3, screen=screen, events=killed.events)
            for _ in whole.searcher._running:  # what was under way goes on before anything new begins
                assert killed.suggest()["trial_id"] in whole.searcher._running.values()
    assert [trial.config for trial in whole.trials] == [trial.config for trial in killed.trials]


def test_settings_of_an_earlier_driver_are_known():
    first = Told(SPACES["anchors"], 5)
    first.run_through()
    again = Told(SPACES["anchors"], 7, events=first.events)
    assert [params["trial_id"] for params in again.run_through()] == ["t0005", "t0006"]
    assert all(trial.baseline is None for trial in again.trials[5:])


def test_baselines_that_an_interruption_left_out_come_first_on_resume():
    first = Told(SPACES["anchors"], 5)
    first.train(first.suggest()["trial_id"], *[0.5] * EPOCHS)
    again = Told(SPACES["anchors"], 5, events=first.events)
    again.run_through()
    assert [trial.baseline for trial in again.trials[1:]] == ["report B small", "report B normal", None, None]


def test_settings_that_the_space_prunes_or_that_cannot_be_are_passed_over():
    def suggest(trial):
        size = trial.suggest_int("size", 1, 30)
        if size % 2:
            raise optuna.TrialPruned
        return {"optim.step_epochs": size if size < 20 else -1}

    told = Told(Space(name="picky", summary="", suggest=suggest), 6)
    sizes = [params["config"]["optim.step_epochs"] for params in told.run_through()[1:]]
    assert len(sizes) == 5
    assert all(size % 2 == 0 and size < 20 for size in sizes)


def test_the_thresholds_plan_trains_the_default_only():
    told = Told(Space(name="thresholds", summary="", suggest=lambda trial: {}), 1)
    assert len(told.run_through()) == 1
    assert told.trials[0].baseline == "default"


def test_constant_liar_is_on_for_slots_side_by_side():
    sampler = build_sampler("tpe", 0, 12)
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert sampler._constant_liar


def test_settings_that_the_screen_keeps_out_cost_no_trial():
    class Half:
        """Screens out every second drawn configuration."""

        active = False

        def look(self, config, best_baseline):
            self.turn = not getattr(self, "turn", False)
            found = Coverage(0.5, 0.5, 0.5)
            return found, "too small" if self.turn and best_baseline is not None else None

    told = Told(SPACES["anchors"], 6, screen=Half())
    handed = told.run_through()
    assert len(handed) == 6
    screened = [trial for trial in told.trials if trial.status == "screened"]
    assert len(screened) >= 2
    assert all(trial.stop_reason == "too small" for trial in screened)
    assert all(trial.coverage["mean_iou"] == 0.5 for trial in told.trials)
    assert len(told.trials) == 6 + len(screened)


def test_a_screen_that_keeps_everything_out_ends_the_drawing(monkeypatch):
    monkeypatch.setattr("search.policy.proposals.MAX_SCREENED", 60)

    class Nothing:
        active = False

        def look(self, config, best_baseline):
            return Coverage(0.5, 0.5, 0.5), None if best_baseline is None else "too small"

    told = Told(RATES, 9, screen=Nothing())
    assert [params["role"] for params in told.run_through()] == ["search"]  # the default
    assert len(told.trials) == 1 + 60


DIGITS = table_of([[((10.0, 10.0, 20.0, 30.0), 1, False), ((30.0, 8.0, 44.0, 38.0), 2, False)]], side=64)


def mean_coverage(sampler, *, active, space="anchors"):
    """Over the configurations drawn in the startup phase of four searches."""
    found = []
    for seed in range(4):
        told = Told(SPACES[space], 6, sampler=sampler, seed=seed, screen=Screen(DIGITS, active=active))
        told.run_through()
        found += [trial.coverage["mean_iou"] for trial in told.trials if trial.baseline is None]
    return sum(found) / len(found)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_that_knows_nothing_yet_begins_with_anchors_that_cover_the_digits(sampler):
    assert mean_coverage(sampler, active=True) > mean_coverage(sampler, active=False) + 0.05


def test_many_slots_are_filled_before_the_first_report_where_there_are_few_settings():
    told = Told(SPACES["image_size"], 16, sampler="tpe", screen=Screen(DIGITS, active=True))
    assert all(isinstance(told.suggest(), dict) for _ in range(16))


@pytest.mark.parametrize(("sampler", "space"), [("random", "anchors"), ("tpe", "lr_schedules")])
def test_the_start_is_the_samplers_own_where_it_is_random_or_anchors_do_not_vary(sampler, space):
    drawn = []
    for screen in (None, Screen(DIGITS, active=True)):
        told = Told(SPACES[space], 6, sampler=sampler, seed=3, screen=screen)
        told.run_through()
        drawn.append([trial.params for trial in told.trials])
    few = min(map(len, drawn))
    assert drawn[0][:few] == drawn[1][:few]
