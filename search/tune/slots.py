"""The CPU cores and GPUs of each trial, and how many trials run at the same time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digits_core.errors import UsageError

Resources = Mapping[str, float]
"""The resources of a node under Ray's names: `CPU` and `GPU`."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots that trials run in.

    Attributes:
        count: trials that run at the same time.
        cpus, gpus: CPU cores and GPUs of each trial.
        description: the same in words.
    """

    count: int
    cpus: float
    gpus: float
    description: str


def plan_slots(
    nodes: Sequence[Resources],
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    most: int | None = None,
    *,
    grows: bool = False,
) -> Slots:
    """Divide the nodes of a cluster into slots, by GPUs if there are any, else by CPU cores. A slot is on one node.

    Args:
        nodes: the resources of each node.
        cpus_per_trial: None takes one core, or an equal share of the cores of a node with GPUs.
        gpus_per_trial: also fractions; None takes one if there is one.
        most: maximum number of trials at the same time.
        grows: whether nodes may be added later; then the number of slots is `most`.

    Raises:
        UsageError: no node has the requested resources, and none can be added.
    """
    here = "here" if len(nodes) == 1 else "on any node"
    cores = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
    gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
    gpu = min(gpus, 1.0) if gpus_per_trial is None else gpus_per_trial
    if gpu > 1 and gpu != int(gpu):
        raise UsageError(f"--gpus-per-trial {gpu:g}: above one GPU it must be a whole number")
    by_gpu = [int(node.get("GPU", 0.0) / gpu + 1e-9) if gpu else 0 for node in nodes]
    cpu = cpus_per_trial
    if cpu is None:
        shares = [node.get("CPU", 0.0) // count for node, count in zip(nodes, by_gpu, strict=True) if count]
        cpu = max(1.0, min([8.0, *shares])) if gpu else 1.0
    by_cpu = [int(node.get("CPU", 0.0) / cpu + 1e-9) for node in nodes]
    count = sum(map(min, by_gpu, by_cpu)) if gpu else sum(by_cpu)
    if most is not None:
        count = most if grows else min(count, most)
    waits = grows and most is not None
    if gpu > gpus and not waits:
        available = f"there are {gpus:g} {here}" if gpus else f"there is no GPU {here}; omit the flag or give 0"
        raise UsageError(f"--gpus-per-trial {gpu:g}: {available}")
    if cpu > cores and not waits:
        raise UsageError(f"--cpus-per-trial {cpu:g}: there are {cores:g} cores {here}")
    if not count:
        raise UsageError(f"no node has both {gpu:g} GPU and {cpu:g} cores; request less")
    what = f"{cpu:g} core{'s' * (cpu != 1)}" if not gpu else f"{gpu:g} GPU and {cpu:g} core{'s' * (cpu != 1)}"
    on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    return Slots(count, cpu, gpu, f"{count} slot{'s' * (count != 1)} of {what} each{on}")
