"""Why a trial ended as it did, in words for a table; the record has the same reason in more detail."""

import re

from digits_core.errors import printable
from results.views.leaderboard import SHOWN

_ASHA = re.compile(r"asha: (\w+) (\S+) at epoch (\d+) lies under the cut (\S+) that keeps the best (\S+) of ")
_MEDIAN = re.compile(r"median: best (\w+) (\S+) by epoch (\d+) is under (\S+), the median of ")

_FIRST_WORDS = {
    "screened": "screened, not trained",
    "diverged": "diverged",
    "out_of_memory": "out of memory",
    "failed": "failed",
    "interrupted": "interrupted",
}


def reason_words(status: str, reason: str | None) -> str:
    """Why a trial is not finished, or was finished in an unusual way; empty for an ordinary training.

    Args:
        status: its status.
        reason: its `stop_reason`.
    """
    if not reason:
        return f"{_FIRST_WORDS[status]}: no reason is recorded" if status in ("screened", "failed") else ""
    found = _ASHA.match(reason)
    if found is not None:
        metric, value, epoch, limit, part = found.groups()
        shown = SHOWN.get(metric, metric)
        return f"stopped by ASHA after epoch {epoch}: {shown} {value} is below {limit}, the limit of the best {part}"
    found = _MEDIAN.match(reason)
    if found is not None:
        metric, value, epoch, limit = found.groups()
        shown = SHOWN.get(metric, metric)
        return f"stopped by the median rule after epoch {epoch}: best {shown} {value}, median of the others {limit}"
    if reason == "swept without training":
        return "not trained: thresholds of a trained model, scored without training"
    words = printable(reason.removeprefix("screen: "))
    first = _FIRST_WORDS.get(status)
    return words if first is None or words.startswith(first) else f"{first}: {words}"
