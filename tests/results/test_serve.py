"""The served report page: real requests to a real server."""

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from told import told_run

from conftest import introduce
from results import report
from results.record.log import EventWriter
from results.serve import LivePage, ReportServer, tunnel_command
from results.views.note import NOTE_FILE, TAGS_FILE

pytestmark = pytest.mark.timeout(300)

PATIENCE = 60.0
"""Longest wait for something that takes about a second."""


@contextmanager
def served(*folders):
    """A server of the page of one or several runs, in a thread of its own."""
    server = ReportServer(LivePage(list(folders), report.render), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("runs") / "told", trials=3)


@pytest.fixture(scope="module")
def server(folder):
    with served(folder) as one:
        yield one


def answer(server, path, **headers):
    """Status, headers and text of the answer to a request."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    got = connection.getresponse()
    body = got.read()
    zipped = got.headers["Content-Encoding"] == "gzip"
    return got.status, got.headers, (gzip.decompress(body) if zipped else body).decode()


@contextmanager
def stream(server):
    """The lines of the stream of versions."""
    address = server.address.replace("/?", "/events?")
    with urllib.request.urlopen(address, timeout=PATIENCE) as opened:
        assert opened.headers["Content-Type"].startswith("text/event-stream")
        yield opened


def next_version(lines):
    """The next version in a stream; signs of life are skipped."""
    while True:
        line = lines.readline().decode()
        assert line, "the stream has ended"
        if line.startswith("data: "):
            return int(line.removeprefix("data: "))


def wait_for(holds):
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def state_of(folder):
    """Every file of a folder with its size and its time of change."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_the_page_is_served_with_the_token_and_never_stored(server):
    with urllib.request.urlopen(server.address, timeout=PATIENCE) as got:
        text = got.read().decode()
    assert got.headers["Cache-Control"] == "no-store"
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert text.startswith("<!doctype html>")
    assert 'data-live="1"' in text
    assert "connect-src 'self'" in text
    assert server.token not in text


def test_the_content_lacks_only_the_library_of_the_figures(server):
    _, _, whole = answer(server, f"/?token={server.token}")
    _, _, content = answer(server, f"/content?token={server.token}")
    assert len(content) < len(whole) / 4
    assert content[: content.index('id="plotly"')] == whole[: whole.index('id="plotly"')]


def test_a_browser_gets_the_page_compressed(server):
    path = f"/?token={server.token}"
    _, plain, text = answer(server, path)
    _, zipped, same = answer(server, path, Accept_Encoding="gzip, deflate")
    assert (text, plain["Content-Encoding"], zipped["Content-Encoding"]) == (same, None, "gzip")
    assert int(zipped["Content-Length"]) < int(plain["Content-Length"]) / 2


@pytest.mark.parametrize("path", ["/", "/content", "/events", "/run.json"])
@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%C3%A9", "?other={token}"])
def test_a_request_without_the_token_is_refused(server, path, query):
    status, _, text = answer(server, path + query.format(token=server.token))
    assert status == 403
    assert server.token not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "127.0.0.1@evil"])
def test_a_foreign_host_is_refused_even_with_the_token(server, host):
    assert answer(server, f"/?token={server.token}", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "LOCALHOST"])
def test_the_names_of_this_machine_are_accepted_at_any_port_of_a_tunnel(server, host):
    assert answer(server, f"/content?token={server.token}", Host=host)[0] == 200


@pytest.mark.parametrize("path", ["/run.json", "/events.jsonl", "/../run.json", "/runs/", "//etc/passwd"])
def test_no_file_and_no_listing_is_served(server, path):
    assert answer(server, f"{path}?token={server.token}")[0] == 404


def test_it_listens_on_loopback_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert tunnel_command(8000).startswith("ssh -L 8000:127.0.0.1:8000 ")


def test_each_server_has_its_own_token(server, folder):
    with served(folder) as other:
        assert other.token != server.token
        assert answer(other, f"/?token={server.token}")[0] == 403


