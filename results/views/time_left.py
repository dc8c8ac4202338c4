"""How long a search will still take, as a range."""

import math
import statistics

from results.record.run import RunRecord
from results.record.schema import ENDED

WIDE = 2.0
"""Standard deviations from the estimate to each end of the range."""


def seconds_left(record: RunRecord, *, trials: int, slots: int) -> tuple[float, float] | None:
    """The shortest and the longest likely time, in seconds; None before the first epoch.

    Assumes that the remaining trials take as many epochs as the ended ones, with the same standard deviation; before
    two trials have ended, each may take between one and all of its epochs. Also assumes that all slots are used until
    the end.

    Args:
        record: the record of the run.
        trials: all trainings of the run, including replicates and confirmations.
        slots: trials that run at the same time.
    """
    known = [one for one in record.trials.values() if one.status != "screened" and one.role != "retrain"]
    epochs = [float(one["epoch_seconds"]) for trial in known for one in trial.epochs.values() if one["epoch_seconds"]]
    if not epochs:
        return None
    pace = sum(epochs) / len(epochs)
    ended = [float(one.num_epochs) for one in known if one.status in ENDED and one.num_epochs]
    whole = max(int(one.config["optim.epochs"]) for one in known)
    running = [one for one in known if one.status in ("running", "interrupted")]
    to_come = max(trials - len(known), 0)
    if len(ended) < 2:
        least = to_come + sum(1 for one in running if one.num_epochs < whole)
        most = to_come * whole + sum(whole - one.num_epochs for one in running)
        return least * pace / slots, most * pace / slots
    typical, spread = statistics.mean(ended), max(statistics.stdev(ended), 0.25)
    middle = to_come * typical + sum(max(typical - one.num_epochs, 0.5) for one in running)
    reach = WIDE * spread * math.sqrt(to_come + len(running))
    under_way = sum(min(whole - one.num_epochs, 1) for one in running)
    low, high = max(middle - reach, under_way, 0.0), middle + reach
    high = min(high, to_come * whole + sum(whole - one.num_epochs for one in running))
    return min(low, high) * pace / slots, high * pace / slots
