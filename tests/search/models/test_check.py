from results.record.log import EventWriter, read_record
from results.verdicts.words import ERROR, check_words
from search.models.check import check_best
from searched import Searched


def searched(folder):
    made = Searched(folder)
    made.trial("t0000", 0.9)
    made.trial("t0001", 0.4, **{"optim.lr": 1e-3})
    return made


def test_the_best_trial_is_scored_again_by_torchmetrics_once(tmp_path):
    made = searched(tmp_path / "demo")
    check_best(made.folder, made.events)
    check_best(made.folder, made.events)
    record = read_record(made.done(), "demo")
    assert (made.folder / "events.jsonl").read_text().count('"kind":"checked"') == 1
    best = record.winner()
    assert best.trial_id == "t0000"
    assert best.checked.epoch == best.best_epoch(record.metric)
    assert abs(best.checked.map - best.best(record.metric)["val_map"]) < 1e-6
    [line] = check_words(record)
    assert line.startswith(f"mAP of t0000 checked by {best.checked.by}: {best.checked.map:.4f}")
    assert best.checked.by.startswith("torchmetrics ")


def test_another_map_is_an_error_and_a_check_of_another_epoch_says_nothing(tmp_path):
    folder = searched(tmp_path / "demo").done()
    events = EventWriter(folder, "demo")
    events.write("checked", trial_id="t0000", epoch=2, map=0.01, by="torchmetrics 0")
    [line] = check_words(events.record)
    assert line.startswith(f"{ERROR}the mAP of t0000 is ")
    assert "and 0.0100 by torchmetrics 0" in line
    events.write("checked", trial_id="t0000", epoch=1, map=0.01, by="torchmetrics 0")
    assert check_words(events.record) == []
    events.close()


def test_without_detections_nothing_is_checked(tmp_path):
    made = Searched(tmp_path / "demo")
    made.trial("t0000", 0.9, matches=False)
    check_best(made.folder, made.events)
    assert check_words(made.events.record) == []
    made.done()
