"""Starts Ray on this machine or joins a running cluster."""

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
"""Trials share images through memory-mapped files and checkpoints through folders: they do not use the object store."""

WORKER_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # no check for a newer version over the network
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends no usage statistics
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user stay valid in trials
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a stopped trial's thread must end before its process is reused
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # a resume uses our record, not Ray's state
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own files replace Ray's CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # our handler ends the run in order
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that this driver is connected to.

    Attributes:
        nodes: the resources of each node, by Ray's id.
        dashboard: the address of the dashboard, or None without one.
    """

    nodes: Mapping[str, Resources]
    dashboard: str | None


def check_dashboard_port(port: int | None, host: str = LOOPBACK) -> None:
    """Check that the dashboard can listen on a port of a host.

    Args:
        port: None lets Ray take the first free port from 8265.
        host: an address of this machine.

    Raises:
        UsageError: the port is in use, or the host is no address of this machine.
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
            raise UsageError(f"--dashboard-port {port} is in use; omit the flag to use a free one") from None


STARTS = 3
"""Attempts to start Ray: two searches that start at the same time may choose the same ports."""

EXIT_WITHOUT_RAY = 1
"""Exit code of a search whose Ray was killed; --resume continues it."""


def prepare_environment(*, joins: bool) -> str | None:
    """Set Ray's environment variables and its token; must be called before the first import of Ray.

    Args:
        joins: whether the search joins a running cluster; then it logs in with the user's token, if there is one (Ray
            itself does this only for `auto` and for clusters that it starts).

    Returns:
        A warning if other users can read the token; None if they cannot.
    """
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not joins:  # no other machine joins: everything listens on loopback, as Ray does on Windows and macOS
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        make_token()
    if joins and ("RAY_AUTH_TOKEN" in os.environ or token_file().is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return token_warning()


@contextlib.contextmanager
def watched(say: Callable[[str], None], code: Callable[[], int]) -> Iterator[None]:
    """End this process with a message when a process of the Ray that it started dies; Ray would end it without one.

    Args:
        say: called with the message.
        code: returns the exit code.
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
    """A Ray cluster inside the with block: started here on loopback, or joined at `address`.

    Args:
        address: the address of a running cluster; None starts one.
        machine: the resources of a cluster that is started here.
        host: the address that its dashboard listens on.
        port: the port of its dashboard; None takes the first free one from 8265.

    Raises:
        UsageError: no cluster answers at `address`, or Ray does not start.
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
                f"--address {address}: cannot join a Ray cluster there ({reason_of(error)}); if it uses token login, "
                "set RAY_AUTH_TOKEN or write the token to ~/.ray/auth_token"
            ) from None
    try:
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        yield Cluster(nodes, context.dashboard_url)
    finally:
        ray.shutdown()


def check_dashboard(host: str) -> str | None:
    """A warning if other machines can connect to the dashboard; None on loopback.

    Raises:
        UsageError: they could connect without a login.
    """
    if host in LOOPBACK_NAMES:
        return None
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise UsageError(
            f"--dashboard-host {printable(host)}: RAY_AUTH_MODE is not 'token', and without a login everybody who can "
            "connect to the dashboard can run code here; unset RAY_AUTH_MODE"
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    return (
        f"warning: the dashboard listens on {printable(host)}. Everybody who can connect to it and has the token can "
        "run code as you through Ray's job API, and the connection is not encrypted: use it in trusted networks only"
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the signal handlers: `ray.init` replaces that of SIGTERM by one that ends the process at once."""
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
    """Start Ray on loopback; tries again if another search has just taken the same ports.

    Raises:
        UsageError: Ray does not start.
    """
    import ray

    # Ray inserts this path unquoted into the shell command of its workers.
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
        except Exception as error:  # Ray also raises plain exceptions
            ray.shutdown()
            for pid in _children() - before:  # shutdown does not end the processes of a failed start
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if attempt == STARTS:
                raise UsageError(
                    f"Ray did not start on this machine ({reason_of(error)}); if the machine is busy, try again later"
                ) from None
            time.sleep(random.uniform(0.5, 3.0))
    raise AssertionError("the last attempt returns or raises")


def _children() -> set[int]:
    """The child processes of this process; empty if the system does not list them."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in path.read_text(encoding="ascii").split()}
    return found


def check_address(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray itself would try for many minutes.

    Raises:
        UsageError: nothing listens there, or the address has another form or contains credentials.
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
