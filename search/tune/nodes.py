"""Checks that every node of a cluster can access the files that trials need."""

from collections.abc import Mapping
from pathlib import Path

from digits_core.data.remote import is_address
from digits_core.data.source import DRAWN
from digits_core.errors import UsageError, reason_of
from search.cli.settings import SearchSettings
from search.policy.plan import Plan
from search.storage.storage import Storage
from search.tune.slots import Resources

LOOK_SECONDS = 120.0


def paths_needed(settings: SearchSettings, plan: Plan, storage: Storage) -> dict[str, str]:
    """The folders that trials access by path, each with the advice for a node that cannot access it."""
    found = {}
    if settings.storage is None:
        found[str(storage.folder.resolve())] = (
            "set --storage to a folder that every node can access, or s3://bucket/folder; or use a shared --out folder"
        )
    elif not is_address(settings.storage):
        found[storage.root] = "set --storage to a folder that every node can access, or s3://bucket/folder"
    weights = str(plan.base.model.weights)
    if Path(weights).is_absolute():
        found[weights] = "put the weights on a shared folder"
    return found


def check_nodes(nodes: Mapping[str, Resources], paths: Mapping[str, str], fingerprint: str, data: str = DRAWN) -> None:
    """Check on every node that the folders exist, and the data or its decoded copy.

    Args:
        nodes: the nodes by Ray's ids.
        paths: folders, each with the advice if it is missing.
        fingerprint: fingerprint of the data; a node that has decoded it does not need the folder.
        data: the folder of the data; an address or the built-in data has none.

    Raises:
        UsageError: a folder is missing on a node.
    """
    if len(nodes) < 2:
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own_folder = None if data == DRAWN or is_address(data) else data

    def missing() -> tuple[str, list[str]]:
        from digits_core.data.cache import cache_root

        lacking = [path for path in paths if not Path(path).exists()]
        decoded = (cache_root() / fingerprint.partition("-")[0]).is_dir()
        if own_folder is not None and not decoded and not Path(own_folder).is_dir():
            lacking.append(own_folder)
        return str(ray.util.get_node_ip_address()), lacking

    look = ray.remote(num_cpus=0, max_retries=1)(missing)
    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=name, soft=False)).remote()
        for name in nodes
    ]
    try:
        answers = ray.get(looks, timeout=LOOK_SECONDS)
    except ray.exceptions.RayError as error:
        raise UsageError(
            f"--address: a node does not answer, or digit-search is not installed there ({reason_of(error)})"
        ) from None
    for address, lacking in answers:
        for path in lacking:
            advice = paths.get(path, "set --data to a folder that every node can access, or to s3://bucket/folder")
            raise UsageError(f"node {address} cannot access {path}; {advice}")
