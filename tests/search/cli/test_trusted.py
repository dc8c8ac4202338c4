"""A run folder from somebody else runs no code and connects to no address that its user has not typed."""

import hashlib
import json
import os
import shlex
import shutil
import stat
from pathlib import Path

import pytest

from digits_core.data.cache import open_data
from digits_core.errors import UsageError
from results import compare, export, leaderboard, plots, report, runs
from results.record.log import EventWriter
from search import driver, dry_run, replay, retrain, run
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.cli.trusted import Choice, choices_of, is_remembered, refuse_unnamed, remember
from search.cli.values import data_source
from search.machine.probe import Findings
from searched import Searched
from spaces.catalogue import space_files

SPACE = """
from pathlib import Path
from spaces.registry import space
Path({mark!r}).write_text("it ran")

@space("mine", summary="")
def mine(trial):
    return {{"optim.lr": trial.suggest_float("lr", 1e-4, 1e-2)}}
"""


def command(*arguments):
    try:
        return run.main([str(one) for one in arguments])
    except SystemExit as error:
        return error.code


@pytest.fixture
def mark(tmp_path):
    """The file that a space leaves behind when it is run."""
    return tmp_path / "it-ran"


@pytest.fixture
def stranger(tmp_path, mark, tiny_folder):
    """A valid run folder from somebody else: its space is a file in it."""
    folder = tmp_path / "runs" / "r"
    made = Searched(folder)
    made.trial("t0000", 0.8)
    made.done()
    (folder / "space.py").write_text(SPACE.format(mark=str(mark)))
    ask(folder, tiny_folder, space=str(folder / "space.py"))
    return folder


def ask(folder, real, **settings):
    """Change settings of a run folder; its data is a folder `real`."""
    sound = SearchSettings(
        space="lr_schedules", data=data_source(str(real)), out=str(folder.parent), name=folder.name, trials=3
    )
    known = describe_run(sound, make_plan(sound), open_data(sound.data), None)
    stored = {**known["settings"], **settings}
    if Path(stored["space"]).is_absolute():  # what it says of its own file counts for nothing
        stored["space_files"] = {stored["space"]: digest(stored["space"])}
    (folder / "run.json").write_text(json.dumps({**known, "settings": stored}))


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def stopped(monkeypatch):
    """A resume whose settings are accepted ends with a known message where it would import torch."""

    def end(*_):
        raise UsageError("it would go on from here")

    monkeypatch.setattr(driver.Probe, "__init__", end)


READERS = {
    "status": (run.main, ["--status", "{run}"]),
    "leaderboard": (leaderboard.main, ["{run}", "--rebuild"]),
    "compare": (compare.main, ["{run}"]),
    "compare --by table": (compare.main, ["{run}", "--by", "table"]),
    "export": (export.main, ["{run}", "--format", "csv", "-o", "{out}"]),
    "runs": (runs.main, ["{runs}"]),
    "report": (report.main, ["{run}", "-o", "{out}"]),
    "plots": (plots.main, ["{run}", "-o", "{out}"]),
    "replay": (replay.main, ["{run}"]),
    "retrain": (retrain.main, ["{run}", "--workers", "99"]),
    "--from": (run.main, ["--space", "thresholds", "--from", "{run}", "--dry-run"]),
    "--init-from": (run.main, ["--space", "lr_schedules", "--init-from", "{run}", "--dry-run"]),
    "resume": (run.main, ["--resume", "r", "--out", "{runs}"]),
    "resume with another space": (run.main, ["--resume", "r", "--out", "{runs}", "--space", "anchors"]),
    "resume with more trials": (run.main, ["--resume", "r", "--out", "{runs}", "--trials", "+3", "--epochs", "50"]),
}


@pytest.mark.parametrize("name", READERS)
def test_no_command_runs_a_space_file_of_a_run_folder(name, stranger, mark, tmp_path, capsys, monkeypatch, stopped):
    monkeypatch.chdir(stranger)  # a relative name would be found here
    main, arguments = READERS[name]
    main([one.format(run=stranger, runs=stranger.parent, out=tmp_path / "out") for one in arguments])
    assert not mark.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_resume_names_the_flag_to_give_again(stranger, mark, tmp_path, capsys, stopped):
    assert command("--resume", "r", "--out", stranger.parent) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.rstrip().endswith(f"--space {shlex.quote(str(stranger / 'space.py'))}")
    assert "contains settings that you have not typed on this machine before" in error
    assert not mark.exists()


