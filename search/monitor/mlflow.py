"""Logs a search to MLflow: an experiment per space, a run per trial. A slow or missing server does not stop it."""

import time
from collections.abc import Callable
from typing import Any

from digits_core.config.parameter import Flat
from digits_core.errors import UsageError, printable, refuse_credentials
from results.record.schema import ENDED, FAILED
from search.monitor.tracker import MAX_VALUE, Change, Described, Tracker, numbers_of

TRIAL_TAG, RUN_TAG = "digit_search.trial", "digit_search.run"


def check_mlflow(uri: str) -> None:
    """Check the package and the address of MLflow; does not connect to the server.

    Raises:
        UsageError: the package is missing, or the address is invalid or contains credentials.
    """
    refuse_credentials("--mlflow", uri)
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise UsageError("--mlflow needs the package mlflow: pip install 'digit-search[mlflow]'") from None
    if not uri.startswith(("http://", "https://", "file:", "sqlite:")):
        raise UsageError(
            f"--mlflow {printable(uri)}: an address is http://HOST:PORT, or without a server file:/FOLDER or "
            "sqlite:///FILE"
        )


class MLflow(Tracker):
    """Sends to an MLflow server; `place` is its address."""

    NAME = "MLflow"

    def __init__(self, place: str, run: str, space: str, base: Flat, metric: str, say: Callable[[str], None]) -> None:
        """As `Tracker`; the experiment has the name of the space."""
        self._ids: dict[str, str] = {}
        self._client: Any = None
        self._experiment = ""
        super().__init__(place, run, space, base, metric, say)

    def send(self, change: Change) -> None:
        """Send a change as metrics and tags of the trial's run."""
        from mlflow.entities import Metric

        client, news = self._open(), change.epochs
        if change.trial_id not in self._ids:
            news = self._find_or_create(client, change)
        run_id = self._ids[change.trial_id]
        metrics = [
            Metric(name, value, round(one["reported_at"].timestamp() * 1000), one["epoch"])
            for one in news
            for name, value in numbers_of(one).items()
        ]
        if change.status in ENDED and change.best is not None:
            value = float(change.best[self.metric])
            metrics.append(Metric(f"best_{self.metric}", value, round(time.time() * 1000), 0))
        for first in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[first : first + 1000])
        client.set_tag(run_id, "status", change.status)
        if change.reason:
            client.set_tag(run_id, "stop_reason", change.reason)
        if change.status in ENDED:
            client.set_terminated(run_id, "FAILED" if change.status in FAILED else "FINISHED")

    def _find_or_create(self, client: Any, change: Change) -> list[dict[str, Any]]:
        """Find the run of a trial, which an earlier driver may have made, or create it; returns the epochs to send."""
        from mlflow.entities import Param

        own = {TRIAL_TAG: change.trial_id, RUN_TAG: self.run}
        known = client.search_runs(
            [self._experiment], " and ".join(f"tags.`{name}` = '{value}'" for name, value in own.items())
        )
        if known:
            self._ids[change.trial_id] = known[0].info.run_id
            return [one for one in change.epochs if one["epoch"] > known[0].data.metrics.get("epoch", 0)]
        described = change.described or Described({}, {})
        made = client.create_run(
            self._experiment, tags={**own, **described.tags}, run_name=f"{self.run} {change.trial_id}"
        )
        self._ids[change.trial_id] = made.info.run_id
        params = [Param(name, str(value)[:MAX_VALUE]) for name, value in described.parameters.items()]
        client.log_batch(self._ids[change.trial_id], params=params[:100])
        return change.epochs

    def _open(self) -> Any:
        """The client; the first call finds or creates the experiment."""
        if self._client is None:
            import os

            # Notice a missing server soon, not after minutes of attempts.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self.place)
            name = f"digit-search {self.space}"
            found = client.get_experiment_by_name(name)
            self._experiment = client.create_experiment(name) if found is None else found.experiment_id
            self._client = client
        return self._client
