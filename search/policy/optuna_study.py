"""An Optuna study made from the record of a run; and study.journal, its file for optuna-dashboard."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from digits_core.errors import UserError
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.tables.parquet import replacing
from spaces.registry import OneByOneSampler, Space, quiet_study

STUDY_FILE = "study.journal"

TRIAL_ATTR = "trial_id"
"""User attribute of Optuna's trials: the trial's id in the run."""

_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "screened": TrialState.PRUNED}


def study_of(record: RunRecord, space: Space, study: optuna.Study) -> optuna.Study:
    """Add every drawn configuration of a run to a study, in the order of their proposals; returns the study."""
    study.add_trials([frozen for trial in record.trials.values() if (frozen := frozen_trial(trial, record, space))])
    return study


def frozen_trial(trial: TrialRecord, record: RunRecord, space: Space) -> FrozenTrial | None:
    """A drawn configuration as an Optuna trial; None for baselines, for replicates, and for values not in the space.

    A stopped trial is PRUNED, one that failed or has no score is FAIL, one that is not finished is RUNNING.
    """
    if trial.role != "search" or not trial.params:
        return None
    of_space, found = trial.known.get("frozen", (None, None))
    if of_space is not space:  # a resumed run may have another space
        found = _frozen(trial, record, space)
        trial.known["frozen"] = space, found
    return found  # type: ignore[no-any-return]


def _frozen(trial: TrialRecord, record: RunRecord, space: Space) -> FrozenTrial | None:
    distributions = distributions_of(trial.params, space)
    if not distributions:
        return None
    ended = "running" if trial.status in ("running", "interrupted") else trial.status
    state = TrialState.RUNNING if ended == "running" else _STATES.get(ended, TrialState.FAIL)
    point = record.point(trial)
    if record.aims and state == TrialState.PRUNED and point is not None:
        state = TrialState.COMPLETE  # with several aims Optuna learns from complete trials only
    if state == TrialState.COMPLETE and point is None:
        state = TrialState.FAIL
    scores = {epoch: values.get(record.metric) for epoch, values in sorted(trial.epochs.items())}
    return create_trial(
        state=state,
        values=list(point) if state == TrialState.COMPLETE and point is not None else None,
        params={name: trial.params[name] for name in distributions},
        distributions=distributions,
        user_attrs={TRIAL_ATTR: trial.trial_id},
        intermediate_values={
            epoch: float(value) for epoch, value in scores.items() if value is not None and not record.aims
        },
    )


def distributions_of(params: Mapping[str, Any], space: Space) -> dict[str, BaseDistribution]:
    """The distribution of each parameter that the space draws and whose value it contains.

    A resumed run may have another space than before; only the parameters that both have are kept.
    """
    trial = quiet_study(_Known(params)).ask()
    with contextlib.suppress(optuna.TrialPruned, UserError):
        space.draw(trial)
    return {name: one for name, one in trial.distributions.items() if name in params and _holds(one, params[name])}


class _Known(OneByOneSampler):
    """Draws the given values; the first value of the distribution if it does not contain the given one."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._params.get(param_name)
        if _holds(param_distribution, value):
            return value
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[0]
        return param_distribution.to_external_repr(param_distribution.low)  # type: ignore[attr-defined]


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError, KeyError):
        return False


class _Lines(JournalFileBackend):
    """A journal without a lock, because the run folder has one."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), lock_obj=_NoLock())  # type: ignore[arg-type]


class _NoLock:
    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


class StudyView:
    """Keeps `study.journal` up to date with the record.

    The file is rewritten at the start of a search and when a finished trial is trained further: a journal cannot reopen
    a finished trial.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        """Show the drawn configurations of a run; writes nothing yet."""
        self._path, self._space = folder / STUDY_FILE, space
        self._shown: dict[str, tuple[int, FrozenTrial]] = {}
        self._storage: JournalStorage | None = None
        self._study = 0

    def follow(self, record: RunRecord) -> None:
        """Write what has changed.

        Raises:
            OSError: the file cannot be written; the next call writes the whole file again.
        """
        now = {
            trial.trial_id: frozen
            for trial in record.trials.values()
            if (frozen := frozen_trial(trial, record, self._space))
        }
        again = any(one.state.is_finished() and now.get(name) is not one for name, (_, one) in self._shown.items())
        try:
            if self._storage is None or again or not self._shown.keys() <= now.keys():
                self._begin(record)
            for name, one in now.items():
                self._show(name, one)
        except OSError:
            self._storage = None
            raise

    def _begin(self, record: RunRecord) -> None:
        run, directions = record.run, [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * len(record.aims)]
        with replacing(self._path) as half:
            JournalStorage(_Lines(half)).create_new_study(directions, run)
        self._storage = JournalStorage(_Lines(self._path))
        self._study = self._storage.get_study_id_from_name(run)
        self._shown = {}

    def _show(self, name: str, one: FrozenTrial) -> None:
        assert self._storage is not None
        if name not in self._shown:
            self._shown[name] = self._storage.create_new_trial(self._study, one), one
            return
        number, before = self._shown[name]
        if before is one:
            return
        for epoch, value in one.intermediate_values.items():
            if before.intermediate_values.get(epoch) != value:
                self._storage.set_trial_intermediate_value(number, epoch, value)
        if one.state != TrialState.RUNNING:
            self._storage.set_trial_state_values(number, one.state, one.values)
        self._shown[name] = number, one
