"""Serves the report page of runs on 127.0.0.1 and tells open pages when a record has changed."""

import errno
import gzip
import hmac
import re
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from plotly.offline import get_plotlyjs

from digits_core.errors import UsageError, UserError, reason_of
from results.record.folder import LEADERBOARD_FILE, RUN_FILE
from results.record.lock import writer_of
from results.record.log import EVENTS_FILE
from results.views.note import NOTE_FILE, TAGS_FILE
from results.views.opened_run import open_run

HOST = "127.0.0.1"
"""The only address that the server listens on."""

LOOPBACK_HOSTS = (HOST, "localhost")
"""Names of this machine in a browser; any other name in a request is a foreign page (DNS rebinding)."""

LOOK_SECONDS = 0.5
"""Pause between two looks at the files of the runs, and at whether a reader is still connected."""

PAGE_SHARE = 0.1
"""The page is made again for at most this share of the time: training needs the processor."""

PING_SECONDS = 15.0
"""Pause between two signs of life, without which a tunnel may close."""

REQUEST_SECONDS, PART_BYTES = 30.0, 2**16
"""Time for a request to arrive, and for a reader to take each part of what is sent."""

WATCHED = (EVENTS_FILE, RUN_FILE, LEADERBOARD_FILE, NOTE_FILE, TAGS_FILE)

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_WITH_PORT = re.compile(r"(.+?)(?::\d{1,5})?")


class Page(NamedTuple):
    """One state of the page.

    Attributes:
        version: its number, from 1.
        whole: the page with the figures' library.
        content: the page without the library, which an open page has already.
    """

    version: int
    whole: bytes
    content: bytes


class LivePage:
    """The page of some runs; it is made when somebody reads it after a change. Writes nothing into the run folders."""

    def __init__(self, folders: Sequence[Path], make: Callable[..., str]) -> None:
        """Follow run folders; `make` renders the page of opened runs, for `live`, its number."""
        self._folders, self._make = folders, make
        self._making, self.changed = threading.Lock(), threading.Condition()
        self._page: Page | None = None
        self._seen, self.version, self._announced, self._took = self._state(), 1, time.monotonic(), 0.0

    def _state(self) -> list[Any]:
        """Changes when anything changes that the page shows."""
        found: list[Any] = []
        for folder in self._folders:
            for name in WATCHED:
                try:
                    known = (folder / name).stat()
                    found.append((known.st_size, known.st_mtime_ns))
                except OSError:
                    found.append(None)
            found.append(writer_of(folder))
        return found

    def look(self) -> None:
        """Announce a new version if the files have changed; waits after a page that took long to make."""
        if time.monotonic() - self._announced < self._took / PAGE_SHARE:
            return
        now = self._state()
        if now == self._seen:
            return
        with self.changed:
            self._seen, self.version, self._announced = now, self.version + 1, time.monotonic()
            self.changed.notify_all()

    def page(self) -> Page:
        """The page of the current version; simultaneous readers get the same one.

        Raises:
            RunError: a record or a table is damaged.
        """
        with self._making:
            version = self.version
            if self._page is None or self._page.version != version:
                started = time.monotonic()
                runs = [open_run(folder).without_writing() for folder in self._folders]
                whole = self._make(runs, live=version)
                content = whole.replace(get_plotlyjs(), "", 1)
                sent = (text.encode("utf-8", errors="replace") for text in (whole, content))
                self._page, self._took = Page(version, *sent), time.monotonic() - started
            return self._page


