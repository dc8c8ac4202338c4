import pytest

from digits_core.config.train_config import TrainConfig
from results.verdicts.comparison import whole_board
from results.views.leaderboard import leaderboard_table
from results.views.winner import advise, recommend, winner_words
from searched import Searched


@pytest.mark.parametrize(
    ("default", "other", "seeds", "begins", "names"),
    [
        (0.9, 0.5, 0, "Keep the default: no other configuration has a better score.", ()),
        (0.3, 0.95, 0, "Use the model of t0001: it is better than the default's model.", ("--replicates 3",)),
        (0.80, 0.81, 0, "Keep the default, or resume the run with --replicates 3 --replicate-top 3", ("t0001",)),
        (0.3, 0.95, 3, "Use t0001: its configuration is better than the default.", ()),
    ],
)
def test_a_search_ends_with_a_recommendation(tmp_path, default, other, seeds, begins, names):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", default, baseline="default")
    made.trial("t0001", other, **{"optim.lr": 1e-3})
    for seed in range(1, seeds + 1):
        made.trial(f"r{seed}0", default, seed=seed, role="replicate")
        made.trial(f"r{seed}1", other, seed=seed, role="replicate", **{"optim.lr": 1e-3})
    folder, record = made.done(), made.events.record
    said = recommend(record, whole_board(record, folder, record.metric))
    assert said.startswith(begins)
    assert all(name in said for name in names)


def test_a_recommendation_counts_the_time_of_replicates_of_the_default_too(tmp_path):
    made = Searched(tmp_path / "demo")
    for number in range(5):
        made.trial(f"t000{number + 1}", 0.80 + 0.001 * number, **{"optim.lr": 1e-3 + number * 1e-4})
    made.trial("t0000", 0.75, baseline="default")
    folder, record = made.done(), made.events.record
    rank = [one.trial_id for one in record.settings()].index("t0000") + 1
    said = recommend(record, whole_board(record, folder, record.metric))
    assert f"--replicate-top {rank}" in said


def test_a_search_without_a_default_or_a_score_says_so(tmp_path):
    made = Searched(tmp_path / "demo")
    assert recommend(made.events.record, []) is None
    made.trial("t0001", 0.8)
    assert recommend(made.events.record, []) == "Use t0001: the run has no other configuration."
    made.trial("t0002", 0.1, **{"optim.lr": 1e-3})
    assert recommend(made.events.record, []) == "Use t0001; the run has no default to compare it with."
    made.done()


def test_the_proposed_resume_and_whether_to_keep_the_default_are_known(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.80, baseline="default")
    made.trial("t0001", 0.81, **{"optim.lr": 1e-3})
    record = made.events.record
    advice = advise(record, whole_board(record, made.done(), record.metric))
    assert advice.keeps_default
    assert f"resume the run with {advice.flags} " in advice.words


def test_a_winner_with_replicates_has_their_mean_in_its_line(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.9)
    for seed in (1, 2):
        made.trial(f"t000{seed}", 0.9, seed=seed, role="replicate")
    made.done()
    record = made.events.record
    row = next(one for one in leaderboard_table(record, made.folder).to_pylist() if one["trial_id"] == "t0000")
    line = winner_words(record, TrainConfig(), row, name="best so far")[1]
    assert line.startswith("best so far: t0000, best at epoch 2 of 2: mAP 0.")
    assert f", mean of 2 replicates {record.standing(record.trials['t0000']):.3f}" in line


def parameters_of_the_winner(folder, **flat):
    made = Searched(folder)
    made.trial("t0000", 0.9, **flat)
    made.done()
    [row] = leaderboard_table(made.events.record, folder).to_pylist()
    return [line.strip() for line in winner_words(made.events.record, TrainConfig(), row) if " = " in line]


def test_the_parameters_of_the_winner_are_rounded_and_those_without_effect_are_marked(tmp_path):
    steps = {"optim.schedule": "step", "optim.step_epochs": 5, "optim.epochs": 3, "optim.warmup_epochs": 0.0}
    lines = parameters_of_the_winner(
        tmp_path / "demo", **steps, **{"optim.lr": 0.0014983131234, "optim.momentum": 0.95123456}
    )
    assert "optim.lr = 0.001498   (default 0.0015)" in lines
    assert "optim.schedule = step   (default onecycle)" in lines
    [idle] = [line for line in lines if line.startswith("without effect: ")]
    assert "optim.momentum = 0.9512 (only for optimizer=sgd)" in idle
    assert "optim.step_epochs = 5 (the first step comes after the last epoch)" in idle
    assert not any(line.startswith(("optim.momentum", "optim.step_epochs")) for line in lines)


def test_a_winner_whose_parameters_all_have_an_effect_has_no_such_line(tmp_path):
    lines = parameters_of_the_winner(tmp_path / "demo", **{"optim.optimizer": "sgd", "optim.momentum": 0.95})
    assert "optim.momentum = 0.95   (default 0.9)" in lines
    assert not any("without effect" in line for line in lines)
