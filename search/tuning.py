"""Ray Tune's Tuner around our trainable, searcher, scheduler and recorder."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from digits_core.anchors import setting_digest
from digits_core.cache import DigitData
from digits_core.config import TrainConfig
from results.record import EventWriter, RunRecord, TrialRecord
from results.samples import MissesKeeper
from results.schema import ENDED
from search.further import FurtherTrials
from search.progress import setting_words
from search.recorder import Recorder
from search.room import Room
from search.sampler import Proposal, SettingSearcher, next_number
from search.scheduler import RuleScheduler, build_rule
from search.screen import Screen
from search.settings import Plan, SearchSettings
from search.slots import Slots
from search.storage import TUNE_FOLDER, Storage
from search.study import close_strays, open_study, open_trial, state_of
from search.trainable import run_trial, start_name

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
    record, drivers = events.record, events.record.num_drivers
    study = open_study(folder, settings, plan, drivers=drivers, make_room=events.release, record=record, say=say)
    broken, driver = False, f"{drivers:03d}"

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
        followers=(MissesKeeper(folder, data.valid.table, data.valid.image).follow,),
    )
    settle(events.record, study, recorder)
    storage.sweep({trial.saved for trial in events.record.trials.values() if trial.saved is not None})
    searched = [trial for trial in record.trials.values() if trial.role == "search"]
    further = FurtherTrials(
        record, replicates=settings.replicates, top=settings.replicate_top, confirm=settings.confirm
    )
    room = Room(folder, slots=slots.count, most=settings.disk_bytes, say=say, regained=events.reserve)
    searcher = SettingSearcher(
        plan.space,
        plan.base,
        study,
        metric=settings.metric,
        num_trials=plan.trials,
        sampler=settings.sampler,
        payload={
            "data": asdict(settings.data),
            "fingerprint": data.fingerprint,
            "metric": settings.metric,
            "sweep": plan.sweep,
            # A storage that is apart is written to by the trials themselves: Ray knows nothing of it.
            "storage": storage.where(f"{TUNE_FOLDER}/{driver}") if storage.apart else None,
            # Ray hides no GPU from trials that asked for none.
            "device": "auto" if slots.gpus else "cpu",
        },
        on_propose=recorder.propose,
        ending=why,
        screen=Screen(
            data.train.table,
            active=settings.screen,
            best_baseline=max(
                (trial.coverage["mean_iou"] for trial in searched if trial.baseline and trial.coverage), default=None
            ),
        ),
        on_screen=recorder.screened,
        further=further.next,
        held=lambda: room.held() or waits(),
        again=lambda broken: start_again(storage, record, broken),
        waiting=unfinished(storage, record, study),
        tried=[digest for trial in searched for digest in (trial.config_hash, longer_digest(trial, plan))],
        num_tried=sum(trial.status != "screened" for trial in searched),
        first_number=next_number(record),
        values=known_values(record),
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
        try:
            searcher.close()
        finally:
            recorder.finish()


def unfinished(storage: Storage, record: RunRecord, study: optuna.Study) -> list[Proposal]:
    """The trials of an earlier driver that have not ended, each to go on from its last checkpoint."""
    return [
        start_of(storage, trial, open_trial(study, trial.trial_id))
        for trial in record.trials.values()
        if to_go_on(trial)
    ]


def to_go_on(trial: TrialRecord) -> bool:
    """Whether something is left to train of a trial that nothing runs now."""
    return trial.status not in ENDED and not trial.done and trial.role != "retrain"


def start_of(storage: Storage, trial: TrialRecord, optuna_trial: optuna.Trial | None) -> Proposal:
    """A trial from its last checkpoint."""
    saved = storage.saved(trial)
    return Proposal(
        trial.trial_id,
        TrainConfig.from_flat(trial.config),
        role=trial.role,
        baseline=trial.baseline,
        optuna_trial=optuna_trial,
        resume_from=None if saved is None else storage.where(saved),
        starts=len(trial.faults),
    )


def start_again(storage: Storage, record: RunRecord, broken: Proposal) -> Proposal | TrialState:
    """What to start in the place of a training that a fault broke off, or what Optuna is told of its end."""
    trial = record.trials[broken.trial_id]
    return start_of(storage, trial, broken.optuna_trial) if to_go_on(trial) else state_of(trial)


def settle(record: RunRecord, study: optuna.Study, recorder: Recorder) -> None:
    """End what the driver before was killed over: trials with nothing left to train, and what Optuna has not heard."""
    for trial in list(record.trials.values()):
        if trial.status not in ENDED and trial.role != "retrain" and not to_go_on(trial):
            recorder.settle(trial.trial_id)
    close_strays(study, record)


def longer_digest(trial: TrialRecord, plan: Plan) -> str:
    """The digest of a trial's setting trained for as many epochs as the plan says: it is not proposed again."""
    return setting_digest(TrainConfig.from_flat({**trial.config, "optim.epochs": plan.base.optim.epochs}))


def known_values(record: RunRecord) -> dict[str, float]:
    """The best score of each setting tried before, by its digest."""
    values = {}
    for trial in record.trials.values():
        best = trial.best(record.metric)
        if best is not None and trial.role == "search":
            values[trial.config_hash] = float(best[record.metric])
    return values


def _trial_words(plan: Plan) -> Callable[[Trial], str]:
    """How Ray names a trial to people: with what its setting changes."""
    base = {**plan.base.to_flat(), **plan.space.fixed}

    def words(trial: Trial) -> str:
        return f"{_trial_name(trial)} {setting_words(trial.config['config'], base)}"[:MOST_LETTERS]

    return words


def _trial_name(trial: Trial) -> str:
    """Ray keeps each start of a trial in a folder of its own."""
    return start_name(str(trial.config["trial_id"]), int(trial.config["starts"]))