class ReportServer(ThreadingHTTPServer):
    """Answers `/` and `/content` with the page, and `/events` with a stream of its versions."""

    daemon_threads = True

    def __init__(self, live: LivePage, port: int) -> None:
        """Listen on 127.0.0.1.

        Args:
            live: the page.
            port: of the server; 0 takes a free one.

        Raises:
            UsageError: the port is in use, or needs more rights.
        """
        self.live, self.token, self.ended = live, secrets.token_urlsafe(24), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="report-watcher", daemon=True)
        try:
            super().__init__((HOST, port), _Reader)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(f"--port {port}: is in use; omit the flag to use a free one") from None
            raise UsageError(f"--port {port}: {error.strerror}") from None
        self._watcher.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The address of the page, with the token."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def _watch(self) -> None:
        while not self.ended.wait(LOOK_SECONDS):
            self.live.look()

    def server_close(self) -> None:
        """Close the socket and end all streams."""
        self.ended.set()
        super().server_close()
        if self._watcher.is_alive():
            self._watcher.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that leaves in the middle of an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Reader(BaseHTTPRequestHandler):
    """One request of a browser."""

    server: ReportServer
    timeout = REQUEST_SECONDS
    server_version, sys_version = "digit-search", ""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the request contains the token."""

    def do_GET(self) -> None:
        """Answer with the page or the stream; 403 without the token or with a foreign host."""
        parts = urlsplit(self.path)
        host = _WITH_PORT.fullmatch(self.headers.get("Host", ""))
        token = parse_qs(parts.query).get("token", [""])[0]
        if host is None or host[1].lower() not in LOOPBACK_HOSTS:
            self._refuse(403, f"this page is served only as {' or '.join(LOOPBACK_HOSTS)}")
        elif not hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode()):
            self._refuse(403, "the address needs the token that the command printed")
        elif parts.path == "/events":
            self._stream()
        elif parts.path in ("/", "/content"):
            self._send_page(whole=parts.path == "/")
        else:
            self._refuse(404, "there is only the report page here")

    def _send_page(self, *, whole: bool) -> None:
        try:
            page = self.server.live.page()
        except UserError as error:  # the page stays as it is until the record can be read again
            self._refuse(500, reason_of(error))
            return
        self._send(200, "text/html", page.whole if whole else page.content)

    def _refuse(self, code: int, words: str) -> None:
        self._send(code, "text/plain", f"{words}\n".encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self._begin(code, kind)
        if "gzip" in self.headers.get("Accept-Encoding", ""):  # a whole page has five million bytes
            body = gzip.compress(body, compresslevel=5)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), PART_BYTES):  # the time limit holds for each part
            self.wfile.write(body[start : start + PART_BYTES])

    def _begin(self, code: int, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        for name, value in HEADERS.items():
            self.send_header(name, value)

    def _stream(self) -> None:
        """Send the number of the current version, and of each next one, until the reader or the server ends."""
        live, sent, last = self.server.live, 0, time.monotonic()
        self._begin(200, "text/event-stream")
        self.end_headers()
        while not self.server.ended.is_set() and not self._has_left():
            if live.version != sent:
                sent, last = live.version, time.monotonic()
                self.wfile.write(f"event: version\ndata: {sent}\n\n".encode())
            elif time.monotonic() - last > PING_SECONDS:
                last = time.monotonic()
                self.wfile.write(b": still here\n\n")
            with live.changed:
                if live.version == sent:
                    live.changed.wait(LOOK_SECONDS)

    def _has_left(self) -> bool:
        """Whether the reader has closed the connection; it sends nothing after its request."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)


def tunnel_command(port: int) -> str:
    """The command that makes the page readable on another machine."""
    return f"ssh -L {port}:{HOST}:{port} {quote(socket.gethostname())}"


def serve(live: LivePage, port: int, say: Callable[[str], None], opened: Callable[[str], None]) -> int:
    """Serve the page of some runs until Ctrl-C; returns the exit code.

    Args:
        live: the page.
        port: of the server; 0 takes a free one.
        say: prints a sentence for the user.
        opened: called with the address of the page once it is served.

    Raises:
        UsageError: the port is in use.
        RunError: a record or a table is damaged.
    """
    live.page()  # a damaged run is an error of this command, not of the browser
    with ReportServer(live, port) as server:
        try:
            say(f"serving the report at {server.address} (Ctrl-C ends it)")
            say(f"from another machine: {tunnel_command(server.port)}, then open the same address there")
            opened(server.address)
            server.serve_forever(poll_interval=LOOK_SECONDS)
        except KeyboardInterrupt:
            say("the report is no longer served")
    return 0
