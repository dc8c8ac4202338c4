"""Start Ray on this machine or join a running cluster; what a trial gets of it."""

import contextlib
import io
import logging
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from digits_core.errors import UsageError, printable

DASHBOARD_PORT = 8265
OBJECT_STORE_BYTES = 256 * 2**20
"""Trials share images through mapped files and checkpoints through folders, nothing through the store."""

WORKER_ENVIRONMENT = {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # or it asks the network for a newer version
    "RAY_USAGE_STATS_ENABLED": "0",  # or Ray reports usage
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # or relative paths of the user break in trials
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a stopped trial's thread must end before its process is reused
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # our own record is the one that counts
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the run tidily
}


@dataclass(frozen=True, slots=True)
class Slots:
    """What trials run on.

    Attributes:
        count: trials side by side.
        cpus, gpus: what each trial gets.
        description: in words.
    """

    count: int
    cpus: float
    gpus: float
    description: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that this driver is connected to.

    Attributes:
        slots: what trials run on.
        dashboard: its address, or None without one.
    """

    slots: Slots
    dashboard: str | None


def plan_slots(resources: Mapping[str, float], cpus_per_trial: float | None, gpus_per_trial: float | None) -> Slots:
    """Divide a cluster's resources among trials: all GPUs there are, else CPU cores.

    Args:
        resources: Ray's `CPU` and `GPU` counts.
        cpus_per_trial: asked for; None takes one core, or a fair share of the cores beside a GPU.
        gpus_per_trial: asked for, fractions too; None takes one where there is one.

    Raises:
        UsageError: more is asked for than there is.
    """
    cores, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if gpus_per_trial and not gpus:
        raise UsageError(f"--gpus-per-trial {gpus_per_trial:g}: there is no GPU here; leave the flag out or give 0")
    if gpus_per_trial and gpus_per_trial > gpus:
        raise UsageError(f"--gpus-per-trial {gpus_per_trial:g}: there are {gpus:g}")
    gpu = min(gpus, 1.0) if gpus_per_trial is None else gpus_per_trial
    if gpu > 1 and gpu != int(gpu):
        raise UsageError(f"--gpus-per-trial {gpu:g}: above one GPU it must be a whole number")
    by_gpu = int(gpus / gpu + 1e-9) if gpu else None
    cpu = cpus_per_trial
    if cpu is None:
        cpu = 1.0 if by_gpu is None else max(1.0, float(min(8, cores // by_gpu)))
    if cpu > cores:
        raise UsageError(f"--cpus-per-trial {cpu:g}: there are {cores:g} cores")
    by_cpu = int(cores / cpu + 1e-9)
    count = by_cpu if by_gpu is None else min(by_gpu, by_cpu)
    what = f"{cpu:g} core{'s' * (cpu != 1)}" if not gpu else f"{gpu:g} GPU and {cpu:g} core{'s' * (cpu != 1)}"
    return Slots(count, cpu, gpu, f"{count} slot{'s' * (count != 1)} of {what} each")


def free_port(asked: int | None, *, beyond: int = 0) -> int:
    """The dashboard's port: the one asked for, or the first free one from 8265 and so many `beyond` up.

    Raises:
        UsageError: the port asked for is taken.
    """
    for port in [asked] if asked is not None else range(DASHBOARD_PORT + beyond, DASHBOARD_PORT + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UsageError(
        f"--dashboard-port {asked} is busy; leave the flag out to take a free one"
        if asked is not None
        else f"no free port for the dashboard between {DASHBOARD_PORT} and {DASHBOARD_PORT + 99}"
    )


STARTS = 3
"""Attempts to start Ray: two searches that begin in the same moment take each other's ports."""

EXIT_WITHOUT_RAY = 1
"""Exit code of a search whose Ray was killed under it; --resume goes on."""


