import json
import time

import pytest

from results import open_run, runs
from results.record.log import EventWriter
from searched import Searched, strict_json


@pytest.fixture
def folder(tmp_path):
    for name, quality in (("first", 0.9), ("second", 0.5)):
        run = Searched(tmp_path / "runs" / name)
        run.trial("t0000", quality)
        run.done()
        tree = {"name": name, "started_at": f"2026-01-0{2 - (name == 'first')}T10:20:30Z"}
        tree["settings"] = {"space": "anchors", "data": {"folder": "/data/svhn"}}
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(tree))
    return tmp_path / "runs"


def test_runs_are_listed_with_what_they_are_about(folder, capsys):
    (folder / "third").mkdir()
    (folder / "third" / "events.jsonl").write_text("{")
    (folder / "third" / "run.json").write_text("\x1b[2J")
    assert runs.main([str(folder)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    [first] = [line for line in lines if line[:1] == ["first"]]
    assert first[:7] == ["first", "2026-01-01", "10:20", "anchors", "/data/svhn", "1", "val_map"]
    assert 0 < float(first[7]) <= 1
    assert [line[0] for line in lines if line and line[0] in ("first", "second", "third")] == [
        "third", "first", "second",
    ]  # fmt: skip
    assert any("damaged" in line for line in lines)
    assert "3 runs, " in out
    assert "\x1b" not in out


def test_a_retraining_is_not_counted_as_a_trial(tmp_path, capsys):
    made = Searched(tmp_path / "runs" / "demo")
    made.trial("t0000", 0.9)
    made.retraining("t0000-r1", "t0000")
    assert repr(open_run(made.done())).startswith("<run demo: 1 trials, ")
    assert runs.main([str(tmp_path / "runs"), "--json"]) == 0
    [run] = strict_json(capsys.readouterr().out)["runs"]
    assert (run["trials"], run["ended"]) == (1, 1)


def test_json_lists_the_runs_in_the_same_order(folder, capsys):
    (folder / "third").mkdir()
    (folder / "third" / "events.jsonl").write_text("{")
    assert runs.main([str(folder), "--json"]) == 0
    listed = strict_json(capsys.readouterr().out)["runs"]
    assert [run["run"] for run in listed] == ["third", "first", "second"]
    third, first, _ = listed
    assert (third["best"], third["trials"]) == (None, 0)
    assert "run.json cannot be read" in third["fault"]
    assert (first["space"], first["data"], first["metric"], first["fault"]) == (
        "anchors",
        "/data/svhn",
        "val_map",
        None,
    )
    assert first["size_bytes"] > 0


def test_runs_are_removed_by_name_and_nothing_else(folder, capsys):
    assert runs.main([str(folder), "--remove", "first", "--yes"]) == 0
    assert "deleted 1 run" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["second"]


def test_a_run_that_is_being_written_stays_and_so_do_the_others(folder, capsys):
    events = EventWriter(folder / "second", "second")
    assert runs.main([str(folder), "--remove", "first", "second", "--yes"]) == 2
    assert "is being written by process" in capsys.readouterr().err
    events.close()
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_the_copy_of_a_run_that_is_driven_stays(folder, capsys):
    (folder / "first" / "driver.json").write_text(
        json.dumps({"driver": "process 7 on another.example, 1", "seen": time.time()})
    )
    assert runs.main([str(folder), "--remove", "first", "--yes"]) == 2
    assert "is the copy of a run that process 7 on another.example writes" in capsys.readouterr().err
    assert (folder / "first").is_dir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remove", "../runs/first", "--yes"], "--remove ../runs/first: "),
        (["--remove", "none"], "has no such run"),
        (["--remove", "first"], "needs a terminal to confirm, or --yes"),
        (["--yes"], "--yes: needs --remove"),
        (["--json", "--remove", "first", "--yes"], "--json: lists runs"),
        (["--note", "frist", "text"], "frist: there is no such run; "),
        (["--note", "first", "x" * 501], "--note: at most 500 characters, this note has 501"),
        (["--note", "first", "text", "--json"], "--note: cannot be combined with --json"),
        (["--note", "first", "text", "--tag", "first", "a"], "--note: cannot be combined with --tag"),
        (["--tag", "frist", "a"], "frist: there is no such run; "),
        (["--tag", "first", "two words"], "--tag 'two words': a tag is one word without spaces and commas"),
        (["--tag", "first", ""], "--tag '': a tag is one word"),
        (["--tag", "first", "a,b"], "--tag 'a,b': a tag is one word"),
        (["--tag", "first", "a\x1b[2J"], "a tag is one word"),
        (["--tag", "first", "x" * 41], "--tag: at most 40 characters, this tag has 41"),
        (["--tag", "first", "a", "--with-tag", "a"], "--tag: cannot be combined with --with-tag"),
        (["--untag", "first", "a"], "does not have this tag"),
        (["--with-tag", "a", "--remove", "first", "--yes"], "--with-tag: lists runs"),
        (["--note", "first", "text", "--remove", "second", "--yes"], "--note: cannot be combined with --remove"),
    ],
)
def test_a_mistake_is_one_sentence(folder, arguments, said, capsys):
    assert runs.main([str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    assert not list(folder.glob("*/note.txt"))
    assert not list(folder.glob("*/tags.txt"))


def test_a_person_is_asked(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda words: "no")
    assert runs.main([str(folder), "--remove", "first"]) == 0
    assert "nothing was deleted" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda words: "y")
    assert runs.main([str(folder), "--remove", "first"]) == 0
    assert not (folder / "first").exists()


def test_a_note_is_stored_listed_replaced_and_removed(folder, capsys):
    def listed():
        assert runs.main([str(folder)]) == 0
        return capsys.readouterr().out

    assert "note" not in listed()
    assert runs.main([str(folder), "--note", "first", "  the corrected\nlabels "]) == 0
    assert "stored the note: the corrected labels" in capsys.readouterr().out
    assert (folder / "first" / "note.txt").read_text() == "the corrected labels\n"
    assert "the corrected labels" in listed()
    assert runs.main([str(folder), "--json"]) == 0
    notes = {run["run"]: run["note"] for run in strict_json(capsys.readouterr().out)["runs"]}
    assert notes == {"first": "the corrected labels", "second": None}
    assert runs.main([str(folder), "--note", str(folder / "first"), "again"]) == 0
    assert "again" in listed()
    assert runs.main([str(folder), "--note", "first", ""]) == 0
    assert not list((folder / "first").glob("*note*"))
    assert "removed the note" in capsys.readouterr().out
    assert "again" not in listed()
    assert runs.main([str(folder), "--note", "first", ""]) == 0
    assert "has no note" in capsys.readouterr().out


def test_a_note_can_be_stored_while_a_search_writes_the_run(folder):
    events = EventWriter(folder / "second", "second")
    assert runs.main([str(folder), "--note", "second", "text"]) == 0
    events.close()
    assert open_run(folder / "second").note == "text"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x1b[2J", b"a" * 70_000, b"\n\n", b"\0"])
def test_a_strange_note_is_shown_without_its_control_characters(folder, content, capsys):
    (folder / "first" / "note.txt").write_bytes(content)
    assert runs.main([str(folder)]) == 0
    assert not {"\x1b", "\0"} & set(capsys.readouterr().out)
    assert len(open_run(folder / "first").note or "") <= 500


def test_a_link_out_of_the_run_folder_is_refused_before_a_note_is_written(folder, tmp_path, capsys):
    outside = tmp_path / "outside.txt"
    outside.write_text("keep")
    (folder / "first" / "note.txt").symlink_to(outside)
    assert runs.main([str(folder), "--note", "first", "text"]) == 2
    assert "is a link to a place outside" in capsys.readouterr().err
    assert outside.read_text() == "keep"


def test_a_tag_is_stored_listed_filtered_and_removed(folder, capsys):
    def said(*arguments):
        assert runs.main([str(folder), *arguments]) == 0
        return capsys.readouterr().out

    assert "tags" not in said()
    assert said("--tag", "first", "baseline").endswith("has the tags baseline\n")
    assert said("--tag", "first", "svhn").endswith("has the tags baseline, svhn\n")
    said("--tag", "first", "svhn")  # again: nothing changes
    assert (folder / "first" / "tags.txt").read_text() == "baseline\nsvhn\n"
    assert "baseline, svhn" in said()
    assert open_run(folder / "first").tags == ["baseline", "svhn"]
    listed = said("--with-tag", "svhn")
    assert "first" in listed
    assert "second" not in listed
    assert [run["run"] for run in strict_json(said("--with-tag", "svhn", "--json"))["runs"]] == ["first"]
    assert strict_json(said("--with-tag", "none", "--json"))["runs"] == []
    assert "has the tag 'svnh'; did you mean 'svhn'?" in said("--with-tag", "svnh")
    assert said("--untag", "first", "baseline").endswith("has the tags svhn\n")
    assert said("--untag", "first", "svhn").endswith("has no tags\n")
    assert not list((folder / "first").glob("*tags*"))


def test_a_run_has_at_most_twenty_tags(folder, capsys):
    (folder / "first" / "tags.txt").write_text("".join(f"t{number}\n" for number in range(20)))
    assert runs.main([str(folder), "--tag", "first", "more"]) == 2
    assert "has 20 tags already; remove one with --untag" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x1b[2J", b"a" * 70_000, b"\n\n", b"\0", b"a " * 900])
def test_strange_tags_are_shown_without_their_control_characters(folder, content, capsys):
    (folder / "first" / "tags.txt").write_bytes(content)
    assert runs.main([str(folder)]) == 0
    assert not {"\x1b", "\0"} & set(capsys.readouterr().out)
    assert all(len(tag) <= 100 for tag in open_run(folder / "first").tags)
    assert len(open_run(folder / "first").tags) <= 20


def test_a_link_out_of_the_run_folder_is_refused_before_a_tag_is_written(folder, tmp_path, capsys):
    outside = tmp_path / "outside.txt"
    outside.write_text("keep\n")
    (folder / "first" / "tags.txt").symlink_to(outside)
    assert runs.main([str(folder), "--tag", "first", "more"]) == 2
    assert "is a link to a place outside" in capsys.readouterr().err
    assert outside.read_text() == "keep\n"


def test_note_and_tags_are_above_the_printed_leaderboard(folder, capsys):
    from results import leaderboard

    runs.main([str(folder), "--tag", "first", "svhn"])
    runs.main([str(folder), "--note", "first", "the corrected labels"])
    capsys.readouterr()
    assert leaderboard.main([str(folder / "first")]) == 0
    out = capsys.readouterr().out
    assert "note: the corrected labels\ntags: svhn\n" in out
    assert leaderboard.main([str(folder / "first"), "--json"]) == 0
    [document] = strict_json(capsys.readouterr().out)["runs"]
    assert (document["note"], document["tags"]) == ("the corrected labels", ["svhn"])
