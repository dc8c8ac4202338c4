"""Which setting comes next: baselines first, then an Optuna sampler; behind Ray Tune's Searcher interface.

Ray's own OptunaSearch tells Optuna that a trial stopped by the scheduler is COMPLETE, draws settings
twice that are the same once anchors are rounded, and knows no baselines; so this one stands in its place.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from digits_core.anchors import Coverage, setting_digest
from digits_core.config import TrainConfig
from digits_core.errors import ConfigError
from digits_core.seeds import derived_seed
from results.record import RunRecord
from search.faults import DIVERGED
from search.further import Waiting
from search.screen import Screen
from spaces.registry import DEFAULT_BASELINE, Overrides, Space, enumerate_settings, quiet_study

TRIAL_ATTR = "trial_id"
"""Of Optuna's trials: the name that the run knows it by."""

_NUMBERED = re.compile(r"t\d{4,9}")
"""The id of a trial of the search."""

MAX_REPEATS = 50
"""Settings in a row that were tried before: then the space counts as used up."""

MAX_SCREENED = 500
"""Settings in a row that the screen may keep out, likewise."""


CANDIDATES = 8
"""Settings that are drawn for one to be trained while a sampler has nothing to go by yet: the screen tells which."""


def startup_trials(num_trials: int) -> int:
    """Settings that a sampler draws at random before it learns; it must be left a share of a short search."""
    return min(10, max(4, num_trials // 3))


def build_sampler(name: str, seed: int, num_trials: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler of `--sampler NAME`; `grid` walks an enumerated list, so it needs none of its own."""
    startup = startup_trials(num_trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":  # slots run side by side: constant_liar keeps them apart
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


class Proposal:
    """One setting to train, as the searcher hands it out."""

    __slots__ = (
        "baseline",
        "config",
        "coverage",
        "digest",
        "optuna_number",
        "optuna_trial",
        "params",
        "resume_from",
        "role",
        "starts",
        "trial_id",
    )

    def __init__(
        self,
        trial_id: str,
        config: TrainConfig,
        *,
        role: str = "search",
        baseline: str | None = None,
        optuna_trial: optuna.Trial | None = None,
        resume_from: dict[str, Any] | None = None,
        starts: int = 0,
        coverage: Coverage | None = None,
    ) -> None:
        """Describe a training; `starts` counts those that a fault broke off."""
        self.trial_id = trial_id
        self.role = role
        self.coverage = coverage
        self.config = config
        self.digest = setting_digest(config)
        self.baseline = baseline
        self.optuna_trial = optuna_trial
        self.params = {} if optuna_trial is None else dict(optuna_trial.params)
        self.optuna_number = None if optuna_trial is None else optuna_trial.number
        self.resume_from = resume_from
        self.starts = starts


class SettingSearcher(Searcher):
    """Hands settings to Ray Tune and what became of them to Optuna."""

    def __init__(
        self,
        space: Space,
        base: TrainConfig,
        study: optuna.Study,
        *,
        metric: str,
        num_trials: int,
        sampler: str,
        payload: dict[str, Any],
        on_propose: Callable[[Proposal], None],
        ending: Callable[[], str | None] = lambda: None,
        screen: Screen | None = None,
        on_screen: Callable[[Proposal, str], None] = lambda proposal, reason: None,
        further: Callable[[], tuple[TrainConfig, str] | type[Waiting] | None] = lambda: None,
        again: Callable[[Proposal], Proposal | TrialState] = lambda proposal: TrialState.FAIL,
        held: Callable[[], bool] = lambda: False,
        waiting: list[Proposal] | None = None,
        tried: Iterable[str] = (),
        num_tried: int = 0,
        first_number: int = 0,
        values: dict[str, float] | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            space: what varies.
            base: the config that settings change.
            study: Optuna's memory, with its sampler.
            metric: the reported score to raise.
            num_trials: settings to train in all, baselines and those of an earlier driver included.
            sampler: its name; `grid` walks every setting of the space.
            payload: what every trial is handed beside its config.
            on_propose: called with each new setting before Ray sees it.
            ending: why the whole run is ending, or None; what an interruption cuts off stays open in Optuna.
            screen: looks at the anchors of each setting before it is trained.
            on_screen: called with a setting that the screen keeps from being trained, and the reason.
            further: what to train once the settings are used up: config and role, Waiting, or None for nothing.
            again: what to start in the place of a training that a fault broke off, or the state that it ended in.
            held: whether nothing may start for now, as on a full disk.
            waiting: trials of an earlier driver to run first.
            tried: digests of the settings tried before.
            num_tried: how many of those were trained.
            first_number: of the next trial.
            values: digest to best score of those that have one.
        """
        super().__init__(metric=metric, mode="max")
        self._space, self._base, self._study = space, base, study
        self._payload, self._on_propose, self._ending = payload, on_propose, ending
        self._waiting = list(waiting or [])
        self._again, self._held = again, held
        self._broken: list[Proposal] = []
        self._screen, self._on_screen, self._further = screen, on_screen, further
        self._tried = set(tried)
        self._num_tried, self._count = num_tried, first_number
        self._used_up = False
        self._num_trials = num_trials
        self._running: dict[str, Proposal] = {}
        self._values = dict(values or {})
        self._baselines = [DEFAULT_BASELINE, *space.baselines]  # those tried before are passed over
        self._grid = enumerate_settings(space) if sampler == "grid" else None
        self._startup = startup_trials(num_trials) if sampler in ("tpe", "gp") else 0
        # Optuna's Gaussian process learns from whole trainings alone.
        self._learned_from = (TrialState.COMPLETE,) if sampler == "gp" else (TrialState.COMPLETE, TrialState.PRUNED)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next setting, FINISHED, or None to be asked again later."""
        self._take_back()
        held = self._held()
        if held and self._running:
            return None
        proposal = self._waiting.pop(0) if self._waiting else self._new()
        if proposal is None:
            due = self._further()
            if due is Waiting or (due is None and self._running):  # a fault may yet bring one of those back
                return None
            if not isinstance(due, tuple):
                return str(Searcher.FINISHED)
            proposal = self._name(due[0], role=due[1])
            self._on_propose(proposal)
        if held:  # there is something to do, and no room for it
            self._waiting.insert(0, proposal)
            return None
        self._running[trial_id] = proposal
        return {
            **self._payload,
            "trial_id": proposal.trial_id,
            "role": proposal.role,
            "config": proposal.config.to_flat(),
            "resume_from": proposal.resume_from,
            "starts": proposal.starts,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an intermediate value on to Optuna."""
        self._report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna: COMPLETE after a whole training, PRUNED when it was stopped, FAIL on an error."""
        proposal = self._running.pop(trial_id, None)
        if proposal is None:
            return
        if error or (result and DIVERGED in result):  # Ray asks what is next only after the fault is in the record
            self._broken.append(proposal)
            return
        if result:
            self._report(trial_id, result, proposal)
        if proposal.optuna_trial is None:
            return
        value = self._values.get(proposal.digest)
        if (
            result
            and "epoch" in result
            and (result["epoch"] >= proposal.config.optim.epochs or result["early_stopped"])
        ):
            self._study.tell(proposal.optuna_trial, value)
        elif self._ending() is None:
            self._study.tell(proposal.optuna_trial, state=TrialState.PRUNED)

    def close(self) -> None:
        """Tell Optuna of trials that Ray cut off without a word, as it does when a run ends early."""
        self._take_back()
        for trial_id in list(self._running):
            self.on_trial_complete(trial_id)

    def _take_back(self) -> None:
        """Trainings that a fault broke off wait for their next start, or are over."""
        broken, self._broken = self._broken, []
        for proposal in broken:
            again, value = self._again(proposal), self._values.get(proposal.digest)
            if isinstance(again, Proposal):
                self._waiting.append(again)
            elif proposal.optuna_trial is None:
                continue
            elif again == TrialState.COMPLETE and value is not None:
                self._study.tell(proposal.optuna_trial, value)
            else:
                state = TrialState.FAIL if again == TrialState.COMPLETE else again
                self._study.tell(proposal.optuna_trial, state=state)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: run folder and study hold it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore, likewise."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles its parts with a run; a live study has no place there."""
        return {}

    def _report(self, trial_id: str, result: dict[str, Any], proposal: Proposal | None = None) -> None:
        proposal = proposal or self._running.get(trial_id)
        value = result.get(self.metric)
        if proposal is None or proposal.role != "search" or value is None or "epoch" not in result:
            return
        self._values[proposal.digest] = max(float(value), self._values.get(proposal.digest, float(value)))
        if proposal.optuna_trial is not None and result["epoch"] not in _steps(proposal.optuna_trial):
            proposal.optuna_trial.report(float(value), int(result["epoch"]))

    def _new(self) -> Proposal | None:
        """The next setting not tried before; None when there are enough, or the space is used up."""
        if self._used_up or self._num_tried >= self._num_trials:
            return None
        repeats = screened = 0
        while repeats < MAX_REPEATS and screened < MAX_SCREENED:
            if self._baselines:
                baseline = self._baselines.pop(0)
                overrides = {**self._space.fixed, **baseline.overrides}
                proposal = self._propose(overrides, baseline=baseline.name)
            else:
                repeats += self._grid is None
                drawn = self._draw()
                if drawn is None:
                    break
                try:
                    proposal = self._propose(self._space.draw(drawn), optuna_trial=drawn)
                except (optuna.TrialPruned, ConfigError) as refused:  # by the space itself, or by what it drew
                    pruned = isinstance(refused, optuna.TrialPruned)
                    self._study.tell(drawn, state=TrialState.PRUNED if pruned else TrialState.FAIL)
                    continue
            if proposal.digest in self._tried:
                self._tell_known(proposal)
                continue
            self._tried.add(proposal.digest)
            self._count += 1
            if proposal.optuna_trial is not None:
                proposal.optuna_trial.set_user_attr(TRIAL_ATTR, proposal.trial_id)
            reason = None
            if self._screen is not None:
                proposal.coverage, reason = self._screen.look(proposal.config, baseline=proposal.baseline is not None)
            self._on_propose(proposal)
            if reason is None:
                self._num_tried += 1
                return proposal
            repeats, screened = 0, screened + 1
            self._on_screen(proposal, reason)
            if proposal.optuna_trial is not None:  # Optuna takes one pruned before its first value for the worst
                self._study.tell(proposal.optuna_trial, state=TrialState.PRUNED)
        self._used_up = True  # Ray asks again and again while something else still runs
        return None

    def _draw(self) -> optuna.Trial | None:
        if self._grid is None:
            params = self._covering()
        elif self._grid:
            params, _ = self._grid.pop(0)
        else:
            return None
        if params is not None:
            self._study.enqueue_trial(params)
        return self._study.ask()

    def _covering(self) -> dict[str, Any] | None:
        """What a sampler begins with that has nothing to go by yet; None leaves it to the sampler."""
        if not self._startup or self._screen is None or not self._screen.active:
            return None
        if len(self._study.get_trials(deepcopy=False, states=self._learned_from)) >= self._startup:
            return None
        number = len(self._study.get_trials(deepcopy=False))
        seed = derived_seed("covering", self._base.runtime.seed, number)
        return best_covering(self._space, self._base, self._screen, self._tried, seed)

    def _propose(
        self, overrides: Overrides, *, baseline: str | None = None, optuna_trial: optuna.Trial | None = None
    ) -> Proposal:
        config = TrainConfig.from_flat(overrides, self._base)
        return Proposal(trial_name(self._count), config, baseline=baseline, optuna_trial=optuna_trial)

    def _name(self, config: TrainConfig, *, role: str) -> Proposal:
        """A further training, with the next free id."""
        self._count += 1
        coverage = None if self._screen is None else self._screen.measure(config)
        return Proposal(trial_name(self._count - 1), config, role=role, coverage=coverage)

    def _tell_known(self, proposal: Proposal) -> None:
        """A setting tried before: Optuna learns its value again and draws elsewhere."""
        if proposal.optuna_trial is None:
            return
        value = self._values.get(proposal.digest)
        if value is None:
            self._study.tell(proposal.optuna_trial, state=TrialState.FAIL)
        else:
            self._study.tell(proposal.optuna_trial, value)


def best_covering(space: Space, base: TrainConfig, screen: Screen, tried: set[str], seed: int) -> dict[str, Any] | None:
    """Of a few random settings of a space not tried yet, what draws the one whose anchors cover the digits best.

    None where anchors do not vary among them.
    """
    study = quiet_study(optuna.samplers.RandomSampler(seed=seed % 2**32))
    found: list[tuple[float, dict[str, Any]]] = []
    for _ in range(CANDIDATES):
        trial = study.ask()
        try:
            config = TrainConfig.from_flat(space.draw(trial), base)
        except (optuna.TrialPruned, ConfigError):
            continue
        if setting_digest(config) not in tried:
            found.append((screen.measure(config).mean_iou, trial.params))
    if len({iou for iou, _ in found}) < 2:
        return None
    return max(found, key=lambda one: one[0])[1]


def trial_name(number: int) -> str:
    """The id of trial `number`, from 0."""
    return f"t{number:04d}"


def next_number(record: RunRecord) -> int:
    """The number of the next trial: its id is that of no trial on record, and of none that a repair dropped."""
    names = [*record.trials, *record.lost_trials]
    return max([len(record.trials), *(int(name[1:]) + 1 for name in names if _NUMBERED.fullmatch(name))])


def _steps(trial: optuna.Trial) -> set[int]:
    return set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
