"""Search spaces: a function of an Optuna trial with its baselines; how spaces are combined, probed and enumerated."""

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from digits_core.config.parameter import Flat
from digits_core.config.train_config import TrainConfig
from digits_core.errors import ConfigError, SpaceError

Overrides = Flat
"""Parameters of TrainConfig by flat name."""

Suggest = Callable[[optuna.Trial], Overrides]

MAX_GRID = 2000
"""Most configurations of a grid."""

PROBES = 32
"""Draws that find the parameters of a space; a branch with a probability below 0.1 may be missed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A configuration that is tried first, as a reference on the leaderboard."""

    name: str
    overrides: Mapping[str, bool | int | float | str | None]
    source: str = ""
    """Its origin."""


DEFAULT_BASELINE = Baseline(name="default", overrides={}, source="TrainConfig with the preset of the space")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a published table.

    Attributes:
        label: its label in the publication.
        setting: name of the baseline with its configuration.
        published: printed scores by name (`val_map`, `public_map`, `public_number_accuracy`).
        detect: threshold parameters at which the trained models are scored for this row.
    """

    label: str
    setting: str
    published: Mapping[str, float] = field(default_factory=dict)
    detect: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A published table; a run of the space compares its rows with each other.

    Attributes:
        title: the printed title.
        reading: the interpretation of the table, `as printed` or `as meant`.
        rows: the rows.
        holds_at: parameters of the published measurement; with other values a run asks another question.
        note: a remark that is printed with the table.
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
        name: its name for `--space`.
        summary: one line for `--list-spaces`.
        suggest: draws one configuration; its keys are parameters of TrainConfig.
        baselines: configurations that are tried first.
        fixed: parameters that are equal in all configurations and baselines of the space.
        preset: replaces defaults of TrainConfig; `--set` and `--config` can change it.
        tables: published tables whose rows are its baselines.
        measured_with: parameters of the published measurements; a run with other values prints a note.
        comparison: whether the default is a comparison instead of a search: every configuration is trained to the end
            with replicates.
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
        """Draw one configuration, including the fixed parameters.

        Raises:
            SpaceError: the function failed or did not return a dict.
        """
        try:
            overrides = self.suggest(trial)
        except (optuna.TrialPruned, SpaceError):
            raise
        except Exception as error:
            raise SpaceError(
                f"space '{self.name}' failed to draw a configuration: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(overrides, Mapping):
            raise SpaceError(f"space '{self.name}' must return a dict of TrainConfig parameters, got {overrides!r}")
        return {**self.fixed, **overrides}

    def fields(self) -> set[str]:
        """The parameters that the space varies, found by drawing; without fixed ones."""
        drawn = probe(self)
        return {name for _, overrides in drawn for name in overrides} - self.fixed.keys()

    def without(self, parameter: str) -> "Space":
        """The same space without one parameter, in draws and baselines."""
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
        """The same space, with parameters in `fixed` removed from its baselines."""
        baselines = tuple(
            replace(one, overrides={name: value for name, value in one.overrides.items() if name not in fixed})
            for one in self.baselines
        )
        return self if baselines == self.baselines else replace(self, baselines=baselines)

    @property
    def after_training(self) -> bool:
        """Whether all its parameters act after training, so that it is swept on trained models."""
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
    """Make a Space from a function `trial -> {parameter: value}`; arguments as the attributes of Space."""

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


def quiet_study(sampler: optuna.samplers.BaseSampler, costs: int = 0) -> optuna.Study:
    """An Optuna study in memory without log messages: it maximises the first value, and minimises so many others."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * costs]
    return optuna.create_study(sampler=sampler, directions=directions)


