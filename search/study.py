"""Optuna's memory of a run: a journal that optuna-dashboard opens, and that a crash cannot break."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from digits_core.errors import RunError, UserError, printable
from results.record import EVENTS_FILE, FULL, RunRecord, TrialRecord
from results.schema import ENDED
from results.tables import keep_aside, replacing
from search.sampler import TRIAL_ATTR, build_sampler
from search.settings import Plan, SearchSettings
from spaces.registry import Space

STUDY_FILE = "study.journal"

WHOLE = "whole"
"""Of a study that took over from another: that all of it was copied."""

PROBES = 20
"""Drawings that show what a space draws from."""


class NoLock:
    """Stands in the place of Optuna's lock file, which a killed process leaves behind: the run folder has a lock."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing to give back."""


class DamagedJournalError(Exception):
    """A line of the journal is none of Optuna's."""


class Journal(JournalFileBackend):
    """Optuna's journal, with whole lines only."""

    def __init__(self, path: Path, make_room: Callable[[], None]) -> None:
        """Open the journal; a line cut short by a crash is cut off.

        Args:
            path: the file, made if missing.
            make_room: called when the disk is full, before the second try.

        Raises:
            DamagedJournalError: a line before the last is damaged.
        """
        self._path, self._make_room = path, make_room
        if path.exists():
            whole = 0
            with path.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        json.loads(line)
                    except (ValueError, RecursionError) as error:
                        raise DamagedJournalError(f"line {number}: {error}") from None
                    whole += len(line)
            os.truncate(path, whole)
        super().__init__(str(path), lock_obj=NoLock())  # type: ignore[arg-type]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, all or none."""
        before = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError as error:
            os.truncate(self._path, before)
            if error.errno not in FULL:
                raise
            self._make_room()
            try:
                super().append_logs(logs)
            except OSError:
                os.truncate(self._path, before)
                raise RunError(f"{self._path}: the disk is full; make room and go on with --resume") from None


