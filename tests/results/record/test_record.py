import json
import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import introduce, report
from digits_core.errors import RunError
from results.record.log import EVENTS_FILE, EventWriter, read_record
from results.record.run import RunRecord
from results.views.leaderboard import leaderboard_table


def test_the_best_epoch_counts_not_the_last(run_folder):
    record = read_record(run_folder, "demo")
    assert record.trials["t0000"].best("val_map")["epoch"] == 2
    assert record.trials["t0003"].best("val_map") is None


def test_of_equal_epochs_the_earlier_is_best(run_folder):
    record = read_record(run_folder, "demo")
    trial = record.trials["t0000"]
    trial.epochs[1]["val_map"] = trial.epochs[2]["val_map"]
    assert trial.best("val_map")["epoch"] == 1


def test_a_trial_that_failed_keeps_its_row_but_never_wins(run_folder):
    record = read_record(run_folder, "demo")
    assert record.winner().trial_id == "t0000"
    # t0002 scored most and then diverged, t0003 failed without a score
    assert [trial.trial_id for trial in record.ranked()] == ["t0000", "t0004", "t0001", "t0002", "t0003"]


def test_of_equal_trials_the_cheaper_and_then_the_earlier_leads(run_folder):
    record = read_record(run_folder, "demo")
    for trial_id in ("t0001", "t0004"):
        record.trials[trial_id].epochs[1]["val_map"] = 0.42
    assert [trial.trial_id for trial in record.ranked()][:3] == ["t0001", "t0004", "t0000"]


def test_events_are_numbered_and_on_disk_at_once(run_folder):
    lines = (run_folder / EVENTS_FILE).read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_line_cut_short_by_a_crash_is_passed_over_and_cut_off(run_folder):
    path = run_folder / EVENTS_FILE
    whole = path.read_bytes()
    before = read_record(run_folder, "demo").num_events
    path.write_bytes(whole + b'{"n":99,"time":"20')
    assert read_record(run_folder, "demo").num_events == before
    events = EventWriter(run_folder, "demo")
    events.write("run", metric="val_map", trials=5, resumed=True)
    events.close()
    assert path.read_bytes().startswith(whole)
    assert read_record(run_folder, "demo").num_events == before + 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000))
def test_any_beginning_of_the_record_is_a_record(run_folder, cut):
    path = run_folder / EVENTS_FILE
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: cut % (len(whole) + 1)])
        record = read_record(run_folder, "demo")
        assert record.num_events == path.read_bytes().count(b"\n")
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"n": 1}', '{"n": 2, "time": "2026-01-01T00:00:00+00:00", "kind": "start", "trial_id": "t9"}'],
)
def test_a_damaged_line_is_named(run_folder, line):
    path = run_folder / EVENTS_FILE
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RunError, match=EVENTS_FILE):
        read_record(run_folder, "demo")


def damaged(lines, what):
    """The lines of a record after something happened to them."""
    found = list(lines)
    match what:
        case "a line twice":
            found.insert(4, found[3])
        case "a line gone":
            del found[4]
        case "two lines exchanged":
            found[3], found[4] = found[4], found[3]
        case "a line of another run":
            found.insert(4, found[-1])
        case "a kind that is none":
            found[3] = found[3].replace('"kind":"', '"kind":"x')
        case "a trial introduced again":
            found.append(found[1].replace('"n":2,', f'"n":{len(found) + 1},'))
    return found


@pytest.mark.parametrize(
    "what",
    [
        "a line twice",
        "a line gone",
        "two lines exchanged",
        "a line of another run",
        "a kind that is none",
        "a trial introduced again",
    ],
)
def test_a_record_that_is_not_whole_is_refused_and_the_sentence_names_the_repair(run_folder, what):
    path = run_folder / EVENTS_FILE
    path.write_text("\n".join(damaged(path.read_text().splitlines(), what)) + "\n")
    with pytest.raises(RunError, match=r"events\.jsonl line \d+ is damaged .*; digit-search repair") as caught:
        read_record(run_folder, "demo")
    assert f"digit-search repair {shlex.quote(str(run_folder))} says what can be recovered" in str(caught.value)
    with pytest.raises(RunError, match=r"digit-search repair"):
        EventWriter(run_folder, "demo")


def test_seeds_of_a_setting_that_is_not_there_keep_their_rows(run_folder):
    record = read_record(run_folder, "demo")
    record.trials["t0001"].role, record.trials["t0001"].config_hash = "replicate", "gone"
    record.trials["t0004"].role, record.trials["t0004"].parent = "retrain", "t0001"
    record.trials["t0003"].role, record.trials["t0003"].parent = "retrain", "gone"
    assert [trial.trial_id for trial in record.ranked()] == ["t0000", "t0002", "t0001", "t0004", "t0003"]


