import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from results.verdicts.comparison import whole_board
from results.verdicts.effort import Way
from results.views.further import more_words, resume_for
from results.views.winner import recommend
from searched import Searched

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def searched(folder, *, trials=2, seeds=0, minutes=10, slots=1):
    """A search whose default is the weakest by a little; each training takes so long, on so many slots."""
    made = Searched(folder)
    made.trial("t0000", 0.80, baseline="default")
    for number in range(1, trials):
        made.trial(f"t{number:04d}", 0.82, **{"optim.lr": number * 1e-3})
    for seed in range(1, seeds + 1):
        made.trial(f"r{seed}0", 0.80, seed=seed, role="replicate")
        made.trial(f"r{seed}1", 0.82, seed=seed, role="replicate", **{"optim.lr": 1e-3})
    made.done()
    record, each = made.events.record, timedelta(minutes=minutes)
    for place, trial in enumerate(record.trials.values()):
        start = MONDAY + (place // slots) * each
        trial.parts = [(start, start + each)]
    return made.folder, record


def test_a_resume_trains_all_that_rank_above_the_lower_of_two(tmp_path):
    _, record = searched(tmp_path / "demo", trials=6, slots=2)
    leads = record.whole_first_trainings()
    resume = resume_for(record, leads[0], leads[4], 4)
    assert (resume.replicates, resume.top, resume.trainings, resume.slots) == (4, 5, 15, 2)
    assert resume.seconds == pytest.approx(15 * 600 / 2)
    assert resume.cost == "15 trainings, about 75 minutes on 2 slots"


def test_replicates_that_are_there_are_not_trained_again(tmp_path):
    _, record = searched(tmp_path / "demo", seeds=2)
    first, second = record.whole_first_trainings()
    assert resume_for(record, first, second, 4).trainings == 2
    assert resume_for(record, first, second, 3).cost == ""


def test_two_slots_take_as_long_as_the_longer_of_two_trainings(tmp_path):
    _, record = searched(tmp_path / "demo")
    default, other = record.trials["t0000"], record.trials["t0001"]
    default.parts = [(MONDAY, MONDAY + timedelta(hours=3))]  # the other one begins while this is in its slot
    assert resume_for(record, default, other, 2).cost == "2 trainings, about 3.0 hours on 2 slots"
    default.parts = [(MONDAY, MONDAY + timedelta(hours=30))]
    assert resume_for(record, default, other, 2).cost == "2 trainings, about 30 hours on 2 slots"
    default.parts = other.parts = [(MONDAY, MONDAY + timedelta(seconds=20))]
    assert resume_for(record, default, other, 2).cost == "2 trainings, less than a minute on 2 slots"


def test_the_recommendation_says_what_more_replicates_or_images_would_show_and_cost(tmp_path):
    folder, record = searched(tmp_path / "demo", seeds=3)
    winner, default = record.winner(), record.trials["t0000"]
    if winner is default:
        pytest.fail("the detector that is right more often did not win; take other seeds")
    [against] = whole_board(record, folder, record.metric)
    assert against.level == "settings"
    assert not against.told_apart
    assert more_words(record, winner, default, against) in recommend(record, [against])
    both = more_words(record, winner, default, replace(against, ways=(Way(6, 0), Way(0, 1234))))
    assert both == (
        "About 6 more replicates of t0001 and the default would show a difference of this size (resume the run with "
        "--replicates 10 --replicate-top 3: 12 trainings, about 2.0 hours on 1 slot); or about 1,200 more validation "
        "images."
    )
    together = more_words(record, winner, default, replace(against, ways=(Way(1, 60),)))
    assert together.startswith(
        "About 1 more replicate of t0001 and the default together with about 60 more validation images would show"
    )
    nothing = more_words(record, winner, default, replace(against, ways=()))
    assert nothing == "No sensible number of replicates or images would show a difference this small."


def test_single_trainings_get_the_images_that_would_tell_the_models_apart(tmp_path):
    folder, record = searched(tmp_path / "demo")
    [against] = whole_board(record, folder, record.metric)
    assert against.level == "models"
    assert not against.told_apart
    [way] = against.ways
    assert way.replicates == 0
    said = recommend(record, [against])
    assert "--replicates 3 --replicate-top 3 (4 trainings, about 40 minutes on 1 slot)" in said
    assert re.search(
        r"About [\d,]+ more validation images would show a difference of this size between the two models\.$", said
    )
