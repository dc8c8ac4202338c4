"""Ray Tune's Tuner around our trainable, searcher, scheduler and recorder."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.samples import MissesKeeper
from search.monitor.progress import setting_words
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
"""Of a trial's name as Ray shows it."""


class EarlyEnd(Stopper):
    """Ends the whole run when there is a reason to."""

    def __init__(self, reason: Callable[[], str | None]) -> None:
        """Ask `reason` at every step of Ray's loop."""
        self._reason = reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops one trial alone."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the run."""
        return self._reason() is not None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its parts with a run; the reason lives in this process alone."""
        return {}


def fit(
    search: Search,
    slots: Slots,
    *,
    watcher: Callable[[RunRecord, str], None],
    ending: Callable[[], str | None],
    say: Callable[[str], None],
) -> None:
    """Run every trial of a search that has not ended.

    Args:
        search: what to run.
        slots: what each trial gets.
        watcher: called after each report and each end.
        ending: why the run is to end early, or None.
        say: tells the person at the terminal a sentence.

    Raises:
        SpaceError: a space drew a setting that cannot be.
    """
    settings, plan, data, events, storage = search.settings, search.plan, search.data, search.events, search.storage
    record, folder, same = search.record, search.folder, _same_for_all(search, slots)
    broken = False
    policy = Policy(plan, Screen(data.train.table, active=settings.screen))
    recorder = Recorder(
        folder,
        events,
        storage,
        policy,
        keep=settings.keep,
        watcher=watcher,
        ending=lambda: "interrupted" if broken else ending(),
        views=(
            MissesKeeper(folder, data.valid.table, data.valid.image).follow,
            StudyView(folder, plan.space).follow,
        ),
    )
    recorder.check_saved()
    storage.delete_unreferenced({trial.saved for trial in record.trials.values() if trial.saved is not None})
    room = Room(folder, slots=slots.count, most=settings.disk_bytes, say=say, regained=events.reserve)
    searcher = PolicySearcher(
        policy,
        recorder,
        metric=settings.metric,
        start=lambda trial: {**same, **start_of(storage, trial)},
        held=lambda: room.held() or search.copier.fault is not None,
        ending=ending,
    )
    resources = {"cpu": slots.cpus, **({"gpu": slots.gpus} if slots.gpus else {})}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PolicyScheduler(policy, record, settings.metric),
            num_samples=-1,  # the searcher says when there is nothing left, trials started again among it
            # Ray starts as many processes at once, and asks for no setting before a slot is free for it.
            max_concurrent_trials=slots.count,
            reuse_actors=True,  # a fresh process costs seconds of imports
            trial_name_creator=_trial_words(plan),
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            # A resumed run reads the checkpoints of the one before: their names must not meet.
            name=search.driver,
            storage_path=str((folder / TUNE_FOLDER).resolve()),
            stop=EarlyEnd(ending),
            callbacks=[recorder],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except BaseException:
        broken = True  # what was under way can go on with --resume
        raise
    finally:
        recorder.finish()


def _same_for_all(search: Search, slots: Slots) -> dict[str, Any]:
    """What Ray hands to every trial."""
    storage = search.storage
    return {
        "data": asdict(search.settings.data),
        "fingerprint": search.data.fingerprint,
        "metric": search.settings.metric,
        "sweep": search.plan.sweep,
        # A remote storage is written to by the trials themselves: Ray knows nothing of it.
        "storage": storage.reference(f"{TUNE_FOLDER}/{search.driver}") if storage.is_remote else None,
        # Ray hides no GPU from trials that asked for none.
        "device": "auto" if slots.gpus else "cpu",
    }


def start_of(storage: Storage, trial: TrialRecord) -> dict[str, Any]:
    """Where a trial begins: its last checkpoint, and how often a fault broke it off."""
    saved = storage.saved(trial)
    return {"resume_from": None if saved is None else storage.reference(saved), "starts": len(trial.faults)}


def _trial_words(plan: Plan) -> Callable[[Trial], str]:
    """How Ray names a trial to people: with what its setting changes."""
    base = {**plan.base.to_flat(), **plan.space.fixed}

    def words(trial: Trial) -> str:
        return f"{_trial_name(trial)} {setting_words(trial.config['config'], base)}"[:MOST_LETTERS]

    return words


def _trial_name(trial: Trial) -> str:
    """Ray keeps each start of a trial in a folder of its own."""
    return start_name(str(trial.config["trial_id"]), int(trial.config["starts"]))
