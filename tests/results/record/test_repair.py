"""Whatever happens to a line of a record, all the others are kept, and what is lost is said."""

import json
import shlex
import tempfile
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import introduce, report
from digits_core.errors import RunError
from results import leaderboard, repair
from results.record.events import check_event
from results.record.folder import BEST_FILE, LEADERBOARD_FILE
from results.record.lock import lock_run
from results.record.log import EVENTS_FILE, EventWriter, read_record
from results.record.run import RunRecord
from results.record.salvage import salvage
from results.record.schema import ENDED
from results.tables.parquet import read_table
from results.views.leaderboard import epochs_table, leaderboard_table, rebuild
from search import replay
from search.policy.decisions import next_number

METRIC = "val_number_accuracy"


def write_record(folder):
    """A record with every kind of event, in two starts of the search."""
    folder.mkdir(parents=True)
    events = EventWriter(folder, folder.name)
    for start in range(2):
        more = {"trials": 6, "scheduler": "asha", "epochs": 3, "resumed": bool(start), "asha": [2, 2]}
        events.write("run", metric=METRIC, comparison=False, **more)
        for number in range(3 * start, 3 * start + 3):
            name = f"t{number:04d}"
            introduce(events, name, **{"optim.lr": 1e-3 * (number + 1), "optim.epochs": 3})
            events.write("start", trial_id=name)
            for epoch in (1, 2, 3):
                events.write("report", trial_id=name, **report(epoch, 0.1 * epoch + 0.01 * number))
                events.write("checkpoint", trial_id=name, path=f"tune/{name}/{epoch}", epoch=epoch)
                if (number, epoch) == (1, 1):
                    events.write("fault", trial_id=name, fault="worker_died", reason="it died", epoch=1, change={})
                    events.write("start", trial_id=name)
            events.write("kept", trial_id=name, path=f"checkpoints/{name}")
            if number != 4:
                events.write("end", trial_id=name, status="finished", reason=None)
    config = events.record.trials["t0000"].config
    events.write("longer", trial_id="t0000", config={**config, "optim.epochs": 4}, config_hash="x")
    events.write("end", trial_id="t0000", status="interrupted", reason="the run was interrupted")
    events.close()
    about = {"settings": {"metric": METRIC, "scheduler": "asha"}, "asha": [2, 2], "comparison": False}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_record(tmp_path / "demo")


@lru_cache
def whole():
    """The bytes of the record, and what run.json says."""
    with tempfile.TemporaryDirectory() as place:
        found = write_record(Path(place) / "demo")
        return (found / EVENTS_FILE).read_bytes(), json.loads((found / "run.json").read_text())


def told(event):
    """An event without its number, which a repair gives anew."""
    return {name: value for name, value in event.items() if name != "n"}


def stranger(line, number):
    """The same event of another run, a year before."""
    event = json.loads(line)
    time = datetime.fromisoformat(event["time"])
    return json.dumps({**event, "n": number, "time": time.replace(year=time.year - 1).isoformat()}).encode()


class Damage(NamedTuple):
    """Something that happens to a record: where, as a share of its lines and of the line, and what is written there."""

    kind: str
    where: float
    share: float
    values: bytes
    number: int

    def on(self, content):
        """The bytes that are left, and the lines that were hit, from 0."""
        lines = content.splitlines(keepends=True)
        at = int(self.where * len(lines))
        line = lines[at]
        place = int(self.share * len(line))
        match self.kind:
            case "bytes" | "nuls":
                start = sum(map(len, lines[:at])) + place
                new = self.values if self.kind == "bytes" else bytes(self.number * 5)
                ends = [sum(map(len, lines[: one + 1])) for one in range(len(lines))]
                hit = {one for one, end in enumerate(ends) if end > start and end - len(lines[one]) < start + len(new)}
                return (content[:start] + new + content[start + len(new) :])[: len(content)], hit
            case "short":
                lines[at] = line[:place] + b"\n"
            case "joined":
                lines[at] = line[:-1] + (self.values[:1] if self.values[:1] not in b'\n"' else b"")
            case "gone":
                del lines[at]
            case "twice":
                lines.insert(at, line)
                at = -1
            case "stranger":
                if self.number != len(lines) + 1:  # nothing tells that one from the next event
                    lines.insert(int(self.share * (len(lines) + 1)), stranger(line, self.number) + b"\n")
                at = -1
            case "noise":
                lines.insert(at, self.values.replace(b"\n", b"?") + b"\n")
                at = -1
        return b"".join(lines), {at} - {-1}


