"""Tells another program when a search ends or stalls: a POST to an address, or a command. It never ends a search."""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from digits_core.credentials import NOTIFY_VARIABLE, REMOVED
from digits_core.errors import UsageError, printable, reason_of
from results.record.run import RunRecord
from search.machine.cost import hours_words
from search.speaker import Speaker

TIMEOUT_SECONDS = 10.0
"""How long a server or a command may take."""

STALL_FACTOR, STALL_LEAST_SECONDS, STALL_FIRST_SECONDS = 3.0, 600.0, 3600.0
"""See `is_stalled`."""

LOOK_SECONDS = 5.0
"""Pause between two looks at whether the search has stalled."""

State = Literal["finished", "stopped", "failed", "stalled"]

_WORDS: dict[State, str] = {
    "finished": "finished after",
    "stopped": "was stopped by the user after",
    "failed": "failed after",
    "stalled": "has stalled: no epoch has finished for",
}

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class News:
    """What is told.

    Attributes:
        run: name of the run.
        state: `finished`, `stopped` by the user, `failed` or `stalled`.
        best_trial: the best trial so far; None before the first score.
        metric: the metric of the run.
        value: the score of the best trial.
        verdict: whether its difference to the others is real, in a sentence; why a search failed.
        seconds: time since the start; of a stall, time since the last epoch.
    """

    run: str
    state: State
    best_trial: str | None
    metric: str
    value: float | None
    verdict: str | None
    seconds: float

    @property
    def text(self) -> str:
        """Everything in a line, for people."""
        best = f"; best {self.best_trial}, {self.metric} {self.value:.3f}" if self.value is not None else ""
        told = f"{self.run} {_WORDS[self.state]} {hours_words(self.seconds)}{best}"
        return f"{told}. {self.verdict}" if self.verdict else told


def news_of(record: RunRecord, state: State, seconds: float, verdict: str | None = None) -> News:
    """The news of a run; the values are as in `News`."""
    winner = record.winner()
    value = None if winner is None else record.standing(winner)
    trial = None if winner is None else winner.trial_id
    return News(record.run, state, trial, record.metric, value, verdict, round(seconds, 1))


def is_stalled(quiet_s: float, longest_s: float | None) -> bool:
    """Whether a search has stalled.

    It has if no epoch has finished for three times the longest epoch so far, and for at least ten minutes; before the
    first epoch, whose length nobody knows, after an hour.

    Args:
        quiet_s: seconds since the last epoch finished, or since the start.
        longest_s: seconds of the longest epoch so far; None before the first.
    """
    if longest_s is None:
        return quiet_s >= STALL_FIRST_SECONDS
    return quiet_s >= max(STALL_FACTOR * longest_s, STALL_LEAST_SECONDS)


def check_target(target: str) -> None:
    """Check the value of `--notify`; asks no server, and runs no command.

    Raises:
        UsageError: it is empty, or an address that is not http:// or https://.
    """
    scheme = _ADDRESS.match(target)
    if not target.strip():
        raise UsageError("--notify: is empty; give an address (https://...) or a command")
    if scheme is None:
        return
    try:
        parts = urlsplit(target)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a wrong port or IPv6 address
        right = False
    if not right:
        raise UsageError(f"--notify: {_place(target)} is no address to send to; an address is https://HOST/...")


def notify_target(given: str | None) -> str | None:
    """The value of `--notify`, or of its environment variable; None tells nobody.

    Raises:
        UsageError: it is no address to send to, and no command.
    """
    target = os.environ.get(NOTIFY_VARIABLE) or None if given is None else given
    if target is not None:
        check_target(target)
    return target


