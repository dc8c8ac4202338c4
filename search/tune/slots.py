"""What a trial gets of the machines, and how many of them run side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from digits_core.errors import UsageError

Resources = Mapping[str, float]
"""Ray's counts of a node: `CPU` and `GPU`."""


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


def plan_slots(
    nodes: Sequence[Resources],
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    most: int | None = None,
    *,
    grows: bool = False,
) -> Slots:
    """Divide the nodes of a cluster among trials: all GPUs there are, else CPU cores. A trial lies on one node.

    Args:
        nodes: what each has.
        cpus_per_trial: asked for; None takes one core, or a fair share of the cores beside a GPU.
        gpus_per_trial: asked for, fractions too; None takes one where there is one.
        most: trials side by side, at most.
        grows: there may come more nodes for them than there are now, so `most` is taken at its word.

    Raises:
        UsageError: more is asked for than any node has, and no more are to come.
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
        there = f"there are {gpus:g} {here}" if gpus else f"there is no GPU {here}; leave the flag out or give 0"
        raise UsageError(f"--gpus-per-trial {gpu:g}: {there}")
    if cpu > cores and not waits:
        raise UsageError(f"--cpus-per-trial {cpu:g}: there are {cores:g} cores {here}")
    if not count:
        raise UsageError(f"no node has {gpu:g} GPU and {cpu:g} cores together; ask for less")
    what = f"{cpu:g} core{'s' * (cpu != 1)}" if not gpu else f"{gpu:g} GPU and {cpu:g} core{'s' * (cpu != 1)}"
    on = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    return Slots(count, cpu, gpu, f"{count} slot{'s' * (count != 1)} of {what} each{on}")