SHARES = st.floats(0, 1, exclude_max=True)
KINDS = ("bytes", "nuls", "short", "joined", "gone", "twice", "stranger", "noise")
DAMAGES = st.builds(
    Damage, st.sampled_from(KINDS), SHARES, SHARES, st.binary(min_size=1, max_size=4), st.integers(1, 200)
)


@settings(deadline=None, max_examples=400)
@given(damage=DAMAGES)
def test_whatever_happens_to_a_record_all_that_is_whole_is_kept_in_order_and_can_be_read(damage):
    content, about = whole()
    left, hit = damage.on(content)
    events = [json.loads(line) for line in content.splitlines()]
    found = salvage(left, "demo", about)
    gone = {events[one].get("trial_id") for one in hit if events[one]["kind"] == "trial"}
    expected = [told(one) for place, one in enumerate(events) if place not in hit and one.get("trial_id") not in gone]
    kept = [told(event) for event in found.events]
    rest = iter(kept)
    lacking = [one for one in expected if one not in rest]
    assert lacking == [], "an event that was not hit is lost, or not in its place"
    assert len(kept) <= len(expected) + len(hit) + sum(one.get("trial_id") in gone for one in events)
    if not found.sound:
        last = found.repaired("events.jsonl.damaged-1", datetime.now(UTC).isoformat())
        record = RunRecord("demo")
        for event in [*found.events, last]:
            record.apply(check_event(json.loads(json.dumps(event))))
        assert record.metric == METRIC
        assert record.num_drivers >= 2 or (len(hit) > 1 and found.events)
        assert record.asha == (2, 2)
        assert leaderboard_table(record, Path("nowhere"), make=False).num_rows == len(record.trials)
        epochs_table(record)
        repair.lost_lines(found), repair.affected_lines(found)
    else:  # as whole as a record that was not damaged: nothing tells it from a shorter one, or from one of other values
        assert len(kept) >= len(events) - max(len(hit), 1)


def hurt(folder, number, change):
    """Change the line of an event, by its number."""
    path = folder / EVENTS_FILE
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines))


def number_of(folder, kind, trial_id, epoch=None):
    events = [json.loads(line) for line in (folder / EVENTS_FILE).read_text().splitlines()]
    return next(
        e["n"] for e in events if (e["kind"], e.get("trial_id")) == (kind, trial_id) and epoch in (None, e.get("epoch"))
    )


def bad_byte(line):
    return line[:20] + b"\xff" + line[21:]


def run(capsys, folder, *flags):
    code = repair.main([str(folder), *flags])
    return code, capsys.readouterr().out


