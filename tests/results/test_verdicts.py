import numpy as np
import pytest

from results.record import read_record
from results.store import leaderboard_table, read_record_of
from results.verdicts import Board, confirmations, ties_with_best, whole_board
from searched import Searched

LR = "optim.lr"


def settings(run, *qualities, replicates=0, start=0):
    """Settings of different rates, each with fresh seeds; returns the next free number."""
    number = start
    for index, quality in enumerate(qualities):
        knobs = {LR: 1e-3 * (index + 1)}
        run.trial(f"t{number:04d}", quality, **knobs)
        number += 1
        for seed in range(1, replicates + 1):
            run.trial(f"t{number:04d}", quality, seed=seed, role="replicate", **knobs)
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
    assert same.words.startswith(f"cannot be told apart: {same.difference.estimate:+.3f} [")
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
        f"not compared: 2 epochs against 1; at epoch 1 they had {common[0]:.3f} and {common[1]:.3f}"
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


def test_groups_of_settings_are_judged_by_the_spread_between_settings(tmp_path):
    run = Searched(tmp_path / "groups")
    for number, (quality, schedule) in enumerate([(0.9, "step"), (0.88, "step"), (0.4, "cosine"), (0.42, "cosine")]):
        run.trial(f"t{number:04d}", quality, **{LR: 1e-3 * (number + 1), "optim.schedule": schedule})
    board = board_of(run.done())
    from results.statistics import pooled_variance

    leads = list(board.record.trials.values())
    groups = [leads[:2], leads[2:]]
    spread = pooled_variance([[board.setting_value(one) for one in group] for group in groups])
    verdict = board.compare_groups("step", groups[0], "cosine", groups[1], spread)
    assert verdict.level == "groups"
    assert verdict.told_apart
    assert verdict.words.startswith("step is better: +")
    alone = board.compare_groups("step", leads[:1], "cosine", leads[2:], (0.0, 0))
    assert "no value was trained twice" in alone.words


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
