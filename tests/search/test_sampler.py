"""The searcher against a formula in place of a training: no Ray is started."""

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from digits_core.anchors import setting_digest
from digits_core.config import TrainConfig
from oracle import table_of
from search.further import Waiting
from search.sampler import MAX_REPEATS, MAX_SCREENED, Proposal, SettingSearcher, build_sampler
from search.screen import Screen
from spaces.catalogue import SPACES
from spaces.registry import Space, quiet_study


def search(space, trials, *, sampler="random", seed=0, **more):
    base = TrainConfig.from_flat({"optim.epochs": 4})
    study = quiet_study(build_sampler(sampler, seed, trials))
    proposals = []
    searcher = SettingSearcher(
        space,
        base,
        study,
        metric="val_map",
        num_trials=trials,
        sampler=sampler,
        payload={"data": "here"},
        on_propose=proposals.append,
        **more,
    )
    return searcher, study, proposals


def result(epoch, value, early=False):
    return {"epoch": epoch, "val_map": value, "early_stopped": early}


def run_through(searcher, value=lambda config: 0.5):
    """Ask for settings until there is none, each trained to its end at once."""
    handed = []
    while True:
        name = f"ray{len(handed)}"
        params = searcher.suggest(name)
        if params == Searcher.FINISHED:
            return handed
        handed.append(params)
        searcher.on_trial_complete(name, result(4, value(params["config"])))


def test_baselines_come_first_then_drawn_settings_up_to_the_number_of_trials():
    searcher, _, proposals = search(SPACES["anchors"], 7)
    handed = run_through(searcher)
    assert [proposal.baseline for proposal in proposals] == ["default", "report B small", "report B normal"] + [
        None
    ] * 4
    assert [params["trial_id"] for params in handed] == [f"t{number:04d}" for number in range(7)]
    assert handed[0]["data"] == "here"
    assert handed[1]["config"]["model.anchor_sizes"] == "4,8,12,24,48"
    assert all(params["config"]["model.fresh_rpn"] for params in handed)


def test_no_setting_is_handed_out_twice_even_when_only_rounding_makes_it_the_same():
    few = Space(
        name="few",
        summary="",
        suggest=lambda trial: {"model.anchor_sizes": f"{trial.suggest_float('base', 8.0, 9.9):.3f},20,30,40,60"},
    )
    searcher, study, _ = search(few, 30)
    handed = run_through(searcher)
    digests = [setting_digest(TrainConfig.from_flat(params["config"])) for params in handed]
    assert len(set(digests)) == len(digests) < 30
    assert len(study.trials) >= MAX_REPEATS  # it tried, and then called the space used up


def test_grid_walks_every_setting_once():
    space = Space(
        name="g",
        summary="",
        suggest=lambda trial: {
            "optim.batch_size": trial.suggest_categorical("b", [2, 4, 8]),
            "optim.schedule": trial.suggest_categorical("s", ["step", "cosine"]),
        },
    )
    searcher, study, _ = search(space, 50, sampler="grid")
    handed = run_through(searcher)
    found = {(params["config"]["optim.batch_size"], params["config"]["optim.schedule"]) for params in handed[1:]}
    assert len(handed) == 7  # the default, one-cycle at batch 8, is no point of the grid
    assert len(found) == 6
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_optuna_is_told_complete_pruned_and_failed_as_it_was():
    searcher, study, _ = search(SPACES["lr_schedules"], 12)
    names = [f"ray{number}" for number in range(8)]
    for name in names:
        searcher.suggest(name)
    drawn = names[4:]  # the first four are baselines
    searcher.on_trial_result(drawn[0], result(1, 0.1))
    searcher.on_trial_result(drawn[0], result(2, 0.3))
    searcher.on_trial_complete(drawn[0], result(3, 0.2))  # stopped at its third epoch
    searcher.on_trial_result(drawn[1], result(3, 0.6))
    searcher.on_trial_complete(drawn[1], result(4, 0.4))  # its best was before the end
    searcher.on_trial_complete(drawn[2], None, error=True)
    searcher.on_trial_complete(drawn[3], result(2, 0.35, early=True))
    searcher.suggest("more")  # a fault is judged by the time that the next setting is asked for
    pruned, complete, failed, early, *_ = study.trials
    assert pruned.state == TrialState.PRUNED
    assert pruned.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.6)
    assert failed.state == TrialState.FAIL
    assert (early.state, early.value) == (TrialState.COMPLETE, 0.35)


