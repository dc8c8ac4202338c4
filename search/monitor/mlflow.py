"""Logs a search to MLflow: an experiment per space, a run per trial. A slow or missing server does not stop it."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from digits_core.config.parameter import Flat
from digits_core.errors import UsageError, printable, reason_of, refuse_credentials
from results.record.run import RunRecord
from results.record.schema import ENDED, EPOCH_NUMBERS, FAILED
from results.record.trial import TrialRecord

PAUSE_SECONDS = 5.0
"""Pause between two of the three attempts."""

PATIENCE_SECONDS = 30.0
"""How long the end of a search waits for data that is not sent yet."""

TRIAL_TAG, RUN_TAG = "digit_search.trial", "digit_search.run"

MAX_VALUE = 500
"""Maximum length of a parameter's value in some of MLflow's stores."""


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


class MLflow:
    """Sends the changes of trials in order, from a separate thread; stops with a message after a failed request."""

    def __init__(self, uri: str, run: str, space: str, base: Flat, metric: str, say: Callable[[str], None]) -> None:
        """Send to a tracking server.

        Args:
            uri: its address.
            run: the run folder's name, for the tags.
            space: the space, for the name of the experiment.
            base: the config that configurations change.
            metric: the metric that the search maximises.
            say: prints a sentence for the user.
        """
        self._uri, self._run, self._space, self._base, self._metric = uri, run, space, base, metric
        self._say = say
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._told: dict[str, tuple[int, str]] = {}
        self._ids: dict[str, str] = {}
        self._broken = False
        self._client: Any = None
        self._experiment = ""
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._thread.start()

    def update(self, record: RunRecord, trial_id: str) -> None:
        """A trial has changed: queue what to send."""
        trial = record.trials[trial_id]
        epochs, status = self._told.get(trial_id, (0, ""))
        if self._broken or (epochs, status) == (trial.num_epochs, trial.status):
            return
        news = [dict(one) for epoch, one in sorted(trial.epochs.items()) if epoch > epochs]
        self._told[trial_id] = trial.num_epochs, trial.status
        best = trial.best(self._metric)
        facts = (trial_id, trial.status, trial.stop_reason, None if best is None else dict(best), news)
        described = None if trial_id in self._ids or epochs or status else self._describe(trial)
        self._jobs.put(lambda: self._send(facts, described))

    def close(self, record: RunRecord) -> None:
        """Wait up to `PATIENCE_SECONDS` for data that is not sent yet."""
        self._jobs.put(None)
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive() and not self._broken:
            self._say(f"MLflow at {printable(self._uri)} did not accept all data within {PATIENCE_SECONDS:.0f} s")

    def _describe(self, trial: TrialRecord) -> tuple[dict[str, str], dict[str, str]]:
        """Parameters and tags of a trial."""
        parameters = {name: str(value)[:MAX_VALUE] for name, value in trial.config.items()}
        changed = [
            f"{name.rpartition('.')[2]} {value}"
            for name, value in trial.config.items()
            if name in self._base and value != self._base[name] and not name.startswith("runtime.")
        ]
        tags = {
            TRIAL_TAG: trial.trial_id,
            RUN_TAG: self._run,
            "role": trial.role,
            "setting": (", ".join(changed) or "default")[:MAX_VALUE],
            **({"baseline": trial.baseline} if trial.baseline else {}),
        }
        return parameters, tags

    def _send_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            for last in (False, False, True):
                if self._broken:
                    break
                try:
                    job()
                    break
                except Exception as error:  # an error of the server or its client must not end the search
                    if not last:
                        time.sleep(PAUSE_SECONDS)
                        continue
                    self._broken = True
                    self._say(
                        f"MLflow at {printable(self._uri)} failed ({reason_of(error)}); the search continues without it"
                    )

    def _send(self, facts: tuple[Any, ...], described: tuple[dict[str, str], dict[str, str]] | None) -> None:
        from mlflow.entities import Metric, Param

        trial_id, status, reason, best, news = facts
        client = self._open()
        if trial_id not in self._ids:
            known = client.search_runs(
                [self._experiment], f"tags.`{TRIAL_TAG}` = '{trial_id}' and tags.`{RUN_TAG}` = '{self._run}'"
            )
            parameters, tags = described or ({}, {TRIAL_TAG: trial_id, RUN_TAG: self._run})
            if known:  # of an earlier driver of the same search
                self._ids[trial_id] = known[0].info.run_id
                news = [one for one in news if one["epoch"] > known[0].data.metrics.get("epoch", 0)]
            else:
                made = client.create_run(self._experiment, tags=tags, run_name=f"{self._run} {trial_id}")
                self._ids[trial_id] = made.info.run_id
                params = [Param(name, value) for name, value in parameters.items()]
                client.log_batch(self._ids[trial_id], params=params[:100])
        run_id = self._ids[trial_id]
        metrics = [
            Metric(name, float(value), round(one["reported_at"].timestamp() * 1000), one["epoch"])
            for one in news
            for name in ("epoch", *EPOCH_NUMBERS)
            if isinstance(value := one.get(name), int | float) and not isinstance(value, bool)
        ]
        if status in ENDED and best is not None:
            metrics.append(Metric(f"best_{self._metric}", float(best[self._metric]), round(time.time() * 1000), 0))
        for first in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[first : first + 1000])
        client.set_tag(run_id, "status", status)
        if reason:
            client.set_tag(run_id, "stop_reason", reason[:MAX_VALUE])
        if status in ENDED:
            client.set_terminated(run_id, "FAILED" if status in FAILED else "FINISHED")

    def _open(self) -> Any:
        """The client; the first call finds or creates the experiment."""
        if self._client is None:
            import os

            # Notice a missing server soon, not after minutes of attempts.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self._uri)
            name = f"digit-search {self._space}"
            found = client.get_experiment_by_name(name)
            self._experiment = client.create_experiment(name) if found is None else found.experiment_id
            self._client = client
        return self._client
