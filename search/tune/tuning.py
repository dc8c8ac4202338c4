"""Ray Tune's Tuner around our trainable, searcher, scheduler and recorder."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from digits_core.cache import DigitData
from results.record import EventWriter, RunRecord, TrialRecord
from results.samples import MissesKeeper
from results.schema import ENDED
from search.cli.settings import Plan, SearchSettings
from search.monitor.progress import setting_words
from search.policy.further import FurtherTrials
from search.policy.history import StudyView
from search.policy.proposals import Proposer
from search.policy.screen import Screen
from search.policy.stopping import build_rule
from search.storage.disk import Room
from search.storage.places import TUNE_FOLDER, Storage
from search.tune.recorder import Recorder
from search.tune.scheduler import RuleScheduler
from search.tune.searcher import SettingSearcher, to_go_on
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
    settings: SearchSettings,
    plan: Plan,
    data: DigitData,
    folder: Path,
    events: EventWriter,
    slots: Slots,
    watcher: Callable[[RunRecord, str], None],
    ending: Callable[[], str | None],
    say: Callable[[str], None],
    storage: Storage,
    waits: Callable[[], bool],
) -> None:
    """Run every trial of a plan that has not ended.

    Args:
        settings: what was asked.
        plan: the same, resolved.
        data: opened, for its fingerprint.
        folder: the run folder.
        events: its open record, holding what an earlier driver did.
        slots: what each trial gets.
        watcher: called after each report and each end.
        ending: why the run is to end early, or None.
        say: tells the person at the terminal a sentence.
        storage: where checkpoints lie.
        waits: whether nothing new may start for now, for want of the storage.

    Raises:
        SpaceError: a space drew a setting that cannot be.
    """
    broken, driver = False, f"{events.record.num_drivers:03d}"

    def why() -> str | None:
        return "interrupted" if broken else ending()

    rule = build_rule(settings.scheduler, plan.base.optim.epochs, events.record)
    scheduler = RuleScheduler(rule, settings.metric)
    recorder = Recorder(
        folder,
        events,
        storage,
        space=plan.space.name,
        keep=settings.keep,
        hold=max(settings.replicate_top if settings.replicates > 1 else 0, settings.confirm + 1),
        max_failures=settings.max_failures,
        cuts=scheduler.cuts,
        ending=why,
        watcher=watcher,
        followers=(
            MissesKeeper(folder, data.valid.table, data.valid.image).follow,
            StudyView(folder, plan.space).follow,
        ),
    )
    settle(events.record, recorder)
    storage.sweep({trial.saved for trial in events.record.trials.values() if trial.saved is not None})
    record = events.record
    further = FurtherTrials(
        record, replicates=settings.replicates, top=settings.replicate_top, confirm=settings.confirm
    )
    room = Room(folder, slots=slots.count, most=settings.disk_bytes, say=say, regained=events.reserve)
    proposer = Proposer(
        plan.space,
        plan.base,
        sampler=settings.sampler,
        seed=settings.seed,
        num_trials=plan.trials,
        screen=Screen(data.train.table, active=settings.screen),
    )
    payload = {
        "data": asdict(settings.data),
        "fingerprint": data.fingerprint,
        "metric": settings.metric,
        "sweep": plan.sweep,
        # A storage that is apart is written to by the trials themselves: Ray knows nothing of it.
        "storage": storage.where(f"{TUNE_FOLDER}/{driver}") if storage.apart else None,
        # Ray hides no GPU from trials that asked for none.
        "device": "auto" if slots.gpus else "cpu",
    }
    searcher = SettingSearcher(
        record,
        proposer,
        further,
        metric=settings.metric,
        write=recorder.add,
        start=lambda trial: {**payload, **start_of(storage, trial)},
        held=lambda: room.held() or waits(),
        ending=ending,
    )
    resources = {"cpu": slots.cpus, **({"gpu": slots.gpus} if slots.gpus else {})}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when there is nothing left, trials started again among it
            # Ray starts as many processes at once, and asks for no setting before a slot is free for it.
            max_concurrent_trials=slots.count,
            reuse_actors=True,  # a fresh process costs seconds of imports
            trial_name_creator=_trial_words(plan),
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            # A resumed run reads the checkpoints of the one before: their names must not meet.
            name=driver,
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


def start_of(storage: Storage, trial: TrialRecord) -> dict[str, Any]:
    """Where a trial begins: its last checkpoint, and how often a fault broke it off."""
    saved = storage.saved(trial)
    return {"resume_from": None if saved is None else storage.where(saved), "starts": len(trial.faults)}


def settle(record: RunRecord, recorder: Recorder) -> None:
    """End what the driver before was killed over: trials with nothing left to train."""
    for trial in list(record.trials.values()):
        if to_go_on(trial):
            recorder.check_saved(trial.trial_id)
        elif trial.status not in ENDED and trial.role != "retrain":
            recorder.settle(trial.trial_id)


def _trial_words(plan: Plan) -> Callable[[Trial], str]:
    """How Ray names a trial to people: with what its setting changes."""
    base = {**plan.base.to_flat(), **plan.space.fixed}

    def words(trial: Trial) -> str:
        return f"{_trial_name(trial)} {setting_words(trial.config['config'], base)}"[:MOST_LETTERS]

    return words


def _trial_name(trial: Trial) -> str:
    """Ray keeps each start of a trial in a folder of its own."""
    return start_name(str(trial.config["trial_id"]), int(trial.config["starts"]))