def test_a_space_file_named_again_is_run_and_is_known_from_then_on(stranger, mark, capsys, stopped):
    arguments = ["--resume", "r", "--out", stranger.parent]
    assert command(*arguments, "--space", stranger / "space.py") == 2
    assert "it would go on from here" in capsys.readouterr().err
    assert mark.exists()
    mark.unlink()
    assert command(*arguments) == 2
    assert "it would go on from here" in capsys.readouterr().err
    assert mark.exists()


def test_a_space_file_that_has_changed_since_is_asked_for_again(stranger, mark, capsys, stopped):
    arguments = ["--resume", "r", "--out", stranger.parent]
    command(*arguments, "--space", stranger / "space.py")
    mark.unlink()
    (stranger / "space.py").write_text((stranger / "space.py").read_text() + "\n# and more\n")
    capsys.readouterr()
    assert command(*arguments) == 2
    assert "--space" in capsys.readouterr().err
    assert not mark.exists()


def test_compiled_code_beside_a_space_file_is_not_run(tmp_path, mark):
    import importlib.util
    import py_compile

    path, evil = tmp_path / "mine.py", tmp_path / "evil.py"
    path.write_text(SPACE.format(mark=str(tmp_path / "named")))
    evil.write_text(SPACE.format(mark=str(mark)))
    cached = importlib.util.cache_from_source(str(path))
    py_compile.compile(str(evil), cfile=cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    make_plan(SearchSettings(space=str(path), space_files=space_files(str(path))))
    assert (tmp_path / "named").exists()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"mlflow": "http://stranger:5000"}, "--mlflow http://stranger:5000"),
        ({"address": "127.0.0.1:9"}, "--address 127.0.0.1:9"),
        ({"address": "auto"}, "--address auto"),
        ({"storage": "s3://stranger/runs?region=x"}, "--storage 's3://stranger/runs?region=x'"),
        ({"storage": "/somewhere/else"}, "--storage /somewhere/else"),
        ({"dashboard_host": "0.0.0.0"}, "--dashboard-host 0.0.0.0"),
        ({"data": {"folder": "s3://stranger/data?endpoint_override=stranger:1"}}, "--data 's3://stranger/data"),
    ],
)
def test_a_place_that_a_run_folder_names_is_asked_for_again(settings, flag, stranger, tiny_folder, capsys, stopped):
    ask(stranger, tiny_folder, **settings)
    assert command("--resume", "r", "--out", stranger.parent) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flag in error
    named = SearchSettings.from_json({**json.loads((stranger / "run.json").read_text())["settings"]})
    remember(choices_of(named))
    refuse_unnamed(choices_of(named), (), "--resume r")


def test_everything_that_is_asked_for_is_in_one_sentence(stranger, tiny_folder, capsys, stopped):
    ask(stranger, tiny_folder, space=str(stranger / "space.py"), mlflow="http://h:5000", dashboard_host="0.0.0.0")
    command("--resume", "r", "--out", stranger.parent)
    error = capsys.readouterr().err
    assert error.rstrip().endswith(
        f"--space {shlex.quote(str(stranger / 'space.py'))} --mlflow http://h:5000 --dashboard-host 0.0.0.0"
    )
    arguments = ["--space", stranger / "space.py", "--mlflow", "file:/nowhere", "--dashboard-host", "127.0.0.1"]
    command("--resume", "r", "--out", stranger.parent, *arguments)
    assert "it would go on from here" in capsys.readouterr().err


def test_data_behind_an_address_is_asked_for_by_other_commands_too(stranger, tiny_folder, capsys):
    ask(stranger, tiny_folder, data={"folder": "s3://stranger/data"})
    assert retrain.main([str(stranger)]) == 2
    assert "--data s3://stranger/data" in capsys.readouterr().err
    shutil.copytree(
        driver.__file__.rpartition("/search/")[0] + "/digits_core/weights/tiny_drawn", stranger / "checkpoints/t0000"
    )
    events = EventWriter(stranger, "r")
    events.write("kept", trial_id="t0000", path="checkpoints/t0000")
    events.close()
    assert command("--space", "thresholds", "--from", stranger, "--out", stranger.parent) == 2
    assert "--data s3://stranger/data" in capsys.readouterr().err


