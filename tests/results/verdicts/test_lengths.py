"""Trainings of unequal length: what is compared, what is ranked first, what is said."""

import statistics

import pytest

from digits_core.config.train_config import TrainConfig
from digits_core.model.anchors import setting_digest
from results import compare, leaderboard
from results.record.folder import read_record_of
from results.verdicts.comparison import Board, confirmations, ties_with_best, whole_board
from results.verdicts.words import length_words
from results.views.leaderboard import leaderboard_table
from searched import Searched

LR, EPOCHS, IMAGES = "optim.lr", "optim.epochs", "data.images_per_epoch"


def longer(run, name, epochs):
    """What --resume with more epochs writes of a trial whose checkpoint was kept."""
    config = TrainConfig.from_flat({**run.events.record.trials[name].config, EPOCHS: epochs})
    run.events.write("longer", trial_id=name, config=config.to_flat(), config_hash=setting_digest(config))


def lengthened(folder, *, replicates=0):
    """A search of 3 epochs made longer to 6: the best of before stayed as it was, two others trained for 6."""
    run = Searched(folder, epochs=3)
    number = 0
    for quality, lr in ((0.95, 1e-3), (0.6, 2e-3)):
        run.trial(f"t{number:04d}", quality, epochs=3, **{LR: lr, EPOCHS: 3})
        number += 1
        for seed in range(1, replicates + 1):
            run.trial(f"t{number:04d}", quality, epochs=3, seed=seed, role="replicate", **{LR: lr, EPOCHS: 3})
            number += 1
    run.start(6)
    for quality, lr in ((0.7, 3e-3), (0.68, 4e-3)):
        run.trial(f"t{number:04d}", quality, epochs=6, **{LR: lr, EPOCHS: 6})
        number += 1
        for seed in range(1, replicates + 1):
            run.trial(f"t{number:04d}", quality, epochs=6, seed=seed, role="replicate", **{LR: lr, EPOCHS: 6})
            number += 1
    return run.done()


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    return lengthened(tmp_path_factory.mktemp("runs") / "unequal")


def test_finished_trials_of_unequal_epochs_are_not_compared(unequal):
    record = read_record_of(unequal)
    board = Board(record, unequal, "val_map")
    verdict = board.compare(record.trials["t0000"], record.trials["t0002"])
    assert (verdict.told_apart, verdict.words) == (None, "not compared: optim.epochs 3 against 6")
    assert board.compare(record.trials["t0000"], record.trials["t0001"]).told_apart
    assert board.compare(record.trials["t0002"], record.trials["t0003"]).told_apart is not None


def test_settings_with_fresh_seeds_of_unequal_epochs_are_not_compared(tmp_path):
    folder = lengthened(tmp_path / "seeds", replicates=2)
    record = read_record_of(folder)
    board = Board(record, folder, "val_map")
    verdict = board.compare(record.trials["t0000"], record.trials["t0006"])
    assert (verdict.told_apart, verdict.words) == (None, "not compared: optim.epochs 3 against 6")
    assert board.compare(record.trials["t0000"], record.trials["t0003"]).level == "settings"


def test_the_variance_over_seeds_is_that_of_trainings_of_the_same_length(tmp_path):
    folder = lengthened(tmp_path / "seeds", replicates=2)
    record = read_record_of(folder)
    board = Board(record, folder, "val_map")
    found = set()
    for lead, other, epochs in (("t0000", "t0003", 3), ("t0006", "t0009", 6)):
        seeds = [
            [record.value(one) for one in record.fresh_seeds()[record.trials[name].config_hash]]
            for name in (lead, other)
        ]
        assert [record.trials[name].config[EPOCHS] for name in (lead, other)] == [epochs] * 2
        assert [len(group) for group in seeds] == [2, 2]  # the first seed of each is what it was chosen by
        variance, freedom = board.seed_variance_of(record.trials[lead])
        assert variance == pytest.approx(statistics.mean(statistics.variance(group) for group in seeds))
        assert freedom == 2
        found.add(variance)
    assert len(found) == 2