def prepare_environment(*, joins: bool) -> None:
    """Set what Ray reads from the environment; before its first import.

    Args:
        joins: the search joins a running cluster; then it logs in with the user's token where there is one,
            as Ray does by itself for its own clusters and for `auto` alone.
    """
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if joins and ("RAY_AUTH_TOKEN" in os.environ or token.is_file()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[None]:
    """End this process with a sentence when a process of its own Ray dies: Ray itself would end it without a word."""
    import ray._private.worker

    node = ray._private.worker._global_node
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for kind, processes in list(node.all_processes.items()):
                if kind in ("raylet", "gcs_server") and any(one.process.poll() is not None for one in processes):
                    if not ended.is_set():
                        say(f"Ray's {kind} on this machine was killed")
                        os._exit(EXIT_WITHOUT_RAY)
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
    address: str | None,
    *,
    port: int,
    machine: Mapping[str, float],
    cpus_per_trial: float | None,
    gpus_per_trial: float | None,
) -> Iterator[Cluster]:
    """A Ray cluster for the time of a run: started here on loopback, or joined at `address`.

    Raises:
        UsageError: no cluster answers at `address`, or the slots asked for are not there.
    """
    import ray

    if address is not None:
        check_address(address)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        context = _start_ray(machine, port, quiet)
    else:
        try:
            context = ray.init(address=address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--address {address}: no Ray cluster can be joined there ({error}); one with token login wants its "
                "token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
            ) from None
    try:
        resources = ray.cluster_resources()
        slots = plan_slots(resources, cpus_per_trial, gpus_per_trial)
        yield Cluster(slots, context.dashboard_url)
    finally:
        ray.shutdown()


def _start_ray(machine: Mapping[str, float], port: int, quiet: dict[str, Any]) -> Any:
    """Start Ray on loopback; again, with other ports, where another search took them in the same moment.

    Raises:
        UsageError: it does not start.
    """
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            return ray.init(
                address="local",
                num_cpus=int(machine["CPU"]),
                num_gpus=int(machine["GPU"]),
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=port,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
        except Exception as error:  # Ray raises plain ones, too
            ray.shutdown()
            if attempt == STARTS:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UsageError(
                    f"Ray did not start on this machine ({printable(reason)}); where it is very busy, try again later"
                ) from None
            time.sleep(random.uniform(0.5, 3.0))
            port = free_port(None, beyond=random.randrange(1, 50))
    raise AssertionError("the last attempt returns or raises")


def check_address(address: str) -> None:
    """See that something listens at HOST:PORT: Ray itself would try for many minutes.

    Raises:
        UsageError: nothing does, or the address has another form.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--address takes auto or HOST:PORT, got '{printable(address)}'")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--address {address}: no Ray cluster answers there ({reason})") from None


class Chatter(io.TextIOWrapper):
    """Text for a log: what a full disk does not take is lost, and holds nobody up."""

    def __init__(self, raw: io.RawIOBase, **settings: Any) -> None:
        """Write through to an unbuffered file."""
        super().__init__(LossyWriter(raw), write_through=True, **settings)


class LossyWriter(io.BufferedIOBase):
    """Passes bytes on, and drops those that cannot be written."""

    def __init__(self, raw: io.RawIOBase) -> None:
        """Write to an unbuffered file."""
        self._raw = raw

    @property
    def name(self) -> str:
        """Of no file that anyone should open."""
        return "chatter"

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Of the file behind."""
        return self._raw.fileno()

    def write(self, content: Any) -> int:
        """All of it, or what fits."""
        with contextlib.suppress(OSError):
            self._raw.write(content)
        return len(content)

    def close(self) -> None:
        """Close the file behind."""
        with contextlib.suppress(OSError):
            self._raw.close()
        super().close()


@contextlib.contextmanager
def chatter_to(path: Path) -> Iterator[TextIO]:
    """Send all that this process and its children print into a file; yields the real terminal.

    Ray's native parts write to the file descriptors themselves, so these are what is redirected.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    terminal = os.fdopen(os.dup(1), "w", encoding=getattr(sys.stdout, "encoding", None) or "utf-8", errors="replace")
    own = (sys.stdout, sys.stderr)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = Chatter(os.fdopen(os.dup(1), "wb", buffering=0), encoding="utf-8", errors="replace")
        sys.stderr = Chatter(os.fdopen(os.dup(2), "wb", buffering=0), encoding="utf-8", errors="replace")
        try:
            yield terminal
        finally:
            for stream in (terminal, sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.close()
            sys.stdout, sys.stderr = own
            for number, descriptor in enumerate(saved, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
