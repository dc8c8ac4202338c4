"""Runs Ray Tune's Tuner with our trainable, searcher, scheduler and recorder."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.samples import MissesKeeper
from search.monitor.view import setting_words
from search.policy.decisions import Policy
from search.policy.optuna_study import StudyView
from search.policy.plan import Plan
from search.policy.screen import Screen
from search.storage.disk_limit import Room
from search.storage.storage import TUNE_FOLDER, Storage
from search.tune.recorder import Recorder
from search.tune.scheduler import PolicyScheduler
from search.tune.search import Search
from search.tune.searcher import PolicySearcher
from search.tune.slots import Slots
from search.tune.trainable import run_trial, start_name

MOST_LETTERS = 100
"""Maximum length of a trial's name in Ray's dashboard."""


class EarlyEnd(Stopper):
    """Ends the whole run on a signal or at the end of its time budget."""

    def __init__(self, reason: Callable[[], str | None]) -> None:
        """Call `reason` at every step of Ray's loop; the run ends when it returns text."""
        self._reason = reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the run."""
        return self._reason() is not None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its stopper; the reason exists only in this process."""
        return {}


def fit(
    search: Search,
    slots: Slots,
    *,
    watcher: Callable[[RunRecord, str], None],
    ending: Callable[[], str | None],
    say: Callable[[str], None],
    progress: str,
) -> None:
    """Run all trials of a search that have not ended.

    Args:
        search: the search.
        slots: the number of slots and the resources of each.
        watcher: called with the record and a trial's id after each report and each end.
        ending: returns why the run must end early, or None.
        say: prints a sentence for the user.
        progress: where trials send their progress inside an epoch (`ProgressFollower.place`).

    Raises:
        SpaceError: a space drew an invalid configuration.
    """
    broken = False
    policy = Policy(search.plan, Screen(search.data.train.table, active=search.settings.screen))
    recorder = _build_recorder(search, policy, watcher, lambda: "interrupted" if broken else ending())
    recorder.check_saved()
    search.storage.delete_unreferenced({one.saved for one in search.record.trials.values() if one.saved is not None})
    same = {**_same_for_all(search, slots), "progress": progress}
    searcher = _build_searcher(search, slots, recorder, ending, say, same)
    tuner = tune.Tuner(
        tune.with_resources(run_trial, {"cpu": slots.cpus, **({"gpu": slots.gpus} if slots.gpus else {})}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PolicyScheduler(policy, search.record, search.settings.metric),
            num_samples=-1,  # the searcher says when nothing is left; restarts count as samples, too
            # Ray starts this many processes at once, and asks for a configuration only when a slot is free.
            max_concurrent_trials=slots.count,
            reuse_actors=True,  # a new process needs seconds for its imports
            trial_name_creator=_trial_words(search.plan),
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            # A resumed run reads the checkpoints of the earlier driver: each driver has its own folder.
            name=search.driver,
            storage_path=str((search.folder / TUNE_FOLDER).resolve()),
            stop=EarlyEnd(ending),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except BaseException:
        broken = True  # running trials can be continued with --resume
        raise
    finally:
        recorder.finish()


def _build_recorder(
    search: Search,
    policy: Policy,
    watcher: Callable[[RunRecord, str], None],
    ending: Callable[[], str | None],
) -> Recorder:
    """The recorder of a search, which also updates the misses and the Optuna journal."""
    folder, valid = search.folder, search.data.valid
    return Recorder(
        search.events,
        search.storage,
        policy,
        keep=search.settings.keep,
        watcher=watcher,
        ending=ending,
        views=(MissesKeeper(folder, valid.table, valid.image).follow, StudyView(folder, search.plan.space).follow),
    )


def _build_searcher(
    search: Search,
    slots: Slots,
    recorder: Recorder,
    ending: Callable[[], str | None],
    say: Callable[[str], None],
    same: dict[str, Any],
) -> PolicySearcher:
    """The searcher of a search, which gives `same` to all trials; none starts while disk or storage fail."""
    storage = search.storage
    room = Room(
        search.folder, slots=slots.count, most=search.settings.disk_bytes, say=say, regained=search.events.reserve
    )
    return PolicySearcher(
        recorder.policy,
        recorder,
        metric=search.settings.metric,
        start=lambda trial: {**same, **start_of(storage, trial)},
        held=lambda: room.held() or search.copier.fault is not None,
        ending=ending,
    )


def _same_for_all(search: Search, slots: Slots) -> dict[str, Any]:
    """The values that Ray passes to every trial."""
    storage = search.storage
    return {
        "data": asdict(search.settings.data),
        "fingerprint": search.data.fingerprint,
        "metric": search.settings.metric,
        "latency_of": [size for size, name in ((1, "latency"), (32, "latency_32")) if name in search.settings.costs],
        "sweep": search.plan.sweep,
        # Trials write to a remote storage themselves, without Ray.
        "storage": storage.reference(f"{TUNE_FOLDER}/{search.driver}") if storage.is_remote else None,
        # Ray does not hide the GPUs from trials that requested none.
        "device": "auto" if slots.gpus else "cpu",
    }


def start_of(storage: Storage, trial: TrialRecord) -> dict[str, Any]:
    """The last checkpoint of a trial and its number of earlier starts."""
    saved = storage.saved(trial)
    return {"resume_from": None if saved is None else storage.reference(saved), "starts": len(trial.faults)}


def _trial_words(plan: Plan) -> Callable[[Trial], str]:
    """The function for the names in Ray's dashboard: a trial's id and the parameters that it changes."""
    base = {**plan.base.to_flat(), **plan.space.fixed}

    def words(trial: Trial) -> str:
        return f"{_trial_name(trial)} {setting_words(trial.config['config'], base)}"[:MOST_LETTERS]

    return words


def _trial_name(trial: Trial) -> str:
    """The name of Ray's folder for a start of a trial."""
    return start_name(str(trial.config["trial_id"]), int(trial.config["starts"]))
