"""What went wrong in a trial, by the text that Ray keeps of it, and whether it is started again."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from digits_core.config.train_config import TrainConfig
from digits_core.credentials import scrub
from results.record.trial import TrialRecord

MAX_REASON = 500

MOST_WAITS = 20
"""Starts on a full disk without an epoch done: then it is one that nobody sees to, as a quota on another node."""

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
"""What stands in the text of an error whose name does not say enough; the first that fits."""

PLAIN = {
    "worker_died": "its process died",
    "node_lost": "its node was lost",
    "disk_full": "the disk was full",
    "storage": "the storage did not give or take its checkpoint",
}
"""What a person is told instead of Ray's own text, which speaks of actors."""


DIVERGED = "diverged"
"""Key of a trial's last report, where a loss was not finite: the reason."""

OUTER = ("disk_full", "storage", "checkpoint")
"""Faults of what a trial writes to, and of what was written."""


class Fault(NamedTuple):
    """What broke a trial off.

    Attributes:
        kind: `diverged`, `out_of_memory`, `worker_died`, `node_lost`, `disk_full`, `storage` or `failed`.
        reason: one line.
    """

    kind: str
    reason: str

    @property
    def status(self) -> str:
        """What a trial is called that ends by it."""
        return self.kind if self.kind in ("diverged", "out_of_memory") else "failed"


def classify(text: str) -> Fault:
    """The fault behind an error, from the text that Ray keeps of it.

    Ray's copy of the exception itself is a pickle, which this house does not open.
    """
    lines = [line.strip() for line in scrub(text).splitlines() if line.strip() and not line.startswith("Failure #")]
    named = [(match, at) for at, line in enumerate(lines) if (match := _ERROR_LINE.match(line))]
    name, message = named[-1][0].groups() if named else ("", lines[0] if lines else "unknown error")
    kind = _KINDS.get(name)
    if kind is None or kind == "worker_died":
        # Ray's own words on a death go on below their first line; of our errors the line itself says all.
        said = message if named and kind is None else " ".join(lines)
        if name != "RefusedError":
            kind = next((other for pattern, other in _WORDS if pattern.search(said)), kind)
    if kind is None:
        return Fault("failed", (message if name in ("", "RefusedError") else f"{name}: {message}")[:MAX_REASON])
    return Fault(kind, PLAIN.get(kind, message)[:MAX_REASON])


def change_to_retry(trial: TrialRecord, fault: Fault, max_failures: int) -> dict[str, Any] | None:
    """What a trial is started again with; None when it has come to its end.

    A full disk or a storage out of order is no fault of the trial, so it does not count. Out of memory is tried once
    more, with half as many images at once. The very same divergence twice is the setting's own: a third time would
    give it again.

    Args:
        trial: with the faults before.
        fault: the new one.
        max_failures: starts after a fault that a trial has, at most.
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
    """How often the kernel of this machine has killed a process for want of memory; 0 where it does not say."""
    count = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        count += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return count