def test_the_same_data_may_lie_elsewhere_at_a_resume(stranger, tiny_folder, tmp_path, capsys, stopped):
    ask(stranger, tiny_folder, data={"folder": "s3://stranger/data"})
    assert command("--resume", "r", "--out", stranger.parent, "--data", tiny_folder) == 2
    assert "it would go on from here" in capsys.readouterr().err


def test_a_search_remembers_what_its_user_named_and_its_folder_may_move(
    tmp_path, tiny_folder, mark, capsys, monkeypatch
):
    (tmp_path / "mine.py").write_text(SPACE.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver.Probe, "__init__", lambda *_: None)
    monkeypatch.setattr(driver.Probe, "findings", lambda *_: Findings(2, 0, "here it ends", None, None))
    arguments = ["--space", "mine.py", "--data", tiny_folder, "--mlflow", "file:/nowhere", "--storage", tmp_path / "st"]
    assert command(*arguments, "--name", "r") == 2
    assert "here it ends" in capsys.readouterr().err
    folder = tmp_path / "elsewhere" / "other"
    made = Searched(folder)
    made.done()
    ask(folder, tiny_folder, space="mine.py", mlflow="file:/nowhere", storage=str(tmp_path / "st"))
    mark.unlink()
    command("--resume", "other", "--out", folder.parent)
    assert "you have not typed" not in capsys.readouterr().err
    assert mark.exists()


def test_nothing_is_remembered_of_a_dry_run(tmp_path, tiny_folder, mark, monkeypatch):
    (tmp_path / "mine.py").write_text(SPACE.format(mark=str(mark)))
    monkeypatch.setattr(dry_run, "dry_run", lambda settings: 0)
    command("--space", tmp_path / "mine.py", "--data", tiny_folder, "--dry-run")
    [choice] = choices_of(
        SearchSettings(space=str(tmp_path / "mine.py"), space_files=space_files(str(tmp_path / "mine.py")))
    )
    assert not is_remembered(choice)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """No choice is remembered at the start of a test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


CHOICE = Choice("--mlflow", "http://host:5000", "http://host:5000")


def test_the_files_are_private(state):
    before = os.umask(0)
    try:
        remember([CHOICE])
    finally:
        os.umask(before)
    assert is_remembered(CHOICE)
    for path in [state / "digit-search", *(state / "digit-search").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert not is_remembered(Choice("--storage", *CHOICE[1:]))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"flag": "--mlflow"}', b"[" * 100_000])
def test_a_damaged_file_only_means_that_the_flag_is_asked_for(state, content):
    remember([CHOICE])
    [path] = [path for path in state.rglob("*") if path.is_file()]
    path.write_bytes(content)
    assert not is_remembered(CHOICE)
    remember([CHOICE])
    assert is_remembered(CHOICE)


def test_a_home_that_cannot_be_written_remembers_nothing(state):
    state.write_text("no folder")
    remember([CHOICE])
    assert not is_remembered(CHOICE)
    assert state.read_text() == "no folder"


def test_searches_side_by_side_remember_all_they_were_told(state):
    from concurrent.futures import ThreadPoolExecutor

    choices = [Choice("--mlflow", str(number), str(number)) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: remember([one, *choices[:5]]), choices))
    assert all(map(is_remembered, choices))
    assert not list(state.rglob("*.half"))


def test_what_others_may_write_is_not_believed(state):
    remember([CHOICE])
    [path] = [path for path in state.rglob("*") if path.is_file()]
    path.chmod(0o666)
    assert not is_remembered(CHOICE)


def test_loopback_by_any_name_and_data_of_this_machine_need_no_word(tmp_path):
    for host in ("127.0.0.1", "localhost", "::1"):
        assert choices_of(SearchSettings(space="anchors", dashboard_host=host, data=data_source(str(tmp_path)))) == []
