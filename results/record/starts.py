"""Reconstructs a start of the search that was lost in a damaged record."""

from collections.abc import Mapping, Sequence
from typing import Any

from results.record.events import Event, check_event


def start_anew(before: Sequence[Event], after: Sequence[Event], about: Mapping[str, Any]) -> Event | None:
    """Reconstruct the `run` event of a lost start from other starts, trials and `run.json`.

    Args:
        before: the events before it, in order.
        after: the events after it, in order.
        about: the content of `run.json`; may be empty.

    Returns:
        The event; the caller sets its number. None if the metric is unknown.
    """
    later = next((place for place, event in enumerate(after) if event["kind"] == "run"), None)
    near = [event for event in before if event["kind"] == "run"][-1:] or ([] if later is None else [after[later]])
    settings, space = _object(about.get("settings")), _object(about.get("space"))
    found: Event = {name: settings.get(name) for name in ("metric", "scheduler", "space", "sampler", "seed", "screen")}
    found |= {"trials": space.get("trials"), "comparison": about.get("comparison")}
    for start in near:
        found |= start
    if not before:
        found["asha"] = _asha(about) or found.get("asha")
    found |= {"epochs": _epochs(before, after[:later], about if later is None else {})}
    found |= {"n": 1, "time": (after[:1] or before[-1:])[0]["time"], "kind": "run", "resumed": bool(before)}
    found["restored"] = True
    for leave_out in ((), ("asha",), ("asha", "epochs", "scheduler")):  # run.json can have invalid values
        try:
            return check_event({name: one for name, one in found.items() if one is not None and name not in leave_out})
        except ValueError:
            continue
    return None


def _epochs(before: Sequence[Event], after: Sequence[Event], about: Mapping[str, Any]) -> Any:
    """The planned epochs per training after this start."""
    longer = [event["config"]["optim.epochs"] for event in after if event["kind"] == "longer"]
    planned = [event.get("epochs") for event in before if event["kind"] == "run"][-1:]
    trained = [event["config"]["optim.epochs"] for event in after if event["kind"] == "trial"]
    current = _object(about.get("base_config")).get("optim.epochs")  # of the latest start
    return next((one for one in (*longer, current, *planned, *trained) if one is not None), None)


def _asha(about: Mapping[str, Any]) -> Any:
    """Grace period and reduction factor of a run; an older `run.json` has only the rungs."""
    match about.get("rungs"):
        case [int(grace), int(second), *_] if "asha" not in about and grace > 0:
            return [grace, second // grace]
    return about.get("asha")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
