"""What more trials would probably gain, in words."""

from results.record.run import RunRecord
from results.views.leaderboard import SHOWN


def outlook_words(record: RunRecord) -> str | None:
    """A sentence; None while too few trials have ended."""
    known = record.outlook
    if known is None:
        return None
    metric = SHOWN.get(record.metric, record.metric)
    return (
        f"{known['more']} more configurations increase {metric} by more than {known['gain']:g} with a probability of "
        f"{100 * known['chance']:.0f} % (expected increase {known['expected']:.3f})"
    )
