"""What a search space is: a function of an Optuna trial, with the settings it has to beat."""

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from digits_core.config.parameter import Flat
from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, SpaceError

Overrides = Flat
"""Parameters of TrainConfig by flat name."""

Suggest = Callable[[optuna.Trial], Overrides]

MAX_GRID = 2000
"""Settings that a grid may hold; the sampler behind it slows down with the square."""

PROBES = 32
"""Draws that show which parameters and names a space has: branches rarer than one in ten may hide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A setting tried first, so that every leaderboard holds what it has to beat."""

    name: str
    overrides: Mapping[str, bool | int | float | str | None]
    source: str = ""
    """Who used it."""


DEFAULT_BASELINE = Baseline(name="default", overrides={}, source="TrainConfig, or what the space starts from")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a published table.

    Attributes:
        label: what the row is called there.
        setting: name of the baseline that it stands for.
        published: scores as printed there, by name (`val_map`, `public_map`, `public_number_accuracy`).
        detect: parameters that act after training, for a reading of the same trained models.
    """

    label: str
    setting: str
    published: Mapping[str, float] = field(default_factory=dict)
    detect: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A published table whose question a run of the space answers: its rows are compared with each other.

    Attributes:
        title: as it is printed.
        reading: which of several ways to take the table's words this is, `as printed` or `as meant`.
        rows: the settings.
        holds_at: parameters at which the published figures were measured; a run at other values asks another question.
        note: what is to be known beside it.
    """

    title: str
    reading: str
    rows: tuple[Row, ...]
    holds_at: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """One search space.

    Attributes:
        name: as `--space` takes it.
        summary: one line for `--list-spaces`.
        suggest: draws one setting; its keys are parameters of TrainConfig.
        baselines: settings tried first.
        fixed: parameters that every setting of the space shares, baselines included.
        preset: parameters that it starts from in place of the defaults; `--set` and `--config` may change them.
        tables: published tables that its baselines are rows of.
        measured_with: parameters at which the tables' figures were measured, to be named where a run has others.
        comparison: whether it is no search but a comparison: every setting is trained to its end, with fresh seeds,
            unless flags say otherwise.
    """

    name: str
    summary: str
    suggest: Suggest
    baselines: tuple[Baseline, ...] = ()
    fixed: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
    preset: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    measured_with: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
    comparison: bool = False

    def draw(self, trial: optuna.Trial) -> Overrides:
        """One setting, the fixed parameters included.

        Raises:
            SpaceError: the function failed or gave no dict of parameters.
        """
        try:
            overrides = self.suggest(trial)
        except (optuna.TrialPruned, SpaceError):
            raise
        except Exception as error:
            raise SpaceError(
                f"space '{self.name}' failed to draw a setting: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(overrides, Mapping):
            raise SpaceError(f"space '{self.name}' must return a dict of TrainConfig parameters, got {overrides!r}")
        return {**self.fixed, **overrides}

    def fields(self) -> set[str]:
        """The parameters that the space varies, seen by drawing; fixed ones are left out."""
        drawn = probe(self)
        return {name for _, overrides in drawn for name in overrides} - self.fixed.keys()

    def without(self, parameter: str) -> "Space":
        """The same space with one parameter left to others, in draws and baselines alike."""
        named = [*(one.overrides for one in self.baselines), self.fixed, self.preset]
        if parameter not in self.fields() and not any(parameter in values for values in named):
            return self

        def suggest(trial: optuna.Trial) -> Overrides:
            return {name: value for name, value in self.suggest(trial).items() if name != parameter}

        def rest(values: Mapping[str, bool | int | float | str | None]) -> Overrides:
            return {name: value for name, value in values.items() if name != parameter}

        baselines = tuple(replace(one, overrides=rest(one.overrides)) for one in self.baselines)
        return replace(self, suggest=suggest, baselines=baselines, fixed=rest(self.fixed), preset=rest(self.preset))

    def with_fixed(self, fixed: Mapping[str, bool | int | float | str | None]) -> "Space":
        """The same space, whose baselines leave parameters as they are fixed elsewhere."""
        baselines = tuple(
            replace(one, overrides={name: value for name, value in one.overrides.items() if name not in fixed})
            for one in self.baselines
        )
        return self if baselines == self.baselines else replace(self, baselines=baselines)

    @property
    def after_training(self) -> bool:
        """Whether its parameters act after training only: then it is swept on trained models, never trained for."""
        return all(name.startswith("detect.") for name in self.fields())


def space(
    name: str,
    *,
    summary: str,
    baselines: tuple[Baseline, ...] = (),
    fixed: Mapping[str, bool | int | float | str | None] | None = None,
    preset: Mapping[str, bool | int | float | str | None] | None = None,
    comparison: bool = False,
) -> Callable[[Suggest], Space]:
    """Make a Space of a function `trial -> {parameter: value}`."""

    def make(suggest: Suggest) -> Space:
        return Space(
            name=name,
            summary=summary,
            suggest=suggest,
            baselines=baselines,
            fixed=fixed or {},
            preset=preset or {},
            comparison=comparison,
        )

    return make


def quiet_study(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """A study in memory, for looking at a space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction="maximize")


def combine(spaces: list[Space]) -> Space:
    """One space that draws from each.

    Raises:
        SpaceError: two of them vary the same parameter or use the same name, or one fixes what another varies.
    """
    if len(spaces) == 1:
        return spaces[0]
    for index, first in enumerate(spaces):
        for second in spaces[index + 1 :]:
            _refuse_clash(first, second)
    fixed: Overrides = {}
    preset: Overrides = {}
    for one in spaces:
        fixed |= one.fixed
        preset |= one.preset
    baselines: dict[str, Baseline] = {}
    for one in spaces:
        for baseline in one.baselines:
            name = f"{one.name}: {baseline.name}" if baseline.name in baselines else baseline.name
            baselines[name] = replace(baseline, name=name)
    return Space(
        name=",".join(one.name for one in spaces),
        summary=" and ".join(one.summary for one in spaces),
        suggest=lambda trial: {name: value for one in spaces for name, value in one.draw(trial).items()},
        baselines=tuple(baselines.values()),
        fixed=fixed,
        preset=preset,
        tables=tuple(table for one in spaces for table in one.tables),
        measured_with={name: value for one in spaces for name, value in one.measured_with.items()},
        comparison=all(one.comparison for one in spaces),
    )


def _refuse_clash(first: Space, second: Space) -> None:
    both = first.fields() & second.fields()
    if first.name == second.name:
        raise SpaceError(f"space '{first.name}' is named twice")
    if both:
        raise SpaceError(f"spaces '{first.name}' and '{second.name}' both vary {', '.join(sorted(both))}; take one")
    for one, other in ((first, second), (second, first)):
        clash = [name for name in one.fixed if name in other.fields()]
        clash += [name for name in one.fixed if name in other.fixed and one.fixed[name] != other.fixed[name]]
        if clash:
            raise SpaceError(f"space '{one.name}' fixes {clash[0]}, which '{other.name}' sets otherwise; take one")
    starts = [name for name in first.preset if second.preset.get(name, first.preset[name]) != first.preset[name]]
    if starts:
        raise SpaceError(
            f"spaces '{first.name}' and '{second.name}' start from different values of {starts[0]}; take one"
        )
    shared = parameter_names(first) & parameter_names(second)
    if shared:
        raise SpaceError(
            f"spaces '{first.name}' and '{second.name}' both have a parameter named "
            f"'{sorted(shared)[0]}'; rename it in one of them"
        )


def parameter_names(one: Space) -> set[str]:
    """The names that the space gives its Optuna parameters, seen by drawing."""
    return {name for trial, _ in probe(one) for name in trial.params}


def probe(one: Space, draws: int = PROBES) -> list[tuple[optuna.Trial, Overrides]]:
    """Random draws that show what a space holds; those that the space prunes itself are left out.

    Raises:
        SpaceError: the space fails, or prunes every draw.
    """
    study = quiet_study(optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(draws):
        trial = study.ask()
        try:
            found.append((trial, one.draw(trial)))
        except optuna.TrialPruned:
            continue
    if not found:
        raise SpaceError(f"space '{one.name}' prunes every setting that it draws")
    return found


def enumerate_settings(one: Space) -> list[tuple[dict[str, object], Overrides]]:
    """Every setting of a finite space, conditions included, as (parameters, overrides).

    Raises:
        SpaceError: a parameter is continuous, or there are more than MAX_GRID settings.
    """
    for trial, _ in probe(one):
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, optuna.distributions.FloatDistribution) and distribution.step is None:
                raise SpaceError(
                    f"space '{one.name}' cannot be walked as a grid: its parameter '{name}' is continuous; give it a "
                    "step" + ("" if one.after_training else ", or take another --sampler")
                )
    found: list[tuple[dict[str, object], Overrides]] = []
    walker = _Walker()
    study = quiet_study(walker)
    for tried in range(2 * MAX_GRID):
        trial = study.ask()
        with contextlib.suppress(optuna.TrialPruned):
            overrides = one.draw(trial)  # fills in the parameters
            found.append((dict(trial.params), overrides))
        if not walker.go_on():
            random.Random(0).shuffle(found)  # the first few of them lie all over the space
            return found
        if len(found) > MAX_GRID or tried + 1 == 2 * MAX_GRID:
            break
    raise SpaceError(f"space '{one.name}' has more than {MAX_GRID} settings, too many for a grid")


class OneByOneSampler(optuna.samplers.BaseSampler):
    """A sampler that draws each parameter by itself; what it draws is left to `sample_independent`."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None is drawn together with others."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """None is drawn together with others."""
        return {}


class _Walker(OneByOneSampler):
    """Takes every branch of a space once, depth first.

    Optuna's own BruteForceSampler reads all trials before each: its time grows with their square.
    """

    def __init__(self) -> None:
        self._path: list[tuple[int, int]] = []  # the choice taken at each draw, and how many there are
        self._depth = 0

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        choices = _choices(param_distribution)
        if self._depth == len(self._path):
            self._path.append((0, len(choices)))
        choice, _ = self._path[self._depth]
        self._depth += 1
        return choices[choice]

    def go_on(self) -> bool:
        """Turn to the next branch; False when all were taken."""
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        self._depth = 0
        if self._path:
            choice, count = self._path.pop()
            self._path.append((choice + 1, count))
        return bool(self._path)


def _choices(distribution: BaseDistribution) -> Sequence[Any]:
    """Every value of a parameter that is not continuous."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert distribution.step is not None
    low, high, step = (Decimal(str(value)) for value in (distribution.low, distribution.high, distribution.step))
    return [float(low + number * step) for number in range(int((high - low) / step) + 1)]


def check_space(one: Space, base: TrainConfig, draws: int = 16) -> None:
    """Draw a few settings and every baseline and build their configs.

    Raises:
        SpaceError: a setting is no valid config; names the space.
    """
    settings = [(" draws a setting that", overrides) for _, overrides in probe(one, draws)]
    settings += [(f": baseline '{known.name}'", {**one.fixed, **known.overrides}) for known in one.baselines]
    for what, overrides in settings:
        runtime = [name for name in overrides if name.startswith("runtime.")]
        if runtime:
            raise SpaceError(
                f"space '{one.name}' must not set {runtime[0]}: it makes no other setting; use --set or --seed"
            )
        try:
            TrainConfig.from_flat(overrides, base)
        except ConfigError as error:
            raise SpaceError(f"space '{one.name}'{what} cannot be: {error}") from None
