"""--learn-from: what a search takes from earlier run folders, and what it says about it."""

import json

import pytest

from conftest import introduce, report
from digits_core.errors import RunError, UsageError
from results.record.log import EventWriter
from search.cli.learn import learn_from
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import read_beliefs, read_until
from search.defaults import GAIN
from search.policy.prior import Learned


@pytest.fixture
def earlier(tmp_path):
    """A run that varied two parameters of the optimiser and the image size, and maximised another metric."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    events = EventWriter(folder, "earlier")
    events.write("run", metric="val_number_accuracy", trials=3, resumed=False)
    for number, (rate, size) in enumerate(((1e-3, 64), (2e-3, 96), (4e-3, 64))):
        name = f"t{number:04d}"
        introduce(events, name, **{"optim.lr": rate, "model.min_size": size})
        events.write("report", trial_id=name, **report(1, 0.1 + 0.2 * number))
        events.write("end", trial_id=name, status="finished", reason=None)
    introduce(events, "t0003", **{"optim.lr": 9e-3})  # still running
    events.close()
    (folder / "run.json").write_text(json.dumps({"settings": {"data": {"folder": "/other"}}}))
    return folder


def settings_of(tmp_path, space="lr_schedules", **more):
    return SearchSettings(space=space, out=str(tmp_path), **more)


def test_scored_trials_are_kept_with_the_parameters_that_both_vary(earlier, tmp_path):
    settings = settings_of(tmp_path)
    learned, [note] = learn_from(settings, "earlier")
    assert list(learned) == ["earlier:t0000", "earlier:t0001", "earlier:t0002"]
    found = [Learned.from_json(text) for text in learned.values()]
    assert [one.config for one in found] == [{"optim.lr": rate} for rate in (1e-3, 2e-3, 4e-3)]
    assert found[0].score < found[1].score < found[2].score
    assert note.startswith("learns from 3 trials of earlier: optim.lr; nothing about optim.")
    assert "that run maximised val_number_accuracy, its val_map counts here" in note
    assert "it trained on other data" in note
    plan = make_plan(SearchSettings(space="lr_schedules", learned=learned))
    assert plan.prior is not None


def test_what_is_learned_is_in_run_json_and_no_longer_needs_the_earlier_folder(earlier, tmp_path):
    settings = settings_of(tmp_path)
    learned, _ = learn_from(settings, str(earlier))
    stored = SearchSettings.from_json(
        json.loads(json.dumps(SearchSettings(space="lr_schedules", learned=learned).to_json()))
    )
    assert stored.learned == learned
    with pytest.raises(UsageError, match=r"'learned' of .* is damaged"):
        make_plan(SearchSettings(space="lr_schedules", learned={"a:t0000": "[]"}))


def test_a_run_that_teaches_nothing_is_one_sentence(earlier, tmp_path):
    with pytest.raises(UsageError, match=r"vary model.min_size, optim.lr, this search varies model.anchor_sizes"):
        learn_from(settings_of(tmp_path, "anchors"), "earlier")
    with pytest.raises(UsageError, match="names no run"):
        learn_from(settings_of(tmp_path), " , ")
    with pytest.raises(RunError):
        learn_from(settings_of(tmp_path), "nowhere")
    with pytest.raises(UsageError, match="names two runs called earlier; name each run once"):
        learn_from(settings_of(tmp_path), f"earlier,{earlier}")
    folder = tmp_path / "young"
    folder.mkdir()
    events = EventWriter(folder, "young")
    events.write("run", metric="val_map", trials=3, resumed=False)
    for number in range(2):
        introduce(events, f"t{number:04d}", **{"optim.lr": 1e-3 * (1 + number)})
        events.write("end", trial_id=f"t{number:04d}", status="failed", reason="why")
    events.close()
    with pytest.raises(RunError, match="has 0 trials with val_map; at least 2"):
        learn_from(settings_of(tmp_path), "young")


def test_flags():
    assert read_beliefs(["optim.lr=0.005", "optim.schedule=step"]) == {"optim.lr": 0.005, "optim.schedule": "step"}
    with pytest.raises(UsageError, match=r"--believe optim.lr: is given twice"):
        read_beliefs(["optim.lr=0.005", "optim.lr=0.01"])
    assert read_until(None) == (False, GAIN)
    assert read_until("settled") == (True, GAIN)
    assert read_until("settled:0.02") == (True, 0.02)
