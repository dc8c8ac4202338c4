"""A password in an address is refused, and repeated by nothing: no message, no log, no run folder."""

import json

import pytest

from digits_core.data import command as data
from digits_core.data.cache import open_data
from digits_core.data.remote import open_place
from digits_core.data.source import DataSource
from digits_core.errors import UsageError, printable, reason_of
from results import leaderboard
from search import retrain, run
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import storage_address
from search.monitor.mlflow import MLflow, check_mlflow
from search.monitor.tracker import Change
from search.monitor.watchers import Watchers
from search.policy.faults import classify
from search.tune.cluster import check_address

SECRET = "pa55word"

SPACE = ["--space", "lr_schedules"]
MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (run.main, [*SPACE, "--mlflow", "http://me:{}@host:5000"], MLFLOW),
        (run.main, [*SPACE, "--mlflow=http://me:{}@host:5000"], MLFLOW),
        (run.main, [*SPACE, "--mlflow", "http://host:5000?token={}"], MLFLOW),
        (run.main, [*SPACE, "--mlflow", "me:{}@host:5000"], MLFLOW),
        (run.main, [*SPACE, "--data", "s3://AKIA:{}/with+slash@bucket/svhn"], "AWS_SECRET_ACCESS_KEY"),
        (run.main, [*SPACE, "--storage", "s3://bucket/runs?secret_key={}"], "AWS_SECRET_ACCESS_KEY"),
        (run.main, [*SPACE, "--address", "ray://me:{}@host:10001"], "RAY_AUTH_TOKEN"),
        (run.main, [*SPACE, "--address", "me:{}@host:10001"], "RAY_AUTH_TOKEN"),
        (run.main, [*SPACE, "--from", "s3://me:{}@bucket/run"], "--from: the address contains credentials"),
        (run.main, [*SPACE, "--init-from", "s3://me:{}@bucket/run"], "--init-from: the address contains credentials"),
        (run.main, [*SPACE, "--out", "s3://me:{}@bucket/run"], "--out: the address contains credentials"),
        (run.main, [*SPACE, "--set", "model.weights=http://me:{}@host"], "--set: the address contains credentials"),
        (run.main, ["--resume", "r", "--mlflow", "http://me:{}@host"], MLFLOW),
        (run.main, [*SPACE, "--trackio", "http://me:{}@host"], "--trackio: the address contains credentials"),
        (run.main, ["--resume", "r", "--storage", "s3://me:{}@bucket/run"], "AWS_SECRET_ACCESS_KEY"),
        (run.main, ["--status", "s3://me:{}@bucket/run"], "--status: the address contains credentials"),
        (retrain.main, ["runs/r", "--data", "s3://me:{}@bucket/run"], "AWS_SECRET_ACCESS_KEY"),
        (leaderboard.main, ["s3://me:{}@bucket/run"], "the address contains credentials"),
        (data.main, ["check", "s3://me:{}@bucket/run"], "the address contains credentials"),
    ],
)
def test_an_argument_with_a_password_is_refused_and_not_repeated(main, arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main([one.format(SECRET) for one in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    assert code == 2
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert SECRET not in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_mlflow(f"http://me:{SECRET}@host"),
        lambda: check_mlflow(f"http://{SECRET}@host"),
        lambda: check_address(f"ray://me:{SECRET}@host:1"),
        lambda: storage_address(f"s3://me:{SECRET}@bucket"),
        lambda: open_place(f"gs://bucket/x?access_token={SECRET}", "--data"),
        lambda: open_data(DataSource(folder=f"s3://AKIA:{SECRET}/x@bucket/x")),
    ],
)
def test_settings_that_no_command_line_gave_are_checked_too(check):
    with pytest.raises(UsageError, match="contains credentials") as caught:
        check()
    assert SECRET not in str(caught.value)


def test_a_run_of_an_earlier_version_that_holds_a_password_is_not_gone_on_with(tmp_path, capsys):
    folder = tmp_path / "r"
    folder.mkdir()
    settings = SearchSettings(space="lr_schedules", mlflow=f"http://me:{SECRET}@host", name="r")
    tree = {"settings": settings.to_json(), "space": {"trials": 1}, "base_config": {"optim.epochs": 1}}
    (folder / "run.json").write_text(json.dumps(tree))
    assert run.main(["--resume", "r", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "--mlflow" in captured.err
    assert SECRET not in captured.out + captured.err


def test_the_command_in_run_json_holds_no_password(tiny_data):
    settings = SearchSettings(space="lr_schedules")
    command = ["python", "-m", "search.run", "--mlflow", f"http://me:{SECRET}@host", f"--x=s3://b?key={SECRET}"]
    assert SECRET not in json.dumps(describe_run(settings, make_plan(settings), tiny_data, command))


LOUD = f"HTTPError at http://me:{SECRET}@proxy:3128/x (url: /api?access_token={SECRET}&page=1)"


def test_what_a_library_says_is_told_without_its_passwords():
    for words in (printable(LOUD), reason_of(OSError(LOUD)), reason_of(OSError("x" * 290 + LOUD))):
        assert SECRET not in words
    assert "http://***@proxy:3128/x" in printable(LOUD)
    assert "access_token=***&page=1" in printable(LOUD)


def test_why_a_trial_failed_is_recorded_without_passwords():
    for text in (LOUD, f"Traceback\nRuntimeError: {LOUD}", f"OutOfMemoryError: {LOUD}", f"WorkerCrashedError: {LOUD}"):
        assert SECRET not in classify(text).reason


def test_a_tool_that_fails_is_named_without_passwords():
    said = []

    class Tool:
        def update(self, record, trial_id):
            raise RuntimeError(LOUD)

    Watchers([Tool()], said.append).update(None, "t0000")
    assert len(said) == 1
    assert SECRET not in said[0]


def test_mlflow_that_fails_is_named_without_passwords(monkeypatch):
    said = []
    monkeypatch.setattr("search.monitor.tracker.PAUSE_SECONDS", 0.0)

    class Loud(MLflow):
        def send(self, change):
            raise RuntimeError(LOUD)

    one = Loud("http://host", "r", "s", {}, "val_map", said.append)
    one._jobs.put(Change("t0000", "running", None, None, [], None))
    one.close(None)
    assert len(said) == 1
    assert SECRET not in said[0]