def test_tpe_finds_a_good_rate_sooner_than_chance():
    def value(config):
        import math

        return 1 - abs(math.log10(config["optim.lr"]) - math.log10(2e-3)) / 3

    space = Space(
        name="lr", summary="", suggest=lambda trial: {"optim.lr": trial.suggest_float("lr", 1e-6, 1.0, log=True)}
    )

    def mean_of_last(sampler):
        scores = []
        for seed in range(3):
            searcher, study, _ = search(space, 40, sampler=sampler, seed=seed)
            run_through(searcher, value)
            scores += [trial.value for trial in study.trials[-15:]]
        return sum(scores) / len(scores)

    assert mean_of_last("tpe") > mean_of_last("random") + 0.1


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_samplers_walk_conditional_spaces_and_repeat_with_their_seed(name):
    def settings(seed):
        searcher, _, _ = search(SPACES["lr_schedules"], 12, sampler=name, seed=seed)
        return [str(params["config"]) for params in run_through(searcher, lambda config: config["optim.lr"])]

    assert settings(1) == settings(1)
    assert settings(1) != settings(2)


def test_settings_of_an_earlier_driver_are_known():
    searcher, _, proposals = search(SPACES["anchors"], 5)
    run_through(searcher)
    tried = [proposal.digest for proposal in proposals]
    again, _, later = search(SPACES["anchors"], 7, tried=tried, num_tried=5, first_number=5)
    handed = run_through(again)
    assert [params["trial_id"] for params in handed] == ["t0005", "t0006"]
    assert all(proposal.baseline is None for proposal in later)


def test_baselines_that_an_interruption_left_out_come_first_on_resume():
    searcher, _, proposals = search(SPACES["anchors"], 5)
    searcher.suggest("ray0")
    tried = [proposal.digest for proposal in proposals]
    again, _, later = search(SPACES["anchors"], 5, tried=tried, num_tried=1, first_number=1)
    run_through(again)
    assert [proposal.baseline for proposal in later] == ["report B small", "report B normal", None, None]


def test_settings_that_the_space_prunes_or_that_cannot_be_are_passed_over():
    def suggest(trial):
        size = trial.suggest_int("size", 1, 30)
        if size % 2:
            raise optuna.TrialPruned
        return {"optim.step_epochs": size if size < 20 else -1}

    searcher, study, _ = search(Space(name="picky", summary="", suggest=suggest), 6)
    sizes = [params["config"]["optim.step_epochs"] for params in run_through(searcher)[1:]]
    assert len(sizes) == 5
    assert all(size % 2 == 0 and size < 20 for size in sizes)
    assert {trial.state for trial in study.trials} >= {TrialState.PRUNED, TrialState.COMPLETE}


@pytest.mark.parametrize("why", ["interrupted", "time budget"])
def test_what_the_end_of_a_run_cuts_off_stays_open_in_optuna(why):
    searcher, study, _ = search(SPACES["lr_schedules"], 12, ending=lambda: why)
    for number in range(5):
        searcher.suggest(f"ray{number}")
    searcher.on_trial_result("ray4", result(1, 0.2))
    searcher.close()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


def test_the_thresholds_plan_trains_the_default_alone():
    searcher, _, proposals = search(Space(name="thresholds", summary="", suggest=lambda trial: {}), 1)
    assert len(run_through(searcher)) == 1
    assert proposals[0].baseline == "default"


def test_constant_liar_is_on_for_slots_side_by_side():
    sampler = build_sampler("tpe", 0, 12)
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert sampler._constant_liar


def test_what_follows_the_search_is_asked_for_when_the_settings_are_used_up():
    config = TrainConfig.from_flat({"runtime.seed": 9})
    due = iter([Waiting, (config, "replicate"), None, None])
    searcher, _study, proposals = search(SPACES["anchors"], 2, further=lambda: next(due))
    assert [searcher.suggest(name)["role"] for name in ("a", "b")] == ["search", "search"]
    assert searcher.suggest("c") is None  # to be asked again later
    params = searcher.suggest("c")
    assert (params["role"], params["trial_id"], params["config"]["runtime.seed"]) == ("replicate", "t0002", 9)
    assert proposals[-1].role == "replicate"
    searcher.on_trial_complete("c", result(4, 0.99))  # Optuna hears nothing of it
    assert searcher.suggest("d") is None  # what runs may yet have to be started again
    for name in ("a", "b"):
        searcher.on_trial_complete(name, result(4, 0.5))
    assert searcher.suggest("d") == Searcher.FINISHED


@pytest.mark.parametrize("last", [{"error": True}, {"result": {"diverged": "step 3: nan", "val_map": None}}])
def test_a_training_that_a_fault_broke_off_is_the_next_to_start(last):
    broken = []

    def again(proposal):
        broken.append(proposal.trial_id)
        return Proposal(proposal.trial_id, proposal.config, optuna_trial=proposal.optuna_trial, starts=1)

    searcher, study, _ = search(SPACES["anchors"], 12, again=again)
    first = searcher.suggest("a")
    searcher.on_trial_complete("a", **last)
    second = searcher.suggest("b")
    assert (second["trial_id"], second["starts"]) == (first["trial_id"], 1)
    assert broken == [first["trial_id"]]
    assert not [trial for trial in study.trials if trial.state == TrialState.FAIL]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_optuna_hears_what_became_of_a_training_that_broke_off_after_its_last_word(state):
    searcher, study, _ = search(SPACES["lr_schedules"], 12, again=lambda proposal: state)
    names = [f"ray{number}" for number in range(5)]
    for name in names:
        searcher.suggest(name)
    searcher.on_trial_result(names[4], result(1, 0.4))
    searcher.on_trial_complete(names[4], None, error=True)
    searcher.suggest("next")
    assert study.trials[0].state == state


