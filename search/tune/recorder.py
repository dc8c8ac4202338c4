"""A Tune callback: records every report as an event, and updates the Parquet views within seconds."""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from digits_core.credentials import scrub
from digits_core.files import (
    BEST_FOLDER,
    CLASSES_FILE,
    CONFIG_FILE,
    CONFIRM_FILE,
    MATCHES_FILE,
    MODEL_FILE,
    THRESHOLDS_FILE,
    copy_checked,
    file_digest,
)
from digits_core.model.anchors import setting_digest
from digits_core.model.checkpoint_state import is_whole, load_state
from results.record.folder import CHECKPOINTS, LOGS_FOLDER, THRESHOLDS
from results.record.log import FULL, EventWriter
from results.record.run import RunRecord
from results.record.schema import ENDED, EPOCH_NUMBERS
from results.record.trial import TrialRecord
from results.tables.matches import drop_matches, matches_path, resampled_scores
from results.tables.parquet import replacing
from results.views.leaderboard import write_views
from search.policy.decisions import End, Policy, how_it_ended, is_open
from search.policy.faults import DIVERGED, PLAIN, Fault, classify, kernel_kills
from search.policy.proposals import Proposed
from search.storage.new_folder import new_folder
from search.storage.storage import SAVED, Storage, StorageError

VIEW_SECONDS, VIEW_SHARE = 3.0, 0.1
"""The Parquet views are rewritten at most every `VIEW_SECONDS` for `VIEW_SHARE` of the time, and at the end."""


