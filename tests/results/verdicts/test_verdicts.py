import numpy as np
import pytest

from results import compare
from results.record.folder import read_record_of
from results.record.log import read_record
from results.statistics import pooled_variance
from results.verdicts.comparison import Board, confirmations, ties_with_best, whole_board
from results.views.leaderboard import leaderboard_table
from searched import Searched, annotations

LR = "optim.lr"


def settings(run, *qualities, replicates=0, start=0):
    """Settings of different rates, each with fresh seeds; returns the next free number."""
    number = start
    for index, quality in enumerate(qualities):
        parameters = {LR: 1e-3 * (index + 1)}
        run.trial(f"t{number:04d}", quality, **parameters)
        number += 1
        for seed in range(1, replicates + 1):
            run.trial(f"t{number:04d}", quality, seed=seed, role="replicate", **parameters)
            number += 1
    return number


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """Three settings with three fresh seeds each: two alike, one much weaker."""
    run = Searched(tmp_path_factory.mktemp("runs") / "replicated")
    settings(run, 0.9, 0.9, 0.4, replicates=3)
    return run.done()


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Three settings trained once, a stopped one, one without tables, one without score."""
    run = Searched(tmp_path_factory.mktemp("runs") / "single")
    settings(run, 0.9, 0.88, 0.3)
    run.trial("t0003", 0.5, status="stopped", epochs=1, **{LR: 5e-3})
    run.trial("t0004", 0.6, matches=False, **{LR: 6e-3})
    return run.done()


def board_of(folder, **more):
    return Board(read_record_of(folder), folder, "val_map", **more)


def test_settings_with_fresh_seeds_are_compared_as_settings(replicated):
    board = board_of(replicated)
    trials = board.record.trials
    apart = board.compare(trials["t0000"], trials["t0008"])
    assert apart.level == "settings"
    assert apart.told_apart
    assert apart.words.startswith("t0000 is better: +0.")
    same = board.compare(trials["t0000"], trials["t0004"])
    assert not same.told_apart
    assert same.words.startswith(f"no significant difference: {same.difference.estimate:+.3f} [")
    assert "needs about" in same.words or "over" in same.words


def test_the_seed_that_selection_looked_at_takes_no_part(replicated):
    board = board_of(replicated)
    lead = board.record.trials["t0000"]
    assert [one.seed for one in board.fresh(lead)] == [1, 2, 3]
    values = [board.point(one) for one in board.fresh(lead)]
    other = [board.point(one) for one in board.fresh(board.record.trials["t0008"])]
    verdict = board.compare(lead, board.record.trials["t0008"])
    assert verdict.difference.estimate == pytest.approx(np.mean(values) - np.mean(other))
    lead.epochs[2]["val_map"] = 0.999  # a lucky first seed changes nothing
    assert board.compare(lead, board.record.trials["t0008"]).difference == verdict.difference


def test_seed_variance_is_pooled_over_fresh_seeds_alone(replicated):
    board = board_of(replicated)
    variance, freedom = board.seed_variance
    groups = [
        [board.point(board.record.trials[f"t{number:04d}"]) for number in range(at + 1, at + 4)] for at in (0, 4, 8)
    ]
    assert freedom == 6
    assert variance == pytest.approx(np.mean([np.var(group, ddof=1) for group in groups]))


def test_single_trainings_differ_as_models_never_as_settings(single):
    board = board_of(single)
    trials = board.record.trials
    verdict = board.compare(trials["t0000"], trials["t0002"])
    assert verdict.level == "models"
    assert verdict.told_apart
    assert verdict.words.startswith("t0000's model is better: +")
    assert board.compare(trials["t0002"], trials["t0000"]).words == verdict.words  # whichever is named first


def test_unequal_epochs_are_not_compared_and_the_common_one_is_shown(single):
    board = board_of(single)
    trials = board.record.trials
    verdict = board.compare(trials["t0000"], trials["t0003"])
    assert verdict.told_apart is None
    common = trials["t0000"].epochs[1]["val_map"], trials["t0003"].epochs[1]["val_map"]
    assert verdict.words == (
        f"not compared: 2 epochs against 1; scores at epoch 1: {common[0]:.3f} and {common[1]:.3f}"
    )


def test_a_trial_without_match_table_is_not_compared(single):
    board = board_of(single)
    verdict = board.compare(board.record.trials["t0000"], board.record.trials["t0004"])
    assert (verdict.told_apart, verdict.words) == (None, "t0004 has no match table")


def test_the_whole_board_is_held_to_all_its_pairs(single):
    record = read_record_of(single)
    verdicts = {one.second: one for one in whole_board(record, single, "val_map")}
    leader, follower = record.settings()[:2]
    assert {leader.trial_id, follower.trial_id} == {"t0000", "t0001"}
    alone = board_of(single).compare(leader, follower)
    assert verdicts[follower.trial_id].p >= alone.p - 1e-12
    assert verdicts["t0002"].told_apart
    assert ties_with_best(record, single) == {"t0000": True, "t0001": True, "t0002": False}


def test_the_leaderboard_bears_intervals_ties_and_replicates(replicated, single):
    rows = {row["trial_id"]: row for row in leaderboard_table(read_record_of(replicated), replicated).to_pylist()}
    for row in rows.values():
        for score in ("map", "map_50", "map_75", "digit_accuracy", "number_accuracy"):
            assert row[f"val_{score}_low"] <= row[f"val_{score}"] <= row[f"val_{score}_high"]
            assert row[f"confirm_{score}"] is None
    assert list(rows)[:4] in (["t0000", "t0001", "t0002", "t0003"], ["t0004", "t0005", "t0006", "t0007"])
    assert rows["t0008"]["ties_with_best"] is False
    assert rows["t0001"]["ties_with_best"] is None
    assert [row["role"] for row in rows.values()] == ["search", *["replicate"] * 3] * 3
    lone = {row["trial_id"]: row for row in leaderboard_table(read_record_of(single), single).to_pylist()}
    assert lone["t0003"]["ties_with_best"] is None
    assert lone["t0004"]["val_map_low"] is None


def test_replicated_settings_lead_by_the_mean_of_their_fresh_seeds(tmp_path):
    run = Searched(tmp_path / "lucky")
    run.trial("t0000", 0.95, **{LR: 1e-3})
    run.trial("t0001", 0.7, seed=1, role="replicate", **{LR: 1e-3})
    run.trial("t0002", 0.9, **{LR: 2e-3})
    run.trial("t0003", 0.9, seed=1, role="replicate", **{LR: 2e-3})
    run.trial("t0004", 0.99, **{LR: 3e-3})
    record = read_record(run.done(), "lucky")
    assert [lead.trial_id for lead in record.settings()] == ["t0002", "t0000", "t0004"]
    assert record.winner().trial_id == "t0002"
    assert [trial.trial_id for trial in record.ranked()] == ["t0002", "t0003", "t0000", "t0001", "t0004"]


def confirmed(folder, better, worse):
    """The search saw the first setting far ahead of the default; fresh seeds see what they are given."""
    run = Searched(folder)
    run.trial("t0000", 0.5, baseline="default")
    run.trial("t0001", 0.95, **{LR: 5e-3})
    number = 2
    for seed in (100, 101, 102):
        run.trial(f"t{number:04d}", 0.8, seed=seed, role="confirm", confirm=worse)
        run.trial(f"t{number + 1:04d}", 0.8, seed=seed, role="confirm", confirm=better, **{LR: 5e-3})
        number += 2
    return run.done()


def test_a_confirmation_says_whether_the_winner_still_leads_and_how_much_it_was_flattered(tmp_path):
    real = confirmed(tmp_path / "real", 0.95, 0.4)
    [one] = confirmations(read_record_of(real), real)
    assert one.trial.trial_id == "t0001"
    assert one.seeds == 3
    assert one.verdict.told_apart
    assert one.verdict.difference.estimate > 0.2
    luck = confirmed(tmp_path / "luck", 0.8, 0.8)
    [one] = confirmations(read_record_of(luck), luck)
    assert not one.verdict.told_apart
    assert one.claimed - one.verdict.difference.estimate > 0.2
    row = leaderboard_table(read_record_of(real), real).to_pylist()[-1]
    assert row["role"] == "confirm"
    assert row["confirm_map_low"] < row["confirm_map"] < row["confirm_map_high"]


def groups_of(run, *qualities):
    """Settings of two schedules, with these qualities; the groups, and the spread between the settings of each."""
    groups = []
    for schedule, some in zip(("step", "cosine"), qualities, strict=True):
        names = [f"{schedule}{number}" for number in range(len(some))]
        for number, (name, quality) in enumerate(zip(names, some, strict=True)):
            run.trial(name, quality, **{LR: 1e-3 * (number + 1), "optim.schedule": schedule})
        groups.append(names)
    board = board_of(run.done())
    groups = [[board.record.trials[name] for name in names] for names in groups]
    return board, groups, pooled_variance([[board.setting_value(one) for one in group] for group in groups])


def test_groups_of_settings_are_judged_by_the_spread_between_settings(tmp_path):
    board, groups, spread = groups_of(Searched(tmp_path / "groups"), [0.9, 0.88, 0.87, 0.91], [0.4, 0.42, 0.44, 0.39])
    verdict = board.compare_groups("step", groups[0], "cosine", groups[1], spread)
    assert verdict.level == "groups"
    assert verdict.told_apart
    assert verdict.words.startswith("step is better: +")


@pytest.mark.parametrize("counts", [(2, 2), (3, 5), (5, 3), (1, 5)])
def test_groups_of_two_or_three_settings_get_no_verdict(tmp_path, counts):
    board, groups, spread = groups_of(Searched(tmp_path / "few"), [0.9] * counts[0], [0.4] * counts[1])
    verdict = board.compare_groups("step", groups[0], "cosine", groups[1], spread)
    assert verdict.told_apart is None
    assert verdict.words.startswith(
        f"too few trials: {counts[0]} and {counts[1]}, at least 4 of each are needed (means 0."
    )


def peaking_at_once(folder, *, settings, schedules=("step", "cosine"), last=None):
    """Settings of two schedules that are best at epoch 1, where no schedule has acted yet: the models are the same."""
    run = Searched(folder)
    for schedule in schedules:
        for number in range(settings):
            digests = {1: f"first{number}", 2: last or f"last {schedule}{number}"}
            parameters = {LR: 1e-3 * (number + 1), "optim.schedule": schedule}
            first = f"{schedules[0]}{number}"
            run.trial(f"{schedule}{number}", 0.7, peak=1, like=first, weights=digests, **parameters)
    return run.done()


@pytest.mark.parametrize("settings", [1, 2, 5])
def test_schedules_that_are_best_before_they_differ_are_equal_and_it_is_said_why(tmp_path, settings, capsys):
    folder = peaking_at_once(tmp_path / "equal", settings=settings)
    assert compare.main([str(folder), "--by", "optim.schedule"]) == 0
    out = capsys.readouterr().out
    how = "both are best at epoch 1, with identical weights"
    if settings > 1:
        how = "each configuration has a counterpart with identical weights at its best epoch"
    assert f"equal: {how}; optim.schedule took effect only later" in out
    assert "no number" not in out


def test_the_same_model_ties_and_is_no_verdict_among_the_others(tmp_path):
    folder = peaking_at_once(tmp_path / "ties", settings=2)
    record = read_record_of(folder)
    equal = [one for one in whole_board(record, folder, "val_map") if one.words.startswith("equal: ")]
    assert [(one.told_apart, one.difference, one.p) for one in equal] == [(False, None, 1.0)]
    assert ties_with_best(record, folder)[equal[0].second]


def test_a_parameter_that_did_nothing_at_all_is_said_to_have_done_nothing(tmp_path):
    folder = peaking_at_once(tmp_path / "twins", settings=1, last="same")
    board = board_of(folder)
    words = board.compare(*board.record.trials.values()).words
    assert words == "equal: both are best at epoch 1, with identical weights; optim.schedule had no effect here"


def test_settings_that_trained_to_one_model_count_once_in_a_group(tmp_path, capsys):
    run = Searched(tmp_path / "twice")
    for number in range(8):
        schedule, momentum = ("step", "cosine")[number // 4], 0.9 - 0.1 * (number % 4)
        name, first = f"t{number}", f"t{number // 4 * 4}"
        weights = {1: f"a{first}", 2: f"b{first}"}
        parameters = {"optim.schedule": schedule, "optim.momentum": momentum}
        run.trial(name, 0.9 - 0.2 * (number // 4), like=first, weights=weights, **parameters)
    assert compare.main([str(run.done()), "--by", "optim.schedule"]) == 0
    out = capsys.readouterr().out
    assert "optim.schedule=step's model is better" in out  # one against one: models


def test_on_one_valid_image_nothing_is_better(tmp_path):
    run = Searched(tmp_path / "one", table=annotations(1))
    settings(run, 1.0, 0.0)
    record = read_record_of(run.done())
    for metric in ("val_map", "val_map_50", "val_digit_accuracy", "val_number_accuracy"):
        verdict = Board(record, run.folder, metric).compare(record.trials["t0000"], record.trials["t0001"])
        assert verdict.difference.estimate > 0
        assert not verdict.told_apart
        assert not whole_board(record, run.folder, metric)[0].told_apart
    seeds = Searched(tmp_path / "seeds", table=annotations(1))
    settings(seeds, 1.0, 0.0, replicates=2)
    board = board_of(seeds.done())
    verdict = board.compare(board.record.trials["t0000"], board.record.trials["t0003"])
    assert (verdict.level, verdict.told_apart) == ("settings", False)


def test_models_without_a_fault_on_any_image_have_a_difference_that_images_leave_open(tmp_path):
    run = Searched(tmp_path / "perfect")
    settings(run, 1.0, 1.0)
    board = Board(read_record_of(run.done()), run.folder, "val_number_accuracy")
    verdict = board.compare(*board.record.trials.values())
    assert verdict.difference.low < -0.05 < 0.05 < verdict.difference.high
    assert verdict.words.startswith("no significant difference: +0.000 [-0.0")
    assert "the scores are equal; a difference under 0.0" in verdict.words


def test_a_damaged_match_table_costs_its_own_row_alone(tmp_path):
    run = Searched(tmp_path / "torn")
    settings(run, 0.9, 0.4)
    (run.done() / "matches" / "t0001.parquet").write_bytes(b"PAR1")
    rows = {row["trial_id"]: row for row in leaderboard_table(read_record_of(run.folder), run.folder).to_pylist()}
    assert rows["t0000"]["val_map_low"] is not None
    assert rows["t0001"]["val_map_low"] is None
    assert rows["t0001"]["val_map"] > 0


def test_the_leader_may_lack_a_table(tmp_path):
    run = Searched(tmp_path / "lead")
    run.trial("t0000", 0.95, matches=False, **{LR: 9e-3})
    settings(run, 0.7, 0.6, start=1)
    record = read_record_of(run.done())
    assert {one.words for one in whole_board(record, run.folder, "val_map")} == {"t0000 has no match table"}
    assert ties_with_best(record, run.folder) == {}


def test_confirm_seeds_rank_nobody(tmp_path):
    run = Searched(tmp_path / "ranks")
    run.trial("t0000", 0.4, baseline="default")
    run.trial("t0001", 0.9, **{LR: 5e-3})
    run.trial("t0002", 0.4, seed=7, role="confirm", confirm=0.4)
    assert read_record_of(run.done()).winner().trial_id == "t0001"
