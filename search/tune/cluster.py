"""Start Ray on this machine or join a running cluster."""

import contextlib
import errno
import logging
import os
import random
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits_core.errors import UsageError, printable, reason_of, refuse_credentials
from search.defaults import LOOPBACK, LOOPBACK_NAMES
from search.tune.slots import Resources
from search.tune.token import make_token, token_file, token_warning

OBJECT_STORE_BYTES = 256 * 2**20
"""Trials share images through mapped files and checkpoints through folders, nothing through the store."""

WORKER_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # or it asks the network for a newer version
    "RAY_USAGE_STATS_ENABLED": "0",  # or Ray reports usage
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # or relative paths of the user break in trials
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a stopped trial's thread must end before its process is reused
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # our own record is the one that counts
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files: ours say it better, once
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the run tidily
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that this driver is connected to.

    Attributes:
        nodes: what each has, by Ray's name of it.
        dashboard: its address, or None without one.
    """

    nodes: Mapping[str, Resources]
    dashboard: str | None


def check_dashboard_port(port: int | None, host: str = LOOPBACK) -> None:
    """See that the dashboard can listen at a port of a host; None leaves the port to Ray: the first free one from 8265.

    Raises:
        UsageError: the port is taken, or the host is none of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port or 0))
        except socket.gaierror as error:
            raise UsageError(f"--dashboard-host {printable(host)}: {error.strerror}") from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--dashboard-host {printable(host)}: no address of this machine") from None
            raise UsageError(f"--dashboard-port {port} is busy; leave the flag out to take a free one") from None


STARTS = 3
"""Attempts to start Ray: two searches that begin in the same moment take each other's ports."""

EXIT_WITHOUT_RAY = 1
"""Exit code of a search whose Ray was killed under it; --resume goes on."""


def prepare_environment(*, joins: bool) -> str | None:
    """Set what Ray reads from the environment, and its token; before its first import.

    Args:
        joins: the search joins a running cluster; then it logs in with the user's token where there is one,
            as Ray does by itself for its own clusters and for `auto` alone.

    Returns:
        What a person should know whose token others can read; None where nobody can.
    """
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not joins:  # no other machine is to join: everything listens on loopback, as Ray does on laptops of its own
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        make_token()
    if joins and ("RAY_AUTH_TOKEN" in os.environ or token_file().is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return token_warning()


@contextlib.contextmanager
def watched(say: Callable[[str], None], code: Callable[[], int]) -> Iterator[None]:
    """End this process with a sentence when a process of its own Ray dies: Ray itself would end it without a word.

    Args:
        say: told the sentence.
        code: gives the exit code.
    """
    import ray._private.worker

    node = ray._private.worker._global_node
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for kind, processes in list(node.all_processes.items()):
                if kind in ("raylet", "gcs_server") and any(one.process.poll() is not None for one in processes):
                    if not ended.is_set():
                        say(f"Ray's {kind} on this machine was killed")
                        os._exit(code())
                    return

    thread = threading.Thread(target=watch, daemon=True)
    if node is not None and node.head:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


@contextlib.contextmanager
def connected(
    address: str | None, *, machine: Mapping[str, float], host: str = LOOPBACK, port: int | None = None
) -> Iterator[Cluster]:
    """A Ray cluster for the time of a run: started here on loopback, or joined at `address`.

    Args:
        address: of a running cluster; None starts one.
        machine: what a cluster started here has.
        host: what its dashboard listens on.
        port: of its dashboard; None for the first free one from 8265.

    Raises:
        UsageError: no cluster answers at `address`, or none starts.
    """
    import ray

    if address is not None:
        check_address(address)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        with _signals_kept():
            context = _start_ray(machine, host, port, quiet)
    else:
        try:
            with _signals_kept():
                context = ray.init(address=address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, **quiet)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"--address {address}: no Ray cluster can be joined there ({reason_of(error)}); one with token login "
                "wants its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
            ) from None
    try:
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        yield Cluster(nodes, context.dashboard_url)
    finally:
        ray.shutdown()


def check_dashboard(host: str) -> str | None:
    """What a person should know who lets others reach the dashboard; None on loopback.

    Raises:
        UsageError: others could reach it without logging in.
    """
    if host in LOOPBACK_NAMES:
        return None
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise UsageError(
            f"--dashboard-host {printable(host)}: RAY_AUTH_MODE is not 'token', and without a login whoever reaches "
            "the dashboard runs code here; unset it"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    return (
        f"warning: the dashboard listens on {printable(host)}. Ray's job API runs code as you for whoever reaches it "
        "with the token, and what is sent there is not encrypted: open it to networks that you trust"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the handlers of signals: `ray.init` replaces that of SIGTERM, and its own ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_ray(machine: Mapping[str, float], host: str, port: int | None, quiet: dict[str, Any]) -> Any:
    """Start Ray on loopback; again, with other ports, where another search took them in the same moment.

    Raises:
        UsageError: it does not start.
    """
    import ray

    # Ray starts its workers through a shell, by this path as it is.
    python = shlex.quote(sys.executable)
    special = {} if python == sys.executable else {"runtime_env": {"py_executable": python}}
    for attempt in range(1, STARTS + 1):
        before = _children()
        try:
            return ray.init(
                address="local",
                num_cpus=int(machine["CPU"]),
                num_gpus=int(machine["GPU"]),
                include_dashboard=True,
                dashboard_host=host,
                dashboard_port=port,
                object_store_memory=OBJECT_STORE_BYTES,
                **special,
                **quiet,
            )
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            for pid in _children() - before:  # which knows nothing of what a start left behind that broke off
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if attempt == STARTS:
                raise UsageError(
                    f"Ray did not start on this machine ({reason_of(error)}); where it is very busy, try again later"
                ) from None
            time.sleep(random.uniform(0.5, 3.0))
    raise AssertionError("the last attempt returns or raises")


def _children() -> set[int]:
    """The processes that this one has started; empty where the system does not say."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in path.read_text(encoding="ascii").split()}
    return found


def check_address(address: str) -> None:
    """See that something listens at HOST:PORT: Ray itself would try for many minutes.

    Raises:
        UsageError: nothing does, or the address has another form or holds credentials.
    """
    if address == "auto":
        return
    refuse_credentials("--address", address)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--address takes auto or HOST:PORT, got '{printable(address)}'")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--address {address}: no Ray cluster answers there ({reason})") from None