def test_a_search_with_nothing_left_to_do_ends_though_there_is_no_room():
    held = [False]
    searcher, _, _ = search(SPACES["anchors"], 1, held=lambda: held[0])
    searcher.suggest("a")
    held[0] = True
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a", result(4, 0.5))
    assert searcher.suggest("b") == Searcher.FINISHED


def test_nothing_starts_while_it_is_held():
    held = [True]
    searcher, _, _ = search(SPACES["anchors"], 12, held=lambda: held[0])
    assert searcher.suggest("a") is None
    held[0] = False
    assert searcher.suggest("a")["trial_id"] == "t0000"


def test_settings_that_the_screen_keeps_out_cost_no_trial_and_optuna_takes_them_for_the_worst():
    screened = []

    class Half:
        """Keeps out every other drawn setting."""

        def look(self, config, *, baseline):
            self.turn = not getattr(self, "turn", False)
            return "coverage", "too small" if self.turn and not baseline else None

    searcher, study, proposals = search(
        SPACES["anchors"], 6, screen=Half(), on_screen=lambda *given: screened.append(given)
    )
    handed = run_through(searcher)
    assert len(handed) == 6
    assert len(screened) >= 2
    assert all(reason == "too small" for _, reason in screened)
    assert all(proposal.coverage == "coverage" for proposal in proposals)
    assert len({proposal.trial_id for proposal in proposals}) == len(proposals) == 6 + len(screened)
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) == len(screened)
    assert states.count(TrialState.COMPLETE) == 3


def test_a_space_that_is_used_up_is_not_drawn_from_again_while_something_still_runs():
    few = Space(
        name="few", summary="", suggest=lambda trial: {"optim.batch_size": trial.suggest_categorical("b", [8, 16])}
    )
    searcher, study, _ = search(few, 30, further=lambda: Waiting)
    names = iter(f"ray{number}" for number in range(99))
    while (name := next(names)) and searcher.suggest(name) is not None:
        searcher.on_trial_complete(name, result(4, 0.5))
    drawn = len(study.trials)
    assert drawn >= MAX_REPEATS
    assert [searcher.suggest(next(names)) for _ in range(5)] == [None] * 5
    assert len(study.trials) == drawn


def test_a_screen_that_keeps_everything_out_ends_the_drawing():
    class Nothing:
        def look(self, config, *, baseline):
            return None, None if baseline else "too small"

    searcher, _, proposals = search(SPACES["anchors"], 9, screen=Nothing())
    assert [params["role"] for params in run_through(searcher)] == ["search"] * 3  # the baselines
    assert len(proposals) == 3 + MAX_SCREENED


DIGITS = table_of([[((10.0, 10.0, 20.0, 30.0), 1, False), ((30.0, 8.0, 44.0, 38.0), 2, False)]], side=64)


def mean_coverage(sampler, *, active, space="anchors"):
    """Over the settings that are drawn before the sampler has learned, of four searches."""
    found = []
    for seed in range(4):
        screen = Screen(DIGITS, active=active)
        searcher, _, proposals = search(SPACES[space], 6, sampler=sampler, seed=seed, screen=screen)
        run_through(searcher)
        found += [proposal.coverage.mean_iou for proposal in proposals if proposal.baseline is None]
    return sum(found) / len(found)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_that_knows_nothing_yet_begins_with_anchors_that_cover_the_digits(sampler):
    assert mean_coverage(sampler, active=True) > mean_coverage(sampler, active=False) + 0.05


def test_many_slots_are_filled_before_the_first_report_where_there_are_few_settings():
    screen = Screen(DIGITS, active=True)
    searcher, _, _ = search(SPACES["image_size"], 16, sampler="tpe", screen=screen)
    handed = [searcher.suggest(f"ray{number}") for number in range(16)]
    assert all(isinstance(params, dict) for params in handed)


def test_the_random_sampler_stays_random():
    screen = Screen(DIGITS, active=True)
    drawn = []
    for given in (None, screen):
        searcher, study, _ = search(SPACES["anchors"], 6, sampler="random", seed=3, screen=given)
        run_through(searcher)
        drawn.append([trial.params for trial in study.trials])
    few = min(map(len, drawn))
    assert drawn[0][:few] == drawn[1][:few]


def test_where_anchors_do_not_vary_the_start_is_the_samplers_own():
    drawn = []
    for active in (True, False):
        searcher, study, _ = search(SPACES["lr_schedules"], 6, sampler="tpe", screen=Screen(DIGITS, active=active))
        run_through(searcher)
        drawn.append([trial.params for trial in study.trials])
    assert drawn[0] == drawn[1]
    assert drawn[0]
