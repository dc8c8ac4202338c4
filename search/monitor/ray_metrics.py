"""A search as Ray's own metrics, for its dashboard, Prometheus and Grafana."""

from digits_core.config.parameter import Flat
from results.record.run import RunRecord
from results.record.schema import ENDED, FAILED

PREFIX = "digit_search"

EPOCH_METRICS = {
    "val_map": "COCO AP averaged over IoU .50:.95 after the last epoch",
    "val_number_accuracy": "share of images whose whole number is read right after the last epoch",
    "train_loss": "mean training loss of the last epoch",
    "images_per_second": "training images per second of the last epoch",
    "epoch": "epochs done",
}
"""Metrics of each trial, with the tags `run`, `trial` and `setting`."""

RUN_METRICS = {
    "best": "the best score so far, by the search's own metric",
    "trials_ended": "trials that came to an end",
    "trials_stopped": "of those, stopped by the scheduler",
    "trials_failed": "of those, failed",
}
"""Metrics of the search, with the tag `run`."""


class Gauges:
    """Sets Ray's gauges; Ray must be running."""

    def __init__(self, base: Flat) -> None:
        """Name configurations by the parameters that differ from `base`."""
        from ray.util.metrics import Gauge

        self._base = base
        self._trial = {
            name: Gauge(f"{PREFIX}_{name}", description=words, tag_keys=("run", "trial", "setting"))
            for name, words in EPOCH_METRICS.items()
        }
        self._run = {
            name: Gauge(f"{PREFIX}_{name}", description=words, tag_keys=("run",)) for name, words in RUN_METRICS.items()
        }

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed."""
        from search.monitor.view import setting_words

        trial = record.trials[trial_id]
        last = trial.epochs.get(trial.num_epochs)
        if last is not None:
            tags = {"run": record.run, "trial": trial_id, "setting": setting_words(trial.config, self._base)[:100]}
            for name, gauge in self._trial.items():
                if last.get(name) is not None:
                    gauge.set(float(last[name]), tags=tags)
        states = [one.status for one in record.trials.values() if one.status != "screened"]
        winner = record.winner()
        values = {
            "best": None if winner is None else record.value(winner),
            "trials_ended": sum(state in ENDED for state in states),
            "trials_stopped": states.count("stopped"),
            "trials_failed": sum(state in FAILED for state in states),
        }
        for name, value in values.items():
            if value is not None:
                self._run[name].set(float(value), tags={"run": record.run})

    def close(self, record: RunRecord) -> None:
        """Nothing to do: Ray ends with the search."""
