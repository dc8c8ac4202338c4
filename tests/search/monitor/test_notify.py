"""What is told of a search, to a real server and by a real command."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from history import History

from conftest import introduce, report
from digits_core.errors import UsageError
from results.record.log import EventWriter
from results.record.run import RunRecord
from search import retrain, run
from search.cli.run_folder import describe_run
from search.cli.settings import SearchSettings, make_plan
from search.monitor import notify
from search.monitor.notify import News, Notifier, check_target, deliver, is_stalled, news_of, notify_target

PATIENCE = 60.0

NEWS = News("anchors-1", "finished", "t0003", "val_map", 0.7531, "Only one training per configuration so far.", 720.0)


@contextmanager
def server(code=200, delay=0.0):
    """A local server that keeps what it gets in `.got` and answers with a status code after a while."""
    got, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), json.loads(body)))
            ended.wait(delay)
            self.send_response(code)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.got, one.host = got, f"127.0.0.1:{one.server_address[1]}"
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield one
    finally:
        ended.set()
        one.shutdown()
        one.server_close()
        thread.join()


def wait_for(holds):
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def record(tmp_path):
    """The record of a search with one score."""
    (tmp_path / "r").mkdir()
    events = EventWriter(tmp_path / "r", "r")
    events.write("run", metric="val_map")
    introduce(events, "t0000")
    events.write("report", trial_id="t0000", **report(1, 0.5))
    events.close()
    return events.record


def test_a_server_gets_the_facts_and_a_text_for_people():
    with server() as one:
        assert deliver(f"http://{one.host}/hooks/abc?x=1", NEWS) is None
    [(path, headers, told)] = one.got
    assert path == "/hooks/abc?x=1"
    assert headers["Content-Type"] == "application/json"
    assert told == {
        "text": "anchors-1 finished after 12 min; best t0003, val_map 0.753. "
        "Only one training per configuration so far.",
        "run": "anchors-1", "state": "finished", "best_trial": "t0003", "metric": "val_map", "value": 0.7531,
        "verdict": "Only one training per configuration so far.", "seconds": 720.0,
    }  # fmt: skip


def test_a_command_gets_the_facts_in_its_environment(tmp_path):
    out = tmp_path / "told"
    names = ("RUN", "STATE", "BEST_TRIAL", "METRIC", "VALUE", "VERDICT", "SECONDS", "TEXT")
    command = "; ".join(f'printf "%s\\n" "$DIGIT_SEARCH_{name}" >> {out}' for name in names)
    assert deliver(command, NEWS) is None
    assert out.read_text().splitlines() == [
        "anchors-1", "finished", "t0003", "val_map", "0.7531", NEWS.verdict, "720.0", NEWS.text,
    ]  # fmt: skip


def test_what_is_not_known_is_null_and_empty(tmp_path):
    history = History()
    news = news_of(history.record, "failed", 3.0, "the disk is full")
    with server() as one:
        deliver(f"http://{one.host}/", news)
    assert (one.got[0][2]["best_trial"], one.got[0][2]["value"]) == (None, None)
    assert one.got[0][2]["text"] == "told failed after 3 s. the disk is full"
    assert deliver(f'test -z "$DIGIT_SEARCH_VALUE" -a "$DIGIT_SEARCH_STATE" = failed > {tmp_path}/x', news) is None


def test_a_name_with_shell_characters_is_not_run(tmp_path):
    hostile = News("r", "finished", "t", "val_map", 0.5, f"$(touch {tmp_path}/owned) `touch {tmp_path}/owned`", 1.0)
    assert deliver(f'echo "$DIGIT_SEARCH_VERDICT" > {tmp_path}/said', hostile) is None
    assert [one.name for one in tmp_path.iterdir()] == ["said"]


def test_credentials_of_an_address_are_sent_as_a_header_and_never_told():
    with server(code=500) as one:
        fault = deliver(f"http://me:pa55%20word@{one.host}/secret-path?key=secret-key", NEWS)
    path, headers, _ = one.got[0]
    assert (path, headers["Authorization"]) == ("/secret-path?key=secret-key", "Basic bWU6cGE1NSB3b3Jk")
    assert fault == f"http://{one.host} answered with the error 500"


@pytest.mark.parametrize("target", [
    "http://me:{s}@127.0.0.1:9/{s}", "http://127.0.0.1:9/{s}?key={s}", "http://me:{s}/{s}@127.0.0.1:9/x",
    "http://127.0.0.1:9/{s}\n", "http://127.0.0.1:9/ä{s}", "http://me:{s}@[::1]:9/{s}@{s}",
])  # fmt: skip
def test_an_address_that_fails_is_told_without_its_secrets(target):
    fault = deliver(target.format(s="pa55word"), NEWS)
    assert fault
    assert "pa55word" not in fault


def test_a_redirect_is_a_fault_because_it_would_lose_the_content():
    with server(code=302) as one:
        assert deliver(f"http://{one.host}/", NEWS) == f"http://{one.host} answered with the error 302"


def test_a_slow_server_and_a_slow_command_are_given_up(monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 0.2)
    with server(delay=PATIENCE) as one:
        assert "cannot be reached (timed out)" in deliver(f"http://{one.host}/", NEWS)
    assert deliver("sleep 60", NEWS) == "the command did not end within 0.2 s"


def test_a_command_that_fails_is_told_by_its_exit_code():
    assert deliver("exit 3", NEWS) == "the command ended with the exit code 3"


@pytest.mark.parametrize(
    ("quiet", "longest", "stalled"),
    [
        (599, 1.0, False),  # never before ten minutes
        (600, 1.0, True),
        (600, 199.0, True),
        (600, 201.0, False),  # three times the longest epoch
        (603, 201.0, True),
        (3599, None, False),  # the first epoch may be long
        (3600, None, True),
    ],
)
def test_a_search_has_stalled_after_three_times_its_longest_epoch(quiet, longest, stalled):
    assert is_stalled(quiet, longest) == stalled


def test_the_end_is_told_once_with_the_best_trial(record):
    said = []
    with server() as one, Notifier(f"http://{one.host}/", record, said.append) as notifier:
        notifier.update(record, "t0000")
        notifier.end("finished", "clear lead")
    [(_, _, told)] = one.got
    assert (told["state"], told["best_trial"], told["value"], told["verdict"]) == (
        "finished", "t0000", 0.5, "clear lead",
    )  # fmt: skip
    assert said == []


@pytest.mark.parametrize(
    ("error", "state", "verdict"),
    [(UsageError("the disk is full"), "failed", "the disk is full"), (KeyboardInterrupt(), "stopped", None)],
)
def test_an_error_is_told_as_a_failure_and_a_second_ctrl_c_as_a_stop(record, error, state, verdict):
    with server() as one, pytest.raises(type(error)), Notifier(f"http://{one.host}/", record, print):
        raise error
    [(_, _, told)] = one.got
    assert (told["state"], told["verdict"]) == (state, verdict)


def test_a_stall_is_told_once_until_the_next_epoch(record, monkeypatch):
    monkeypatch.setattr(notify, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(notify, "STALL_LEAST_SECONDS", 0.2)
    monkeypatch.setattr(notify, "STALL_FACTOR", 0.0)
    with server() as one, Notifier(f"http://{one.host}/", record, print) as notifier:
        time.sleep(0.3)
        assert one.got == []  # nothing has started
        notifier.update(record, "t0000")
        wait_for(lambda: one.got)
        time.sleep(0.3)
        assert [told["state"] for _, _, told in one.got] == ["stalled"]
        again = {"n": record.num_events + 1, "time": "2026-01-31T12:00:00+00:00", "kind": "report"}
        record.apply({**again, "trial_id": "t0000", **report(2, 0.6)})
        notifier.update(record, "t0000")
        wait_for(lambda: len(one.got) == 2)
        notifier.close(record)
        notifier.end("finished")
    assert [told["state"] for _, _, told in one.got] == ["stalled", "stalled", "finished"]


def test_nobody_is_told_without_a_target_and_a_failure_is_one_line(record):
    said = []
    with Notifier(None, record, said.append) as notifier:
        notifier.end("finished")
    assert said == []
    with Notifier("exit 7", record, said.append) as notifier:
        notifier.end("finished")
    assert said == ["--notify: the command ended with the exit code 7; the search is not affected"]


def test_a_server_that_never_ends_its_answer_does_not_hold_the_search(record, monkeypatch):
    said = []
    monkeypatch.setattr(notify, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(notify, "deliver", lambda *_: time.sleep(5))
    before = time.monotonic()
    with Notifier("http://127.0.0.1:9/", record, said.append) as notifier:
        notifier.end("finished")
    assert time.monotonic() - before < 4
    assert said == ["--notify: no answer within 0.1 s"]


@pytest.mark.parametrize("target", ["mail -s done me@example.org", "curl https://example.org", "https://a.b/c", "a:b"])
def test_addresses_and_commands_are_accepted(target):
    check_target(target)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("", "is empty"), (" ", "is empty"), ("htps://host/x", "htps://host is no address"),
        ("https:///x", "is no address"), ("http://host:port/secret", "http://host:port is no address"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_told_is_refused_before_the_search(target, words, tmp_path, capsys, monkeypatch):
    with pytest.raises(UsageError, match=words) as caught:
        check_target(target)
    assert "secret" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    assert run.main(["--space", "lr_schedules", "--notify", target]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_retraining_checks_its_target_before_it_looks_for_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert retrain.main(["nowhere", "--notify", "ftp://host/x"]) == 2
    assert "--notify: ftp://host is no address to send to" in capsys.readouterr().err


def test_a_value_with_credentials_belongs_in_the_environment(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run.main(["--space", "lr_schedules", "--notify", "https://me:pa55word@host/x"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "DIGIT_SEARCH_NOTIFY" in error
    assert "pa55word" not in error
    monkeypatch.setenv("DIGIT_SEARCH_NOTIFY", "https://me:pa55word@host/x")
    assert notify_target(None) == "https://me:pa55word@host/x"
    assert notify_target("true") == "true"
    monkeypatch.setenv("DIGIT_SEARCH_NOTIFY", "")
    assert notify_target(None) is None


def test_run_json_does_not_keep_the_target(tiny_data):
    settings = SearchSettings(space="lr_schedules")
    for typed in (["--notify", "https://host/hook-path", "--quiet"], ["--notify=https://host/hook-path", "--quiet"]):
        about = describe_run(settings, make_plan(settings), tiny_data, ["python", "-m", "search.run", *typed])
        assert "hook-path" not in json.dumps(about)
        assert about["command"][-1] == "--quiet"


def test_a_run_without_trials_can_be_told():
    assert news_of(RunRecord("r"), "stopped", 5.0).text == "r was stopped by the user after 5 s"