class Recorder(Callback):
    """Writes the events of a search into its run folder."""

    def __init__(
        self,
        events: EventWriter,
        storage: Storage,
        policy: Policy,
        *,
        keep: int,
        watcher: Callable[[RunRecord, str], None],
        ending: Callable[[], str | None] = lambda: None,
        views: Sequence[Callable[[RunRecord], None]] = (),
    ) -> None:
        """Record into the run folder of a storage.

        Args:
            events: the open record of the run.
            storage: the storage of its checkpoints.
            policy: decides why a report stops its trial, and what follows a fault.
            keep: number of best configurations whose checkpoints are kept, from their first trainings.
            watcher: called with the record and a trial's id after each report and each end.
            ending: why the whole run ends: `interrupted`, `time budget` or None.
            views: called with the record after each update of the Parquet views.
        """
        self._folder, self._events, self._storage, self.policy = storage.folder, events, storage, policy
        self._keep, self._kernel_kills = keep, kernel_kills()
        self._ending, self._watcher, self._views = ending, watcher, views
        self._written, self._took, self._dirty = 0.0, 0.0, True
        self._diverged: dict[str, str] = {}
        self._unkept: list[tuple[str, End]] = []
        # About a second of numpy for each ended trial, in another thread so that reports do not wait for it.
        self._bootstraps = ThreadPoolExecutor(1, thread_name_prefix="bootstrap")

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its callbacks; an open record cannot be pickled."""
        return {}

    @property
    def record(self) -> RunRecord:
        """The record of the run."""
        return self._events.record

    @property
    def closing(self) -> set[str]:
        """Trials whose ends are recorded once the disk has space."""
        return {name for name, _ in self._unkept}

    def add(self, name: str, role: str, found: Proposed) -> None:
        """Record a new trial before it starts, and its end if it is screened out."""
        self._events.write(
            "trial",
            trial_id=name,
            space=self.policy.plan.space.name,
            role=role,
            baseline=found.baseline,
            config=found.config.to_flat(),
            config_hash=setting_digest(found.config),
            seed=found.config.runtime.seed,
            params=found.params,
            coverage=None if found.coverage is None else asdict(found.coverage),
        )
        if found.screened is not None:
            self._events.write("end", trial_id=name, status="screened", reason=found.screened)
        self._dirty = True

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial starts in a slot."""
        drop_matches(self._folder, _name(trial))  # of an earlier start: this one may have another best epoch
        self._events.write("start", trial_id=_name(trial))
        self._show(_name(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, or remember why the trial diverged."""
        if DIVERGED in result:
            self._diverged[_name(trial)] = str(result[DIVERGED])
            return
        values = {key: _finite(result[key]) for key in EPOCH_NUMBERS if key in result}
        for key in ("model", "optima", "confirm", "cost"):
            if key in result:
                values[key] = json.loads(result[key])
        for key in ("device", "weights"):
            if key in result:
                values[key] = result[key]
        epoch, early = int(result["epoch"]), bool(result["early_stopped"])
        cut = self.policy.judge(self.record, _name(trial), epoch, values.get(self.record.metric))
        if cut is not None:
            values["cut"] = cut
        self._events.write("report", trial_id=_name(trial), epoch=epoch, early_stopped=early, **values)
        if SAVED in result:
            self._saved(_name(trial), str(result[SAVED]), epoch)
        self._show(_name(trial))

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: Any, **info: Any) -> None:
        """Ray has stored a checkpoint; only a complete one replaces the last one."""
        folder = Path(checkpoint.path)
        if is_whole(folder):
            self._saved(_name(trial), self._storage.relative(checkpoint.path), load_state(folder).epoch)

    def _saved(self, name: str, path: str, epoch: int) -> None:
        """Record a new checkpoint of a trial after an epoch, and delete the last one."""
        before = self.record.trials[name].saved
        self._events.write("checkpoint", trial_id=name, path=path, epoch=epoch)
        if before is not None and before != path:
            self._storage.delete(before)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended without an error: finished, stopped, interrupted, or diverged."""
        name = _name(trial)
        if name in self._diverged:
            self._handle_fault(name, Fault(DIVERGED, self._diverged.pop(name)))
        else:
            self.settle(name)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial failed with an error."""
        name, text = _name(trial), _error_text(trial)
        fault = classify(text)
        if text:
            self._log(name, text)
        kills = kernel_kills()
        if fault.kind == "worker_died" and kills > self._kernel_kills:
            fault = Fault("out_of_memory", "the kernel killed its process: the machine was out of memory")
        self._kernel_kills = kills
        self._handle_fault(name, fault)

    def _log(self, name: str, text: str) -> None:
        """Append Ray's text of an error to the log of its trial."""
        start = len(self.record.trials[name].faults) + 1
        with contextlib.suppress(OSError):  # a full disk: the record contains the reason
            (self._folder / LOGS_FOLDER).mkdir(exist_ok=True)
            with (self._folder / LOGS_FOLDER / f"{name}.txt").open("a", encoding="utf-8") as log:
                log.write(f"start {start} of {name}:\n{scrub(text).rstrip()}\n\n")

    def _handle_fault(self, name: str, fault: Fault) -> None:
        """Record a fault, after which the trial is restarted, or the end of the trial."""
        known = self.record.trials[name]
        after = self.policy.after_fault(known, fault)
        if isinstance(after, End):
            self._end(name, after)
            return
        self._events.write(
            "fault", trial_id=name, fault=fault.kind, reason=fault.reason, epoch=known.num_epochs, change=after
        )
        self._show(name)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called often by Ray's loop: updates the views also when the next event comes much later."""
        if self._dirty and time.monotonic() - self._written >= max(VIEW_SECONDS, self._took / VIEW_SHARE):
            self._end_unkept()
            self._dirty = bool(self._unkept)
            self._write_views()

    def settle(self, name: str) -> None:
        """Record the end of a trial that has finished training, or was stopped."""
        self._end(name, how_it_ended(self.record.trials[name], self._ending()))

    def _end_unkept(self) -> None:
        waiting, self._unkept = self._unkept, []
        for name, end in waiting:
            self._end(name, end)

    def finish(self) -> None:
        """Record the ends of trials that Ray stopped without a callback when the run ended early; write the views."""
        self._end_unkept()
        for trial in list(self.record.trials.values()):
            if trial.status == "running" and trial.role != "retrain":
                self.settle(trial.trial_id)
        self._bootstraps.shutdown()
        if all(t.status in ENDED for t in self.record.trials.values() if t.role != "retrain"):
            self._drop_losers(self._keep)
        self._write_views(make=True)

    def _end(self, name: str, end: End) -> None:
        try:
            damage = self._keep_best(name)
        except OSError as error:
            lacking = self._storage.is_remote and isinstance(error, FileNotFoundError)
            fault = "storage" if lacking or isinstance(error, StorageError) else "disk_full"
            if fault == "disk_full" and error.errno not in FULL:
                raise
            # The end is recorded once there is space: the checkpoint to copy from still exists.
            known = self.record.trials[name]
            if known.status != "interrupted":
                self._events.write("fault", trial_id=name, fault=fault, reason=PLAIN[fault], epoch=known.num_epochs)
            self._unkept.append((name, end))
            self._dirty = True  # so that `on_step_end` tries again
            return
        if damage is not None:
            self._train_again(name, damage)
            return
        self._events.write("end", trial_id=name, status=end.status, reason=end.reason)
        ahead = self.policy.outlook(self.record)
        if ahead is not None and end.status in ENDED and self.record.trials[name].role == "search":
            self._events.write("outlook", **ahead.to_event())
        self._drop_losers(self.policy.kept(self._keep))
        trial = self.record.trials[name]
        if end.status in ENDED and (
            end.status != "finished" or trial.checkpoint is None
        ):  # a kept one may be extended later
            self._drop_saved(trial)
        self._show(name)

    def _drop_saved(self, trial: TrialRecord) -> None:
        """Delete the checkpoint that a trial would continue from."""
        if trial.saved is not None:
            self._storage.delete(trial.saved)

    def check_saved(self) -> None:
        """Check the last checkpoints of trials of an earlier driver; a power cut may have damaged them."""
        if self._storage.is_remote:
            return
        for name, trial in list(self.record.trials.items()):
            continues = is_open(trial) and not trial.done
            if continues and trial.saved is not None and not self._storage.is_whole(trial.saved):
                self._train_again(name, "is damaged or missing")

    def _train_again(self, name: str, damage: str) -> None:
        """Let a trial whose last checkpoint is damaged continue from the last complete one, or from the start."""
        path, epoch = self._storage.last_whole(name)
        self._events.write("checkpoint", trial_id=name, path=path, epoch=epoch)
        after = f"trains again after epoch {epoch}" if epoch else "trains again from the start"
        reason = f"its last checkpoint {damage}; it {after}"
        self._events.write("fault", trial_id=name, fault="checkpoint", reason=reason, epoch=epoch)
        self._show(name)

    def _keep_best(self, name: str) -> str | None:
        """Copy the best epoch's model and its threshold sweep out of the last checkpoint.

        Returns:
            What is wrong with the checkpoint, in words; None if nothing is.
        """
        saved = self.record.trials[name].saved
        if saved is None:
            return None
        if not self._storage.is_whole(saved):
            return "is damaged or missing"
        with self._storage.local_copy(f"{saved}/{BEST_FOLDER}") as best:
            if best is None:
                return None
            return self._take(name, best)

    def _take(self, name: str, best: Path) -> str | None:
        """Copy the best epoch's files into the run folder; returns what is wrong with them, or None."""
        trial = self.record.trials[name]
        expected = trial.weights.get(trial.best_epoch(self.record.metric) or 0)
        if expected is not None and file_digest(best / MODEL_FILE) != expected:
            return "contains the model of another epoch than the best"
        with new_folder(self._folder / CHECKPOINTS / name, replace=True) as half:
            for file in (MODEL_FILE, CONFIG_FILE, CLASSES_FILE):
                copy_checked(best / file, half / file)
        for file, place in (
            (THRESHOLDS_FILE, self._folder / THRESHOLDS / f"{name}.parquet"),
            (MATCHES_FILE, matches_path(self._folder, name, "val")),
            (CONFIRM_FILE, matches_path(self._folder, name, "confirm")),
        ):
            if (best / file).is_file():
                place.parent.mkdir(exist_ok=True)
                with replacing(place) as half:
                    copy_checked(best / file, half)
        for part in ("val", "confirm"):
            self._bootstraps.submit(resampled_scores, self._folder, name, trial.config, part)
        self._events.write("kept", trial_id=name, path=f"{CHECKPOINTS}/{name}")
        return None

    def _drop_losers(self, keep: int) -> None:
        """Delete the checkpoints of all trials but the first trainings of the `keep` best configurations."""
        leads = [trial.trial_id for trial in self.record.settings() if trial.checkpoint is not None][:keep]
        kept = [t for t in self.record.trials.values() if t.checkpoint is not None and t.role != "retrain"]
        for loser in (trial for trial in kept if trial.trial_id not in leads):
            shutil.rmtree(self._folder / str(loser.checkpoint), ignore_errors=True)
            if loser.status in ENDED:
                self._drop_saved(loser)
            self._events.write("kept", trial_id=loser.trial_id, path=None)

    def _show(self, name: str) -> None:
        self._watcher(self.record, name)
        self._dirty = True

    def _write_views(self, *, make: bool = False) -> None:
        started = time.monotonic()
        try:
            write_views(self._folder, self.record, make=make)
            for view in self._views:
                view(self.record)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._dirty = True  # the old views stay until there is space
        self._written = time.monotonic()
        self._took = self._written - started


def _finite(value: Any) -> Any:
    """The value, or None if JSON has no such number."""
    return value if value is None or math.isfinite(value) else None


def _error_text(trial: Trial) -> str:
    """The text of a trial's error in Ray's file, which is first written on this machine."""
    file = trial.error_file
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace") if file else ""
    except OSError:
        return ""


def _name(trial: Trial) -> str:
    return str(trial.config["trial_id"])