def test_a_change_of_the_record_is_an_event_for_every_reader_and_changes_the_content(tmp_path):
    folder = told_run(tmp_path / "runs" / "live", trials=3)
    events = EventWriter(folder, "live")
    with served(folder) as server, stream(server) as one, stream(server) as other:
        first = next_version(one)
        assert next_version(other) == first
        assert "t0950" not in answer(server, f"/content?token={server.token}")[2]
        introduce(events, "t0950")
        assert next_version(one) > first
        assert next_version(other) > first
        assert "t0950" in answer(server, f"/content?token={server.token}")[2]
    events.close()


def test_a_new_note_or_tag_is_a_change_too(tmp_path):
    folder = told_run(tmp_path / "runs" / "told", trials=2)
    live = LivePage([folder], lambda runs, live: "")
    for number, file in enumerate((NOTE_FILE, TAGS_FILE), start=1):
        (folder / file).write_text("words")
        live.look()
        assert live.version == 1 + number


def test_a_reader_that_leaves_leaves_no_thread(folder):
    with served(folder) as server:
        before = threading.active_count()
        for _ in range(3):
            with stream(server) as lines:
                next_version(lines)
                assert threading.active_count() > before
        wait_for(lambda: threading.active_count() <= before)


def test_the_end_of_the_server_ends_its_streams(folder):
    before = threading.active_count()
    with served(folder) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        path = urlsplit(server.address.replace("/?", "/events?"))
        connection.sendall(f"GET {path.path}?{path.query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        connection.recv(10)
    wait_for(lambda: threading.active_count() <= before)
    connection.close()


def test_a_record_that_is_damaged_meanwhile_is_an_answer_and_the_next_page_is_whole_again(tmp_path):
    folder = told_run(tmp_path / "runs" / "hurt", trials=3)
    events = folder / "events.jsonl"
    whole = events.read_bytes()
    with served(folder) as server:
        assert answer(server, f"/content?token={server.token}")[0] == 200
        events.write_bytes(whole + b"nonsense\n")
        wait_for(lambda: answer(server, f"/content?token={server.token}")[0] == 500)
        assert "is damaged" in answer(server, f"/content?token={server.token}")[2]
        events.write_bytes(whole)
        wait_for(lambda: answer(server, f"/content?token={server.token}")[0] == 200)


def test_nothing_is_written_into_the_run_folder(tmp_path):
    folder = told_run(tmp_path / "runs" / "ended", trials=3)
    before = state_of(folder)
    with served(folder) as server:
        assert answer(server, f"/?token={server.token}")[0] == 200
    assert state_of(folder) == before


def test_a_served_comparison_writes_into_no_run_folder(tmp_path):
    folders = [told_run(tmp_path / name, trials=3) for name in ("one", "other")]
    before = [state_of(folder) for folder in folders]
    with served(*folders) as server:
        _, _, text = answer(server, f"/?token={server.token}")
    assert all(folder.name in text for folder in folders)
    assert [state_of(folder) for folder in folders] == before


def test_the_command_says_the_address_and_the_tunnel_and_ends_with_ctrl_c(folder):
    command = [sys.executable, "-u", "-m", "results.report", str(folder), "--serve"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env=os.environ, start_new_session=True,
    ) as child:  # fmt: skip
        address = child.stdout.readline().split()[4]
        with urllib.request.urlopen(address, timeout=PATIENCE) as got:
            assert got.status == 200
        port = urlsplit(address).port
        assert f"ssh -L {port}:127.0.0.1:{port} " in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, errors) == (0, "the report is no longer served\n", "")


def test_a_port_in_use_is_one_sentence(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert report.main([str(folder), "--serve", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error == f"results.report: --port {port}: is in use; omit the flag to use a free one\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "8000"], "--port 8000: has an effect only together with --serve"),
        (["--serve", "--watch"], "--watch: has no effect with --serve, which writes no file"),
        (["--serve", "-o", "x.html"], "-o: has no effect with --serve, which writes no file"),
        (["--serve", "--port", "80"], "must be a port from 1024 to 65535, got '80'"),
    ],
)
def test_flags_that_do_not_fit_are_one_sentence(flags, words, folder, capsys):
    try:
        code = report.main([str(folder), *flags])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
