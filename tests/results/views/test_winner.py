import pytest

from results.verdicts.comparison import whole_board
from results.views.winner import recommend
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
    assert recommend(made.events.record, []) == "Use t0001; the run has no default to compare it with."
    made.done()
