"""How far trials are inside an epoch: messages of a trial, the file beside the record, what is shown."""

import io
import itertools
import json
from datetime import UTC, datetime

import pytest

import conftest
from digits_core.terminal import PlainConsole
from results.record.log import EventWriter
from search.monitor import epoch_progress
from search.monitor.epoch_progress import (
    PAUSE_SECONDS,
    PROGRESS_FILE,
    Pulse,
    Reached,
    drop_progress,
    from_text,
    read_progress,
    to_text,
    write_progress,
)
from search.monitor.view import SearchView


class Clock:
    """A clock that moves only when somebody waits; each step of the training takes `step_seconds`."""

    def __init__(self, steps, step_seconds):
        self.now, self.done, self.steps, self.step_seconds = 0.0, 0, steps, step_seconds

    def wait(self, seconds):
        self.now += seconds
        while self.done < self.steps and (self.done + 1) * self.step_seconds <= self.now:
            self.done += 1
            self.pulse.put(1, self.done / self.steps)
        return self.now > self.steps * self.step_seconds + 10


@pytest.mark.parametrize(("steps", "step_seconds"), [(1000, 0.01), (40, 0.25), (5, 4.0)])
def test_a_trial_sends_at_most_one_message_a_second_and_never_the_same_one_twice(steps, step_seconds):
    clock, sent = Clock(steps, step_seconds), []
    clock.pulse = Pulse(lambda one: sent.append((clock.now, one)), wait=clock.wait)
    clock.pulse.follow()
    times = [time for time, _ in sent]
    assert all(later - earlier >= PAUSE_SECONDS for earlier, later in itertools.pairwise(times))
    assert len(sent) == min(steps, round(steps * step_seconds / PAUSE_SECONDS))
    assert sent[-1][1] == Reached(0, 1, 1.0)


def test_a_receiver_that_does_not_answer_holds_no_training(monkeypatch):
    import threading

    monkeypatch.setattr(epoch_progress, "PAUSE_SECONDS", 0.01)
    blocked, answered = threading.Event(), threading.Event()

    def send(one):
        blocked.set()
        answered.wait(60)

    with Pulse(send) as pulse:
        pulse.put(1, 0.1)
        assert blocked.wait(60)
        pulse.put(1, 0.2)  # returns while the first one is not sent
    assert not answered.is_set()
    answered.set()


@pytest.mark.parametrize(("share", "words"), [(0.004, "0 %"), (0.439, "43 %"), (0.999, "99 %"), (1.0, "evaluation")])
def test_progress_in_words(share, words):
    assert Reached(0, 1, share).words(12) == f"epoch 1/12, {words}"


def test_progress_is_read_back_and_a_damaged_file_is_none(tmp_path):
    found = {"t0000": Reached(0, 1, 0.25), "t0001": Reached(2, 3, 1.0)}
    assert from_text(to_text(found["t0001"])) == found["t0001"]
    write_progress(tmp_path, found)
    assert read_progress(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS_FILE]
    for text in (
        "",
        "{",
        "[]",
        "3",
        "[" * 100_000,
        '{"t0000": null}',
        '{"t0000": [0, 1, "a"]}',
        '{"t": [0, 1, 1e999]}',
    ):
        (tmp_path / PROGRESS_FILE).write_text(text)
        assert read_progress(tmp_path) == {}, text
    drop_progress(tmp_path)
    drop_progress(tmp_path)
    assert read_progress(tmp_path) == {}


@pytest.fixture
def events(tmp_path):
    """The record of a trial of three epochs that starts."""
    found = EventWriter(tmp_path, "r")
    found.write("run", metric="val_map", epochs=3)
    conftest.introduce(found, "t0000", **{"optim.epochs": 3, "optim.lr": 0.00123456})
    found.write("start", trial_id="t0000")
    yield found
    found.close()


def test_a_trial_starts_until_the_first_batch_and_then_shows_its_part_of_the_epoch(events):
    reached = {}
    view = SearchView({}, trials=1, epochs=3, slots=1, reached=reached)

    def state():
        [cell] = view.table(events.record).columns[2].cells
        return cell.rstrip()

    assert state().startswith("starts, ")
    reached["t0000"] = Reached(0, 1, 0.43)
    assert state() == "epoch 1/3, 43 %"
    reached["t0000"] = Reached(0, 1, 1.0)
    assert state() == "epoch 1/3, evaluation"
    events.write("report", trial_id="t0000", **conftest.report(1, 0.4))
    assert state().startswith("epoch 2/3, ")
    assert "%" not in state()
    reached["t0000"] = Reached(0, 2, 0.1)
    assert state() == "epoch 2/3, 10 %"
    events.write("fault", trial_id="t0000", fault="worker_died", reason="it died", epoch=1, change={})
    events.write("start", trial_id="t0000")
    assert "%" not in state()  # that was before the failure
    reached["t0000"] = Reached(1, 2, 0.2)
    assert state() == "epoch 2/3, 20 %"


@pytest.mark.parametrize(
    ("width", "hidden"),
    [
        (200, []),
        (80, []),
        (74, ["curve"]),
        (70, ["curve", "images/s"]),
        (60, ["curve", "images/s", "configuration"]),
    ],
)
def test_a_narrow_live_view_keeps_the_scores_and_names_what_it_hides(events, width, hidden):
    events.write("report", trial_id="t0000", **conftest.report(1, 0.4))
    base = events.record.trials["t0000"].config | {"optim.lr": 1e-3}
    reached = {"t0000": Reached(0, 2, 1.0)}
    view = SearchView(base, trials=1, epochs=3, slots=1, started=0.0, reached=reached)
    out = io.StringIO()
    PlainConsole(file=out, width=width).print(view.table(events.record, width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    for needed in ("t0000", "epoch 2/3, evaluation", "mAP", "best", "0.40"):
        assert needed in text
    headings = text.splitlines()[1].split()
    scores = ["slot", "trial", "state", "mAP", "best"]
    assert headings == scores + [one for one in ("curve", "images/s", "configuration") if one not in hidden]
    said = f"hidden: {', '.join(hidden)} (the terminal is too narrow)" if hidden else ""
    assert " ".join(text.split()).endswith(said)
    assert ("hidden: " in text) == bool(hidden)


def test_progress_leaves_no_trace_in_the_record(events, tmp_path):
    before = (tmp_path / "events.jsonl").read_bytes()
    write_progress(tmp_path, {"t0000": Reached(0, 1, 0.5)})
    assert (tmp_path / "events.jsonl").read_bytes() == before
    assert json.loads((tmp_path / PROGRESS_FILE).read_text()) == {"t0000": [0, 1, 0.5]}
    assert events.record.trials["t0000"].num_epochs == 0
    assert events.record.trials["t0000"].since <= datetime.now(UTC)