def files(folder):
    """Every file of a run, but for that of the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_look_names_what_is_lost_and_changes_nothing(folder, capsys):
    report_3, introduced = number_of(folder, "report", "t0001", 2), number_of(folder, "trial", "t0003")
    hurt(folder, report_3, bad_byte)
    hurt(folder, introduced, lambda line: line[:300])
    before = files(folder)
    code, out = run(capsys, folder)
    assert code == 1
    assert files(folder) == before
    assert f"line {report_3}, bytes " in out
    assert "the report of trial t0001, epoch 2 (byte 21 is not UTF-8)" in out
    assert f"line {introduced}, bytes " in out
    assert "the configuration of trial t0003 (not JSON from byte " in out
    first, last = introduced + 1, introduced + 9
    assert f"lines {first} to {last}: 9 other events of trial t0003, whose configuration is lost" in out
    assert "trial t0001 lacks the scores of epoch 2" in out
    assert "trial t0003 is lost, its files stay; a resume may try its configuration again" in out
    assert f"nothing was changed; digit-search repair {shlex.quote(str(folder))} --write keeps the old file as " in out
    assert "events.jsonl.damaged-1 and writes the recovered record" in out


def test_a_repair_keeps_the_old_file_and_the_views_and_the_next_writer_follow_it(folder, capsys):
    rebuild(folder)
    (folder / BEST_FILE).write_text("of before")
    for time in (1, 2):
        hurt(folder, number_of(folder, "report", "t0005", time), bad_byte)
        damaged = (folder / EVENTS_FILE).read_bytes()
        code, out = run(capsys, folder, "--write")
        assert code == 0
        assert (folder / f"{EVENTS_FILE}.damaged-{time}").read_bytes() == damaged
        assert f"the damaged record is {folder}/{EVENTS_FILE}.damaged-{time}" in out
        record = read_record(folder, "demo")
        assert sorted(record.trials["t0005"].epochs) == [1, 2, 3][time:]
        assert record.num_lost == time
        row = read_table(folder / LEADERBOARD_FILE).set_index("trial_id").loc["t0005"]
        assert row["epochs"] == 3
        assert (folder / BEST_FILE).read_text() != "of before"
    assert run(capsys, folder)[0] == 0
    assert leaderboard.main([str(folder)]) == 0
    replay.main([str(folder)])
    assert "2 events were lost when the record was repaired" in capsys.readouterr().out
    events = EventWriter(folder, "demo")
    before = events.record.num_events
    events.write("run", metric=METRIC, trials=6, resumed=True)
    events.close()
    assert read_record(folder, "demo").num_events == before + 1
    assert list(folder.glob(".*.half")) == []


def test_what_is_not_damaged_is_left_as_it_is(folder, capsys):
    with (folder / EVENTS_FILE).open("ab") as file:
        file.write(b'{"n":99,"time":"20')
    before = files(folder)
    code, out = run(capsys, folder, "--write")
    assert code == 0
    assert "is incomplete, as after a crash: the next resume removes it" in out
    assert "is not damaged: 65 events of 6 trials" in out
    assert files(folder) == before


def test_a_repair_while_somebody_writes_the_run_is_refused(folder, capsys):
    hurt(folder, 5, bad_byte)
    before = files(folder)
    lock = lock_run(folder)
    for flags in ((), ("--write",)):
        assert repair.main([str(folder), *flags]) == 2
        assert "is being written by process" in capsys.readouterr().err
    lock.close()
    assert files(folder) == before


def test_a_lost_first_start_is_written_anew_as_the_run_began(folder, capsys):
    hurt(folder, 1, bad_byte)
    code, out = run(capsys, folder, "--write")
    assert code == 0
    assert f"the first start of the search, with the metric {METRIC}, is reconstructed" in out
    record = read_record(folder, "demo")
    assert (record.metric, record.asha, record.num_drivers) == (METRIC, (2, 2), 2)
    assert all(arrival.value is not None for arrival in record.arrivals)
    assert replay.main([str(folder)]) == 0


def test_a_lost_later_start_is_written_anew_with_what_it_asked_for(tmp_path, capsys):
    folder = tmp_path / "demo"
    folder.mkdir()
    events = EventWriter(folder, "demo")
    facts = {"metric": METRIC, "scheduler": "asha", "trials": 2, "asha": [2, 2], "space": "anchors", "sampler": "tpe"}
    events.write("run", **facts, epochs=2, resumed=False)
    introduce(events, "t0000", **{"optim.epochs": 2})
    events.write("report", trial_id="t0000", **report(1, 0.3))
    events.write("report", trial_id="t0000", **report(2, 0.3))
    events.write("end", trial_id="t0000", status="finished", reason=None)
    events.write("run", **facts, epochs=4, resumed=True)
    config = events.record.trials["t0000"].config | {"optim.epochs": 4}
    events.write("longer", trial_id="t0000", config=config, config_hash="x")
    events.close()
    whole = (folder / EVENTS_FILE).read_bytes()
    for gone in ("longer", None):
        (folder / EVENTS_FILE).write_bytes(whole)
        (folder / "run.json").write_text(json.dumps({"base_config": {"optim.epochs": 4}} if gone else {}))
        hurt(folder, 6, bad_byte)
        if gone is not None:
            hurt(folder, 7, lambda line: line.replace(b'"longer"', b'"start"'))
        code, out = run(capsys, folder, "--write")
        assert code == 0
        assert f"the start of the search at event 6, with the metric {METRIC}, is reconstructed" in out
        record = read_record(folder, "demo")
        assert (record.num_drivers, record.planned_epochs) == (2, 4)
        start = json.loads((folder / EVENTS_FILE).read_text().splitlines()[5])
        assert (start["space"], start["sampler"], start["resumed"], start["restored"]) == ("anchors", "tpe", True, True)


@pytest.mark.parametrize("about", [None, "hello", "[]", '{"settings": 3, "asha": "x"}', '{"settings": {"metric": 3}}'])
def test_a_lost_first_start_needs_no_sound_run_file(folder, about, capsys):
    (folder / "run.json").unlink() if about is None else (folder / "run.json").write_text(about)
    hurt(folder, 1, bad_byte)
    assert run(capsys, folder, "--write")[0] == 0
    assert read_record(folder, "demo").metric == METRIC  # as a later start says


def test_names_and_starts_that_are_lost_are_not_given_again(folder, capsys):
    hurt(folder, number_of(folder, "trial", "t0005"), bad_byte)
    hurt(folder, 34, lambda line: bytes(len(line)))  # the second start, of which nothing can be told
    run(capsys, folder, "--write")
    record = read_record(folder, "demo")
    assert "t0005" not in record.trials
    assert record.lost_trials == {"t0005"}
    assert record.num_drivers >= 2
    assert next_number(record) == 6


def test_a_trial_whose_end_is_lost_is_said_to_go_on(folder, capsys):
    hurt(folder, number_of(folder, "end", "t0002"), bad_byte)
    _, out = run(capsys, folder, "--write")
    assert "trial t0002 counts as not ended, and a resume continues it" in out
    assert read_record(folder, "demo").trials["t0002"].status not in ENDED


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("end", "the end of trial t0001"),
        ("report", "the report of trial t0001, epoch 1"),
        ("trial", "the configuration of"),
    ],
)
def test_an_event_whose_kind_cannot_be_read_is_told_by_what_else_it_has(folder, kind, words, capsys):
    hurt(folder, number_of(folder, kind, "t0001"), lambda line: line.replace(b'"kind":"', b'"kind":"\xff'))
    assert f": {words}" in run(capsys, folder)[1]


def test_a_record_of_which_nothing_is_whole_becomes_one_that_says_so(folder, capsys):
    (folder / EVENTS_FILE).write_bytes(b"hello\nthere\n")
    assert run(capsys, folder, "--write")[0] == 0
    assert read_record(folder, "demo").trials == {}
    assert leaderboard.main([str(folder)]) == 0


def test_lines_of_which_nothing_can_be_told_leave_a_list_of_the_trials_that_count_as_not_ended(folder, capsys):
    hurt(folder, number_of(folder, "end", "t0002"), lambda line: bytes(len(line)))
    _, out = run(capsys, folder)
    assert "bytes that are not an event (not JSON from byte 1 on)" in out
    assert "one event is not in the file, according to the event numbers" in out
    assert "these trials count as not ended, and a resume continues them: t0000, t0002, t0004" in out


def test_a_repair_of_no_run_is_one_sentence(tmp_path, capsys):
    assert repair.main([str(tmp_path)]) == 2
    assert "this folder has no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "field", [{"drivers": 10**6}, {"trials": ["../x"]}, {"lost": 3}, {"lost": [3]}, {"num_lost": -1}]
)
def test_a_repair_that_a_stranger_invented_is_damage(folder, field):
    event = {"n": 66, "time": "2026-01-01T00:00:00+00:00", "kind": "repaired"}
    event |= {"num_lost": 0, "lost": [], "trials": [], "drivers": 0}
    with (folder / EVENTS_FILE).open("a") as file:
        file.write(json.dumps(event | field) + "\n")
    with pytest.raises(RunError, match="of a 'repaired' is missing or wrong"):
        read_record(folder, "demo")


def test_deeply_nested_and_very_long_lines_are_only_damage():
    for line in (b'{"n":' * 20_000, b"[" * 100_000, b"x" * 3_000_000, b'{"n":1' + b"," * 1_000_000):
        found = salvage(line + b"\n", "demo", {})
        assert (found.events, found.sound) == ([], False)