def open_study(
    folder: Path,
    settings: SearchSettings,
    plan: Plan,
    *,
    drivers: int,
    make_room: Callable[[], None] = lambda: None,
    record: RunRecord | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> optuna.Study:
    """The study of a run, with its sampler.

    Where the space has changed so that Optuna cannot go on with the study, a new one begins with all that the old one
    knows and the new space can hold. Where the journal is damaged or gone, it is made anew from the record.

    Args:
        folder: the run's.
        settings: what was asked.
        plan: the same, resolved.
        drivers: starts of the search, this one included.
        make_room: called when the disk is full, before the second try.
        record: of the run; None makes no journal anew.
        say: tells the person at the terminal that it was.

    Raises:
        RunError: the journal is damaged, and there is no record.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    try:
        study = _open(folder, settings, plan, drivers, make_room)
    except (UserError, OSError):
        raise
    except Exception as error:  # Optuna takes each line for one of its own
        reason = str(error) if isinstance(error, DamagedJournalError) else f"{type(error).__name__}: {error}"
        words = f"{path} is damaged ({printable(reason)})"
        if record is None:
            raise RunError(words) from None
        say(f"{words}: it is made anew from {EVENTS_FILE}, and the old one is {keep_aside(path)}")
    else:
        if record is None or study.get_trials(deepcopy=False) or not _drawn(record):
            return study
        say(f"{path} lacks the trials of {EVENTS_FILE}: it is made anew from there")
    _write_anew(path, settings, plan, record)
    return _open(folder, settings, plan, drivers, make_room)


def _drawn(record: RunRecord) -> list[TrialRecord]:
    """The trials that Optuna drew, in its order."""
    drawn = [trial for trial in record.trials.values() if trial.role == "search" and trial.params]
    return sorted(drawn, key=lambda trial: trial.optuna_number or 0)


def _write_anew(path: Path, settings: SearchSettings, plan: Plan, record: RunRecord) -> None:
    """Write a journal that holds what the record says of trials, as far as the space can hold their parameters."""
    distributions = drawn_distributions(plan.space)
    with replacing(path) as half:
        half.unlink(missing_ok=True)
        study = optuna.create_study(study_name=settings.name, storage=_storage(half), direction="maximize")
        for trial in _drawn(record):
            held = held_by(trial.params, distributions)
            if not held:
                continue
            scores = {epoch: one[record.metric] for epoch, one in sorted(trial.epochs.items())}
            scores = {epoch: float(score) for epoch, score in scores.items() if score is not None}
            state, value = state_of(trial) if trial.status in ENDED else TrialState.RUNNING, record.value(trial)
            if state == TrialState.COMPLETE and value is None:
                state = TrialState.FAIL
            if state == TrialState.PRUNED:  # as Optuna itself says it
                value = next(reversed(scores.values()), None)
            study.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    value=value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
                    params=held,
                    distributions={name: distributions[name] for name in held},
                    intermediate_values=scores,
                    user_attrs={TRIAL_ATTR: trial.trial_id},
                )
            )


def _storage(path: Path, make_room: Callable[[], None] = lambda: None) -> JournalStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(Journal(path, make_room))


def _open(
    folder: Path, settings: SearchSettings, plan: Plan, drivers: int, make_room: Callable[[], None]
) -> optuna.Study:
    storage = _storage(folder / STUDY_FILE, make_room)

    def make(name: str) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=storage,
            # A resumed run that drew the same numbers again would propose what it has tried.
            sampler=build_sampler(settings.sampler, settings.seed + 7919 * (drivers - 1), plan.trials),
            pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides
            direction="maximize",
            load_if_exists=True,
        )

    names = [f"{settings.name}-{number}" if number > 1 else settings.name for number in range(1, drivers + 1)]
    there = {one.study_name: one for one in optuna.get_all_study_summaries(storage)}
    whole = [name for name in names[1:] if name in there and WHOLE in there[name].user_attrs]
    study = make(whole[-1] if whole else names[0])
    known = study.get_trials(deepcopy=False)
    distributions = drawn_distributions(plan.space) if known else {}
    if all(fits(trial, distributions) for trial in known):
        return study
    wider = make(names[-1])
    for trial in known:
        held = what_fits(trial, distributions)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) and held is not None:
            wider.add_trial(held)
    wider.set_user_attr(WHOLE, True)  # one that a kill left half copied is begun anew by the next driver
    return wider


def drawn_distributions(space: Space) -> dict[str, BaseDistribution]:
    """What a space's parameters are drawn from, as far as a few drawings show."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, BaseDistribution] = {}
    for _ in range(PROBES):
        trial = study.ask()
        with contextlib.suppress(optuna.TrialPruned, UserError):
            space.draw(trial)
        found |= trial.distributions
    return found


def fits(trial: FrozenTrial, distributions: dict[str, BaseDistribution]) -> bool:
    """Whether Optuna can go on drawing beside a trial: choices must be the same, ranges may differ."""
    for name, one in trial.distributions.items():
        try:
            check_distribution_compatibility(one, distributions.get(name, one))
        except ValueError:
            return False
    return True


def what_fits(trial: FrozenTrial, distributions: dict[str, BaseDistribution]) -> FrozenTrial | None:
    """A trial with the parameters that other distributions hold too; None without any."""
    params = held_by(trial.params, distributions)
    if not params:
        return None
    return optuna.trial.create_trial(
        state=trial.state,
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        intermediate_values=trial.intermediate_values,
        user_attrs=trial.user_attrs,
    )


def held_by(params: Mapping[str, Any], distributions: dict[str, BaseDistribution]) -> dict[str, Any]:
    """Those parameters whose values are among what distributions draw."""

    def holds(name: str, value: Any) -> bool:
        try:
            return distributions[name]._contains(distributions[name].to_internal_repr(value))
        except (KeyError, ValueError, TypeError):
            return False

    return {name: value for name, value in params.items() if holds(name, value)}


def open_trial(study: optuna.Study, trial_id: str) -> optuna.Trial | None:
    """Optuna's side of a trial of the run, where it is still open."""
    for known in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if known.user_attrs.get(TRIAL_ATTR) == trial_id:
            return optuna.Trial(study, known._trial_id)
    return None


def state_of(trial: TrialRecord) -> TrialState:
    """What Optuna is told of a trial that has ended."""
    return {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "screened": TrialState.PRUNED}.get(
        trial.status, TrialState.FAIL
    )


def close_strays(study: optuna.Study, record: RunRecord) -> None:
    """Tell Optuna what a driver that was killed did not: what ended, and what was drawn and led nowhere."""
    for drawn in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
        trial = record.trials.get(str(drawn.user_attrs.get(TRIAL_ATTR)))
        if trial is None:
            study._storage.set_trial_state_values(drawn._trial_id, TrialState.FAIL)
        elif trial.status in ENDED and drawn.state == TrialState.RUNNING:
            state, best = state_of(trial), trial.best(record.metric)
            if state == TrialState.COMPLETE and best is not None:
                study.tell(drawn.number, float(best[record.metric]))
            else:
                study.tell(drawn.number, state=TrialState.FAIL if state == TrialState.COMPLETE else state)