def deliver(target: str, news: News) -> str | None:
    """Tell an address or a command; returns what went wrong, without the path and the credentials of the address."""
    return _post(target, news) if _ADDRESS.match(target) else _run(target, news)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its content: it is an error."""

    def redirect_request(self, *unused: Any) -> None:
        """Follow none."""


def _post(target: str, news: News) -> str | None:
    parts = urlsplit(target)
    host = parts.netloc.rpartition("@")[2]
    headers = {"Content-Type": "application/json", "User-Agent": "digit-search"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    body = json.dumps({"text": news.text, **asdict(news)}).encode()
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), body, headers)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"{_place(target)} answered with the error {error.code}"
    except (OSError, ValueError, HTTPException) as error:  # the texts of some of them repeat the address
        known = error.reason if isinstance(error, urllib.error.URLError) else error
        reason = reason_of(known) if isinstance(known, OSError) else "the address is not valid"
        return f"{_place(target)} cannot be reached ({reason})"


def _place(target: str) -> str:
    """Scheme and host of an address: its path can be a secret, too."""
    scheme, _, rest = target.partition("://")
    host = re.split("[/?#]", rest)[0]
    if "@" in rest and "@" not in host:  # a password with a slash
        return f"{scheme}://{REMOVED}"
    return printable(f"{scheme}://{host.rpartition('@')[2]}")


def _run(command: str, news: News) -> str | None:
    values = {"text": news.text, **asdict(news)}
    told = {f"DIGIT_SEARCH_{name.upper()}": "" if one is None else str(one) for name, one in values.items()}
    try:
        child = subprocess.Popen(
            command,
            shell=True,
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the search, and not the command that tells of it
        )
    except (OSError, ValueError) as error:
        return f"the command cannot be started ({reason_of(error)})"
    try:
        code = child.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"the command did not end within {TIMEOUT_SECONDS:g} s"
    return f"the command ended with the exit code {code}" if code else None


class Notifier(Speaker):
    """Tells of the end of a search, and of stalls while it runs, from a thread of its own.

    It is a watcher (`search.monitor.watchers`); an error that leaves its with block is told as a failure.
    """

    def __init__(self, target: str | None, record: RunRecord, say: Callable[[str], None]) -> None:
        """Tell an address or a command.

        Args:
            target: the address or command; None tells nobody.
            record: the record of the run.
            say: prints a sentence for the user.
        """
        super().__init__(say)
        self._target, self._record = target, record
        self._started = self._last = time.monotonic()
        self._longest: float | None = None
        self._epochs, self._stalled, self._told = -1, False, False
        self._watching = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="notify", daemon=True)

    def __enter__(self) -> "Notifier":
        """Start looking for stalls."""
        if self._target is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Tell of a failure, or of a second Ctrl-C, unless the end is told already."""
        stopped = error is None or isinstance(error, KeyboardInterrupt | SystemExit)
        self.end("stopped" if stopped else "failed", None if error is None or stopped else reason_of(error))

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed: an epoch may have finished."""
        trials = record.trials.values() if self._epochs < 0 else [record.trials[trial_id]]
        lengths = [float(one["epoch_seconds"] or 0) for trial in trials for one in trial.epochs.values()]
        self._longest = max([*lengths, *([] if self._longest is None else [self._longest])], default=None)
        epochs = len(record.arrivals)
        if epochs != self._epochs:
            self._epochs, self._last, self._stalled = epochs, time.monotonic(), False
        self._watching.set()

    def close(self, record: RunRecord) -> None:
        """All trials have ended: what follows has no epochs."""
        self._watching.clear()

    def end(self, state: State, verdict: str | None = None) -> None:
        """Tell of the end of the search, once; waits for the answer, but not long."""
        self._ended.set()
        if self._target is None or self._told:
            return
        self._told = True
        seconds = time.monotonic() - self._started
        job = threading.Thread(target=self._deliver, args=(state, seconds, verdict), daemon=True)
        job.start()
        job.join(TIMEOUT_SECONDS + 1)
        if job.is_alive():  # a name server, or a server that sends a byte now and then
            self._say(f"--notify: no answer within {TIMEOUT_SECONDS:g} s")

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            quiet = time.monotonic() - self._last
            if not self._stalled and self._watching.is_set() and is_stalled(quiet, self._longest):
                self._stalled = True
                self._deliver("stalled", quiet, None)

    def _deliver(self, state: State, seconds: float, verdict: str | None) -> None:
        assert self._target is not None
        news = None
        while news is None:
            with contextlib.suppress(RuntimeError):  # the record has grown at this moment
                news = news_of(self._record, state, seconds, verdict)
        fault = deliver(self._target, news)
        if fault is not None:
            self._say(f"--notify: {fault}; the search {'continues' if state == 'stalled' else 'is not affected'}")