def combine(spaces: list[Space]) -> Space:
    """Combine spaces into one.

    Raises:
        SpaceError: two spaces vary the same parameter or use the same name, or one fixes what another varies.
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
        raise SpaceError(f"space '{first.name}' is given twice")
    if both:
        raise SpaceError(
            f"spaces '{first.name}' and '{second.name}' both vary {', '.join(sorted(both))}; use one of them"
        )
    for one, other in ((first, second), (second, first)):
        clash = [name for name in one.fixed if name in other.fields()]
        clash += [name for name in one.fixed if name in other.fixed and one.fixed[name] != other.fixed[name]]
        if clash:
            raise SpaceError(
                f"space '{one.name}' fixes {clash[0]}, which '{other.name}' sets to other values; use one of them"
            )
    starts = [name for name in first.preset if second.preset.get(name, first.preset[name]) != first.preset[name]]
    if starts:
        raise SpaceError(
            f"spaces '{first.name}' and '{second.name}' have different presets of {starts[0]}; use one of them"
        )
    shared = parameter_names(first) & parameter_names(second)
    if shared:
        raise SpaceError(
            f"spaces '{first.name}' and '{second.name}' both have a parameter named "
            f"'{sorted(shared)[0]}'; rename it in one of them"
        )


def parameter_names(one: Space) -> set[str]:
    """The names of the Optuna parameters of a space, found by drawing."""
    return {name for trial, _ in probe(one) for name in trial.params}


def probe(one: Space, draws: int = PROBES) -> list[tuple[optuna.Trial, Overrides]]:
    """Random draws from a space, without those that it prunes.

    Raises:
        SpaceError: the space fails or prunes every draw.
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
        raise SpaceError(f"space '{one.name}' prunes every configuration that it draws")
    return found


def enumerate_settings(one: Space) -> list[tuple[dict[str, object], Overrides]]:
    """All configurations of a finite space, including conditional parameters, as (parameters, overrides).

    Raises:
        SpaceError: a parameter is continuous, or there are more than MAX_GRID configurations.
    """
    for trial, _ in probe(one):
        for name, distribution in trial.distributions.items():
            if isinstance(distribution, optuna.distributions.FloatDistribution) and distribution.step is None:
                raise SpaceError(
                    f"space '{one.name}' cannot be a grid: its parameter '{name}' is continuous; give it a "
                    "step" + ("" if one.after_training else ", or use another --sampler")
                )
    found: list[tuple[dict[str, object], Overrides]] = []
    walker = _Walker()
    study = quiet_study(walker)
    for tried in range(2 * MAX_GRID):
        trial = study.ask()
        with contextlib.suppress(optuna.TrialPruned):
            overrides = one.draw(trial)  # sets the parameters
            found.append((dict(trial.params), overrides))
        if not walker.go_on():
            random.Random(0).shuffle(found)  # so that the first ones cover the space
            return found
        if len(found) > MAX_GRID or tried + 1 == 2 * MAX_GRID:
            break
    raise SpaceError(f"space '{one.name}' has more than {MAX_GRID} configurations, too many for a grid")


class OneByOneSampler(optuna.samplers.BaseSampler):
    """A sampler that draws parameters independently; subclasses implement `sample_independent`."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No parameters are drawn jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """No parameters are drawn jointly."""
        return {}


class _Walker(OneByOneSampler):
    """Enumerates all branches of a space, depth first.

    Optuna's BruteForceSampler reads all earlier trials before each trial, so its time is quadratic.
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
        """Go to the next branch; False if there are no more."""
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        self._depth = 0
        if self._path:
            choice, count = self._path.pop()
            self._path.append((choice + 1, count))
        return bool(self._path)


def _choices(distribution: BaseDistribution) -> Sequence[Any]:
    """All values of a parameter that is not continuous."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert distribution.step is not None
    low, high, step = (Decimal(str(value)) for value in (distribution.low, distribution.high, distribution.step))
    return [float(low + number * step) for number in range(int((high - low) / step) + 1)]


def check_space(one: Space, base: TrainConfig, draws: int = 16) -> None:
    """Check that a few draws and all baselines are valid configs.

    Raises:
        SpaceError: a config is not valid; the message names the space.
    """
    settings = [(" draws a configuration that", overrides) for _, overrides in probe(one, draws)]
    settings += [(f": baseline '{known.name}'", {**one.fixed, **known.overrides}) for known in one.baselines]
    for what, overrides in settings:
        runtime = [name for name in overrides if name.startswith("runtime.")]
        if runtime:
            raise SpaceError(
                f"space '{one.name}' must not set {runtime[0]}, which does not change the model; use --set or --seed"
            )
        try:
            TrainConfig.from_flat(overrides, base)
        except ConfigError as error:
            raise SpaceError(f"space '{one.name}'{what} is not valid: {error}") from None
