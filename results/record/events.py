"""The kinds of events in `events.jsonl` and their checks; a run folder can come from an untrusted source."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, get_args

from digits_core.config.train_config import parameter_named
from digits_core.data.coco import is_plain_path
from digits_core.errors import ConfigError
from results.record.schema import AIMS, COSTS, EPOCH_NUMBERS, STATUSES, Role

Event = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

MAX_EPOCH = 1_000_000

MAX_LOST_DRIVERS = 1000
"""Most starts of the search that one repair counts as lost."""

Check = Callable[[Any], bool]


def is_name(value: object) -> bool:
    """Whether a value is a valid name of a run or trial and thus of a file: no path, not hidden."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_inside(value: object) -> bool:
    """Whether a value is a relative path inside the run folder."""
    return isinstance(value, str) and is_plain_path(value)


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53


def _share(value: object) -> bool:
    """A score in [0, 1], with a tolerance for rounding."""
    return _number(value) and -1e-9 <= value <= 1 + 1e-9  # type: ignore[operator]


def is_score(name: str) -> bool:
    """Whether a number of an epoch is a score: an average precision or an accuracy."""
    return re.search(r"_map(_\d+)?$|_accuracy$", name) is not None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _text(value: object) -> bool:
    return isinstance(value, str)


def _flat(value: object) -> bool:
    """A mapping of parameter names to plain values."""
    return isinstance(value, Mapping) and all(
        one is None or isinstance(one, str | int | float) for one in value.values()
    )


def _config(value: object) -> bool:
    """A flat config with values of the correct types; parameters of other versions must be text."""
    if not isinstance(value, Mapping) or not _whole(value.get("optim.epochs")):
        return False
    return all(isinstance(name, str) and _parameter(name, one) for name, one in value.items())


def _parameter(name: str, value: object) -> bool:
    if value is None:
        return True
    try:
        kind = parameter_named(name).kind
    except ConfigError:
        return isinstance(value, str)
    return isinstance(value, kind) if kind in (bool, str) else _number(value) and (kind is float or _whole(value))


def _scores(value: object) -> bool:
    return isinstance(value, Mapping) and all(one is None or _share(one) for one in value.values())


def _aims(value: object) -> bool:
    """Different names of costs."""
    return (
        isinstance(value, list) and all(map(_text, value)) and set(value) <= set(AIMS) and len({*value}) == len(value)
    )


def _costs(value: object) -> bool:
    return isinstance(value, Mapping) and all(one in COSTS and _number(value[one]) for one in value)


def _coverage(value: object) -> bool:
    return _scores(value) and set(value) <= {"recall_50", "recall_70", "mean_iou"}  # type: ignore[call-overload]


def _object(value: object) -> bool:
    return isinstance(value, Mapping)


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


_EPOCH = {name: _or_none(_share if is_score(name) else _number) for name in EPOCH_NUMBERS}
_EPOCH["peak_memory_bytes"] = _or_none(_whole)

_OPTIMA = {
    f"task{task}_{name}": _or_none(check)
    for task in (1, 2)
    for name, check in {
        **dict.fromkeys(("map", "number_accuracy"), _share),
        **dict.fromkeys(("nms", "score"), _number),
        "class_agnostic": lambda value: isinstance(value, bool),
        "max_detections": _whole,
    }.items()
}

NEEDED: dict[str, dict[str, Check]] = {
    "run": {"metric": _text},
    "trial": {
        "trial_id": is_name,
        "space": _text,
        "config": _config,
        "config_hash": _text,
        "seed": _whole,
        "params": _object,
        "baseline": _or_none(_text),
    },
    "start": {"trial_id": is_name},
    "report": {"trial_id": is_name, "epoch": lambda value: _whole(value) and 1 <= value <= MAX_EPOCH},
    "checkpoint": {"trial_id": is_name, "path": _or_none(_text)},  # checked where it is used
    "kept": {"trial_id": is_name, "path": _or_none(is_inside)},
    "fault": {"trial_id": is_name, "fault": _text, "reason": _text},
    "longer": {"trial_id": is_name, "config": _config, "config_hash": _text},
    "claim": {"trial_id": is_name, "epoch": _whole},
    "checked": {"trial_id": is_name, "epoch": _whole, "map": _share, "by": _text},
    "end": {"trial_id": is_name, "status": lambda value: value in STATUSES},
    "outlook": {"trials": _whole, "more": _whole, "gain": _share, "chance": _share, "expected": _share},
    "repaired": {
        "num_lost": _whole,
        "lost": lambda value: isinstance(value, list) and all(map(_object, value)),
        "trials": lambda value: isinstance(value, list) and all(map(is_name, value)),
        "drivers": lambda value: _whole(value) and value <= MAX_LOST_DRIVERS,
    },
}
"""The kinds of events with their required values."""


def _halving(value: object) -> bool:
    """A grace period and a reduction factor."""
    if not isinstance(value, list) or len(value) != 2 or not all(map(_whole, value)):
        return False
    return bool(value[0] >= 1 and value[1] >= 2)


ALLOWED: dict[str, dict[str, Check]] = {
    "run": {
        "epochs": _whole,
        "scheduler": _text,
        "asha": _halving,
        "aims": _aims,
        "until_settled": lambda value: isinstance(value, bool),
        "gain": _share,
        **dict.fromkeys(("replicates", "replicate_top", "confirm"), _whole),
    },
    "trial": {
        "role": lambda value: value in get_args(Role),
        "coverage": _or_none(_coverage),
        "parent": _or_none(is_name),
        "trained_on": _text,
    },
    "report": {
        **_EPOCH,
        "model": _or_none(lambda value: isinstance(value, Mapping) and _or_none(_whole)(value.get("num_parameters"))),
        "optima": _or_none(_object),
        "confirm": _or_none(_scores),
        "device": _or_none(_text),
        "weights": _or_none(_text),
        "cost": _costs,
        "cut": _or_none(_text),
    },
    "checkpoint": {"epoch": _whole},
    "fault": {"change": _flat, "epoch": _whole},
    "claim": _EPOCH,
    "end": {"reason": _or_none(_text)},
}
"""The optional values of each kind of event."""


def check_event(event: object) -> Event:
    """Check an event and return it.

    Raises:
        ValueError: the event is not valid; the message names the value.
    """
    if not isinstance(event, dict) or not {"n", "time", "kind"} <= event.keys():
        raise ValueError("an event needs n, time and kind")
    if not _whole(event["n"]) or not _text(event["kind"]) or not _text(event["time"]):
        raise ValueError("n must be a whole number, time and kind text")
    if event["kind"] not in NEEDED:
        raise ValueError(f"'{event['kind'][:40]}' is not a kind of event")
    if datetime.fromisoformat(event["time"]).tzinfo is None:
        raise ValueError("time needs a time zone")
    if "trial_id" in event and not is_name(event["trial_id"]):
        raise ValueError("trial_id must consist of letters, digits, '.', '-' and '_'")
    for name, check in NEEDED.get(event["kind"], {}).items():
        if name not in event or not check(event[name]):
            raise ValueError(f"'{name}' of a '{event['kind']}' is missing or wrong")
    for name, check in ALLOWED.get(event["kind"], {}).items():
        if name in event and not check(event[name]):
            raise ValueError(f"'{name}' of a '{event['kind']}' is wrong")
    for name, check in _OPTIMA.items():
        if not check((event.get("optima") or {}).get(name)):
            raise ValueError(f"'{name}' among the optima is not valid")
    return event
