"""Ray Tune's Tuner around our trainable, searcher, scheduler and recorder."""

import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from digits_core.cache import DigitData
from digits_core.config import TrainConfig
from results.record import EventWriter, RunRecord
from results.schema import ENDED
from search.cluster import Slots
from search.further import FurtherTrials
from search.recorder import Recorder
from search.sampler import Proposal, SettingSearcher, build_sampler
from search.scheduler import build_scheduler
from search.screen import Screen
from search.settings import Plan, SearchSettings
from search.trainable import run_trial

STUDY_FILE = "study.journal"
TUNE_FOLDER = "tune"


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

    Raises:
        SpaceError: a space drew a setting that cannot be.
    """
    study = open_study(folder, settings, plan, drivers=events.record.num_drivers)
    broken = False

    def why() -> str | None:
        return "interrupted" if broken else ending()

    scheduler = build_scheduler(settings.scheduler, settings.metric, plan.base.optim.epochs)
    recorder = Recorder(
        folder,
        events,
        space=plan.space.name,
        keep=settings.keep,
        hold=max(settings.replicate_top if settings.replicates > 1 else 0, settings.confirm + 1),
        reasons=scheduler.reasons,
        ending=why,
        watcher=watcher,
    )
    settle(events.record, study, recorder)
    record = events.record
    searched = [trial for trial in record.trials.values() if trial.role == "search"]
    further = FurtherTrials(
        record, replicates=settings.replicates, top=settings.replicate_top, confirm=settings.confirm
    )
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
        waiting=unfinished(record, study),
        tried=[trial.config_hash for trial in searched],
        num_tried=sum(trial.status != "screened" for trial in searched),
        num_trials_before=len(record.trials),
        values=known_values(record),
    )
    resources = {"cpu": slots.cpus, **({"gpu": slots.gpus} if slots.gpus else {})}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=plan.trials + further.most(plan.trials),
            # Ray starts as many processes at once, and asks for no setting before a slot is free for it.
            max_concurrent_trials=slots.count,
            reuse_actors=True,  # a fresh process costs seconds of imports
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            # A resumed run reads the checkpoints of the one before: their names must not meet.
            name=f"{events.record.num_drivers:03d}",
            storage_path=str((folder / TUNE_FOLDER).resolve()),
            stop=EarlyEnd(ending),
            callbacks=[recorder],
            verbose=0,
            # The last checkpoint carries the best epoch's model along.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        tuner.fit()
    except BaseException:
        broken = True  # what was under way can go on with --resume
        raise
    finally:
        searcher.close()
        recorder.finish()


def open_study(folder: Path, settings: SearchSettings, plan: Plan, *, drivers: int) -> optuna.Study:
    """Optuna's memory of the run, in a journal that optuna-dashboard opens."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(folder / STUDY_FILE)))
    return optuna.create_study(
        study_name=settings.name,
        storage=storage,
        # A resumed run that drew the same numbers again would propose what it has tried.
        sampler=build_sampler(settings.sampler, settings.seed + 7919 * (drivers - 1), plan.trials),
        pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides
        direction="maximize",
        load_if_exists=True,
    )


def unfinished(record: RunRecord, study: optuna.Study) -> list[Proposal]:
    """The trials of an earlier driver that have not ended, each to go on from its last checkpoint."""
    return [
        Proposal(
            trial.trial_id,
            TrainConfig.from_flat(trial.config),
            role=trial.role,
            baseline=trial.baseline,
            optuna_trial=_optuna_trial(study, trial.optuna_number),
            resume_from=trial.saved if trial.saved is not None and Path(trial.saved).is_dir() else None,
        )
        for trial in record.trials.values()
        if trial.status not in ENDED and not trial.trained_out
    ]


def settle(record: RunRecord, study: optuna.Study, recorder: Recorder) -> None:
    """End the trials that had reported their last epoch when the driver before was killed."""
    for trial in list(record.trials.values()):
        if trial.status in ENDED or not trial.trained_out:
            continue
        recorder.settle(trial.trial_id)
        best, known = trial.best(record.metric), _optuna_trial(study, trial.optuna_number)
        if known is not None and best is not None:
            study.tell(known, float(best[record.metric]))


def known_values(record: RunRecord) -> dict[str, float]:
    """The best score of each setting tried before, by its digest."""
    values = {}
    for trial in record.trials.values():
        best = trial.best(record.metric)
        if best is not None and trial.role == "search":
            values[trial.config_hash] = float(best[record.metric])
    return values


def _optuna_trial(study: optuna.Study, number: int | None) -> optuna.Trial | None:
    known = study.get_trials(deepcopy=False)
    if number is None or number >= len(known) or known[number].state.is_finished():
        return None
    return optuna.Trial(study, known[number]._trial_id)


def _trial_name(trial: Trial) -> str:
    return str(trial.config["trial_id"])
