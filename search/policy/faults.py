"""Why a trial failed, from the error text that Ray keeps, and whether the trial is restarted."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from digits_core.config.train_config import TrainConfig
from digits_core.credentials import scrub
from results.record.trial import TrialRecord

MAX_REASON = 500

MOST_WAITS = 20
"""Starts after a disk or storage fault without a finished epoch; after them the trial fails, because nobody repairs
the cause, for example a quota on another node."""

_ERROR_LINE = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception))(?:\(.*?\))?: (.*)$")

_KINDS = {
    "DivergedError": "diverged",
    "OutOfMemoryError": "out_of_memory",
    "MemoryError": "out_of_memory",
    "RayActorError": "worker_died",
    "ActorDiedError": "worker_died",
    "ActorUnavailableError": "worker_died",
    "WorkerCrashedError": "worker_died",
    "NodeDiedError": "node_lost",
    "LocalRayletDiedError": "node_lost",
    "ObjectLostError": "node_lost",
    "OwnerDiedError": "node_lost",
    "StorageError": "storage",
}

_WORDS = (
    (
        re.compile(r"low on memory|can't allocate memory|cannot allocate memory|CUDA out of memory", re.I),
        "out_of_memory",
    ),
    (re.compile(r"No space left on device|Disk quota exceeded", re.I), "disk_full"),
    (
        re.compile(
            r"AWS Error|google::cloud::Status|Azure::|HDFS|Unable to set up cluster storage|Stale file handle|"
            r"Input/output error|Transport endpoint is not connected|Connection timed out"
        ),
        "storage",
    ),
    (re.compile(r"node (?:has )?died|node was (?:terminated|drained|preempted)", re.I), "node_lost"),
    (
        re.compile(r"actor (?:died|is dead|is temporarily unavailable)|worker (?:process has )?died", re.I),
        "worker_died",
    ),
)
"""Patterns for the text of an error whose class name is not specific enough; the first match counts."""

PLAIN = {
    "worker_died": "its process died",
    "node_lost": "its node was lost",
    "disk_full": "the disk was full",
    "storage": "its checkpoint could not be read from or written to the storage",
}
"""Shown to the user instead of Ray's own text, which is about actors."""


DIVERGED = "diverged"
"""Key of the last report of a trial whose loss was not finite; its value is the reason."""

OUTER = ("disk_full", "storage", "checkpoint")
"""Faults of the disk, the storage or a stored checkpoint; they do not count against `--max-failures`."""


class Fault(NamedTuple):
    """Why a trial failed.

    Attributes:
        kind: `diverged`, `out_of_memory`, `worker_died`, `node_lost`, `disk_full`, `storage` or `failed`.
        reason: one line.
    """

    kind: str
    reason: str

    @property
    def status(self) -> str:
        """The status of a trial that ends with this fault."""
        return self.kind if self.kind in ("diverged", "out_of_memory") else "failed"


def classify(text: str) -> Fault:
    """The fault behind an error, from its text as Ray keeps it.

    Ray also keeps the exception as a pickle; this project does not load pickles.
    """
    lines = [line.strip() for line in scrub(text).splitlines() if line.strip() and not line.startswith("Failure #")]
    named = [(match, at) for at, line in enumerate(lines) if (match := _ERROR_LINE.match(line))]
    name, message = named[-1][0].groups() if named else ("", lines[0] if lines else "unknown error")
    kind = _KINDS.get(name)
    if kind is None or kind == "worker_died":
        # Ray describes the death of a process in several lines; for our own errors the one line is enough.
        searched = message if named and kind is None else " ".join(lines)
        if name != "RefusedError":
            kind = next((other for pattern, other in _WORDS if pattern.search(searched)), kind)
    if kind is None:
        return Fault("failed", (message if name in ("", "RefusedError") else f"{name}: {message}")[:MAX_REASON])
    return Fault(kind, PLAIN.get(kind, message)[:MAX_REASON])


def change_to_retry(trial: TrialRecord, fault: Fault, max_failures: int) -> dict[str, Any] | None:
    """The change to the config for a restart of a trial; None if the trial is not restarted.

    A full disk or an unavailable storage is not caused by the trial and does not count. After out of memory there is
    one restart, with half as many images at once. When the same divergence happens twice, the configuration causes it:
    there is no third start.

    Args:
        trial: the trial with its earlier faults.
        fault: the new fault.
        max_failures: maximum number of restarts of a trial after faults.
    """
    if fault.kind in OUTER:
        here = [one for one in trial.faults if one["fault"] in OUTER and one["epoch"] == trial.num_epochs]
        return {} if len(here) < MOST_WAITS else None
    counted = [one for one in trial.faults if one["fault"] not in OUTER]
    if fault.kind == "failed" or len(counted) >= max_failures:
        return None
    if fault.kind == "diverged" and any(one["reason"] == fault.reason for one in counted):
        return None
    if fault.kind != "out_of_memory":
        return {}
    config = TrainConfig.from_flat(trial.config)
    largest = max(stage.config.optim.batch_size for stage in config.stages)
    at_once = min(config.runtime.micro_batch or largest, largest)
    if at_once == 1 or any(one["fault"] == "out_of_memory" for one in counted):
        return None
    return {"runtime.micro_batch": (at_once + 1) // 2}


def kernel_kills() -> int:
    """How many processes the kernel of this machine has killed because memory ran out; 0 if unknown."""
    count = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return count