def test_a_shorter_training_comes_after_the_longer_ones_and_never_wins_over_them(unequal):
    record = read_record_of(unequal)
    assert record.value(record.trials["t0000"]) > record.value(record.trials["t0002"])
    names = [lead.trial_id for lead in record.settings()]
    assert set(names[:2]) == {"t0002", "t0003"}
    assert names[2:] == ["t0000", "t0001"]
    assert record.winner().trial_id == names[0]


def test_replicated_shorter_settings_come_after_longer_ones_too(tmp_path):
    run = Searched(tmp_path / "r", epochs=3)
    run.trial("t0000", 0.9, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.trial("t0001", 0.9, epochs=3, seed=1, role="replicate", **{LR: 1e-3, EPOCHS: 3})
    run.start(6)
    run.trial("t0002", 0.5, epochs=6, **{LR: 2e-3, EPOCHS: 6})
    assert read_record_of(run.done()).winner().trial_id == "t0002"


def test_a_longer_training_leads_only_once_one_has_ended(tmp_path):
    run = Searched(tmp_path / "begun", epochs=3)
    run.trial("t0000", 0.9, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.start(6)
    run.trial("t0001", 0.5, epochs=1, status="interrupted", **{LR: 2e-3, EPOCHS: 6})
    record = read_record_of(run.done())
    assert record.winner().trial_id == "t0000"
    assert length_words(record) == [
        "t0000: planned for 3 epochs, the run now trains for 6; not compared with longer trainings"
    ]


def test_a_tie_never_joins_unequal_trainings(tmp_path):
    run = Searched(tmp_path / "ties", epochs=3)
    run.trial("t0000", 0.7, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.start(6)
    run.trial("t0001", 0.7, epochs=6, **{LR: 2e-3, EPOCHS: 6})
    run.trial("t0002", 0.69, epochs=6, **{LR: 3e-3, EPOCHS: 6})
    record = read_record_of(run.done())
    ties = ties_with_best(record, run.folder)
    assert ties == {"t0001": True, "t0002": True}
    rows = {row["trial_id"]: row for row in leaderboard_table(record, run.folder).to_pylist()}
    assert rows["t0000"]["ties_with_best"] is None
    assert list(rows)[-1] == "t0000"


def test_a_trial_made_longer_counts_as_long(tmp_path):
    run = Searched(tmp_path / "longer", epochs=3)
    run.trial("t0000", 0.9, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.start(6)
    longer(run, "t0000", 6)
    run.trial("t0001", 0.7, epochs=6, **{LR: 2e-3, EPOCHS: 6})
    record = read_record_of(run.done())
    assert record.short() == set()
    assert record.winner().trial_id == "t0000"


def test_a_run_whose_record_names_no_plan_takes_its_longest_training_for_it(tmp_path):
    run = Searched(tmp_path / "old")
    run.trial("t0000", 0.9, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.trial("t0001", 0.7, epochs=6, **{LR: 2e-3, EPOCHS: 6})
    record = read_record_of(run.done())
    assert record.short() == {"t0000"}
    assert record.winner().trial_id == "t0001"


def varied(folder, parameter, values, *, epochs=4):
    """A space that gives its trials these values of a parameter of length."""
    run = Searched(folder, epochs=epochs)
    for number, value in enumerate(values):
        run.trial(f"t{number:04d}", 0.9 - 0.2 * number, **{LR: 1e-3 * (number + 1), parameter: value})
    return run.done()


@pytest.mark.parametrize(("parameter", "values"), [(EPOCHS, (3, 6, 4)), (IMAGES, (50, 100, 0))])
def test_a_length_that_the_space_itself_varies_is_compared(tmp_path, parameter, values):
    folder = varied(tmp_path / "varied", parameter, values)
    record = read_record_of(folder)
    verdicts = whole_board(record, folder, "val_map")
    assert [verdict.told_apart is None for verdict in verdicts] == [False, False]
    assert record.short() == set()
    assert record.winner().trial_id == "t0000"
    assert length_words(record) == []


def test_a_length_that_the_space_fixes_is_no_shorter_than_the_plan(tmp_path):
    folder = varied(tmp_path / "fixed", EPOCHS, (3, 3, 3), epochs=12)
    assert read_record_of(folder).short() == set()


def test_trials_of_two_spaces_with_unequal_images_an_epoch_are_not_compared(tmp_path):
    run = Searched(tmp_path / "two", epochs=4)
    run.trial("t0000", 0.9, **{LR: 1e-3, IMAGES: 100})
    run.start(4)
    run.trial("t0001", 0.5, space="other", **{LR: 2e-3, IMAGES: 200})
    record = read_record_of(run.done())
    verdict = Board(record, run.folder, "val_map").compare(record.trials["t0000"], record.trials["t0001"])
    assert verdict.words == "not compared: data.images_per_epoch 100 against 200"


def test_the_board_says_which_settings_are_ranked_last_for_their_length(unequal, capsys):
    words = "t0000, t0001: planned for 3 epochs, the run now trains for 6"
    assert [line.startswith(words) for line in length_words(read_record_of(unequal))] == [True]
    for command in (leaderboard, compare):
        assert command.main([str(unequal)]) == 0
        assert words in capsys.readouterr().out


def test_a_confirmation_of_unequal_trainings_claims_nothing(tmp_path):
    run = Searched(tmp_path / "confirmed", epochs=3)
    run.trial("t0000", 0.5, epochs=3, baseline="default", **{EPOCHS: 3})
    run.start(6)
    run.trial("t0001", 0.9, epochs=6, **{LR: 5e-3, EPOCHS: 6})
    for seed in (100, 101):
        run.trial(f"t{seed}", 0.5, epochs=3, seed=seed, role="confirm", confirm=0.5, **{EPOCHS: 3})
        run.trial(f"u{seed}", 0.9, epochs=6, seed=seed, role="confirm", confirm=0.9, **{LR: 5e-3, EPOCHS: 6})
    record = read_record_of(run.done())
    [one] = confirmations(record, run.folder)
    assert (one.claimed, one.verdict.told_apart) == (None, None)
    [_, line] = compare.confirmation_words(record, run.folder)
    assert line.strip() == "t0001 against the default: not compared: optim.epochs 6 against 3"


def test_groups_take_only_trainings_as_long_as_the_plan(tmp_path, capsys):
    run = Searched(tmp_path / "groups", epochs=3)
    for number in range(4):
        run.trial(f"s{number}", 0.95, epochs=3, **{LR: 1e-3 * (number + 1), EPOCHS: 3, "optim.schedule": "step"})
    run.start(6)
    for number in range(8):
        schedule = "step" if number % 2 else "cosine"
        run.trial(f"t{number}", 0.7, epochs=6, **{LR: 2e-2 + 1e-3 * number, EPOCHS: 6, "optim.schedule": schedule})
    run.done()
    assert compare.main([str(run.folder), "--by", "optim.schedule"]) == 0
    out = capsys.readouterr().out
    assert "is better" not in out
    assert "no significant difference" in out
    assert compare.main([str(run.folder), "--by", EPOCHS]) == 0
    assert "optim.epochs=3 against optim.epochs=6  not compared: optim.epochs 3 against 6" in capsys.readouterr().out


def test_groups_of_shorter_trainings_only_are_no_groups(tmp_path, capsys):
    run = Searched(tmp_path / "one", epochs=3)
    run.trial("t0000", 0.9, epochs=3, **{EPOCHS: 3, "optim.schedule": "step"})
    run.start(6)
    for number in range(2):
        run.trial(f"t000{number + 1}", 0.7, epochs=6, **{LR: 1e-3 * (number + 1), EPOCHS: 6})
    assert compare.main([str(run.done()), "--by", "optim.schedule"]) == 2
    said = "--by optim.schedule: all configurations trained for 6 epochs have the same value; nothing to compare"
    assert said in capsys.readouterr().err


def test_the_seeds_of_a_setting_made_longer_stay_on_the_board(tmp_path):
    run = Searched(tmp_path / "orphans", epochs=3)
    run.trial("t0000", 0.9, epochs=3, **{LR: 1e-3, EPOCHS: 3})
    run.trial("t0001", 0.9, epochs=3, seed=1, role="replicate", **{LR: 1e-3, EPOCHS: 3})
    run.trial("t0002", 0.7, epochs=3, **{LR: 2e-3, EPOCHS: 3})
    run.start(6)
    longer(run, "t0000", 6)
    record = read_record_of(run.done())
    assert [trial.trial_id for trial in record.ranked()] == ["t0000", "t0002", "t0001"]