def test_nan_never_enters_the_record(run_folder):
    events = EventWriter(run_folder, "demo")
    with pytest.raises(ValueError, match="val_map"):
        events.write("report", trial_id="t0004", epoch=2, val_map=float("nan"))
    events.close()


def test_an_event_of_an_unknown_trial_never_enters_the_record(run_folder):
    events = EventWriter(run_folder, "demo")
    with pytest.raises(ValueError, match="unknown trial, t0009"):
        events.write("start", trial_id="t0009")
    with pytest.raises(ValueError, match="introduces trial t0000 again"):
        introduce(events, "t0000")
    events.write("start", trial_id="t0004")
    events.close()
    assert read_record(run_folder, "demo").trials["t0004"].since is not None


def test_a_folder_without_a_record_is_no_run(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        read_record(tmp_path, "x")


def test_time_in_a_slot_excludes_the_time_between_drivers():
    record = RunRecord("r")

    def event(number, second, kind, **values):
        record.apply({"n": number, "time": f"2026-01-01T00:00:{second:02d}+00:00", "kind": kind, **values})

    trial = dict(trial_id="t", space="s", baseline=None, config={}, config_hash="h", seed=0, params={})
    event(1, 0, "run", metric="val_map")
    event(2, 1, "trial", **trial)
    event(3, 2, "start", trial_id="t")
    event(4, 8, "report", trial_id="t", epoch=1, val_map=0.1, train_seconds=5.0)
    event(5, 30, "run", metric="val_map")  # the first driver died after the report
    event(6, 31, "start", trial_id="t")
    event(7, 36, "end", trial_id="t", status="finished", reason=None)
    assert record.trials["t"].slot_seconds == pytest.approx(6 + 5)
    assert record.trials["t"].started_at.second == 2


def test_in_a_comparison_the_first_training_counts_as_a_seed(tmp_path):
    for comparison, seeds, mean in ((False, 1, 0.5), (True, 2, 0.4)):
        folder = tmp_path / f"run{comparison}"
        folder.mkdir()
        events = EventWriter(folder, "run")
        events.write("run", metric="val_map", trials=1, resumed=False, comparison=comparison)
        for number, (role, value) in enumerate((("search", 0.3), ("replicate", 0.5))):
            introduce(events, f"t{number:04d}", **{"optim.epochs": 1, "runtime.seed": number})
            events.record.trials[f"t{number:04d}"].role = role
            events.write("report", trial_id=f"t{number:04d}", **report(1, value))
            events.write("end", trial_id=f"t{number:04d}", status="finished", reason=None)
        record = events.record
        lead = record.trials["t0000"]
        assert len(record.fresh_seeds()[lead.config_hash]) == seeds
        assert record.standing(lead) == pytest.approx(mean)
        [row, *_] = leaderboard_table(record, folder).to_pylist()
        assert (row["num_seeds"], row["seeds_mean"]) == (seeds, pytest.approx(mean))
        events.close()


def test_the_best_epoch_of_a_staged_training_is_of_its_latest_stage(tmp_path):
    events = EventWriter(tmp_path, "run")
    events.write("run", metric="val_map", trials=1, resumed=False)
    introduce(events, "t0000", **{"optim.epochs": 4, "optim.stages": "50%; 50% optim.lr=1e-4"})
    trial = events.record.trials["t0000"]
    for epoch, value, best in ((1, 0.9, 1), (2, 0.8, 1), (3, 0.1, 3), (4, 0.2, 4)):
        events.write("report", trial_id="t0000", **report(epoch, value))
        assert trial.best("val_map")["epoch"] == best
    events.close()


def test_a_trial_that_starts_again_forgets_the_epochs_after_it(tmp_path):
    events = EventWriter(tmp_path, "run")
    events.write("run", metric="val_map", trials=1, resumed=False)
    introduce(events, "t0000", **{"optim.epochs": 4})
    for epoch, value in ((1, 0.1), (2, 0.2), (3, 0.3)):
        optima = {"task1_map": value}
        events.write("report", trial_id="t0000", **report(epoch, value), weights=f"w{epoch}", optima=optima)
    events.write("checkpoint", trial_id="t0000", path="tune/c3", epoch=3)
    events.write("report", trial_id="t0000", **report(2, 0.15), weights="again")
    trial = events.record.trials["t0000"]
    events.close()
    assert sorted(trial.epochs) == [1, 2]
    assert trial.best("val_map")["val_map"] == 0.15
    assert trial.optima == {"task1_map": 0.2}  # of the last better epoch that is left
    assert trial.weights == {1: "w1", 2: "again"}
    assert trial.saved_epoch == 0


def test_a_record_may_be_closed_twice(tmp_path):
    events = EventWriter(tmp_path, "run")
    events.close()
    events.close()
    EventWriter(tmp_path, "run").close()  # the lock was given back
