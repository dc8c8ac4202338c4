"""The settings of a search, checked before anything starts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from digits_core.config.fields import wrong_field
from digits_core.config.parameter import Flat, Scalar
from digits_core.config.stages import parse_stages
from digits_core.config.train_config import TrainConfig, parameter_named
from digits_core.data.source import DataSource
from digits_core.errors import UsageError
from digits_core.model.anchors import setting_digest
from results.record.schema import AIMS
from search.cli.prior import prior_of
from search.defaults import (
    AIM_SAMPLERS,
    COMPARISON_REPLICATES,
    GAIN,
    KEEP,
    LOOPBACK,
    MAX_FAILURES,
    METRICS,
    REPLICATE_TOP,
    SAMPLERS,
    SCHEDULERS,
    SCREEN,
    TRIALS,
)
from search.policy.plan import Plan
from spaces.catalogue import SPACES, get_spaces
from spaces.registry import Overrides, Space, check_space, combine, enumerate_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """The flags of `digit-search run`, as plain values; they contain no hyperparameters.

    Attributes:
        space: space names separated by commas, as typed.
        space_files: the space files that the user has typed, as `spaces.catalogue.space_files` returns them; no other
            file is run.
        trials: configurations to train, including baselines; None is the default.
        epochs, images_per_epoch: None keeps the value of the config.
        time_budget_s: seconds after which the search ends; None has no limit.
        replicates: trainings of each of the best configurations, including the first one.
        replicate_top: how many configurations are replicated.
        confirm: how many configurations are confirmed on held-out images; 0 confirms none.
        max_failures: maximum number of restarts of a trial after faults.
        disk_bytes: maximum size of the run folder; None has no limit.
        storage: path or address for checkpoints and a copy of the run folder; None keeps everything in the run folder.
        slots: trials that run at the same time; None takes as many as fit.
        share_gpus: whether to measure how many trials share a GPU.
        dashboard_host: the address that the dashboard of a locally started Ray listens on.
        mlflow: the MLflow tracking server; None uses none.
        trackio: the project of trackio; None uses none.
        screen: whether configurations whose anchors do not fit the digits are screened out.
        init_from: the folder of weights that every training starts from, overriding the spaces; None uses
            `model.weights`.
        fixed: parameters from `--set`; a space must not vary them.
        config: parameters from `--config`; a space may vary them.
        learned: trials of earlier runs (`--learn-from`) as text, by run and trial.
        believed: values of parameters that a person believes to be good.
        until_settled: whether the search ends when more trials are unlikely to gain more than `gain`.
        gain: an increase of the best score.
        aims: costs that the search makes small beside its metric, separated by commas; names in `schema.AIMS`.
    """

    space: str
    space_files: dict[str, str] = field(default_factory=dict)
    data: DataSource = field(default_factory=DataSource)
    out: str = "runs"
    name: str = ""
    trials: int | None = None
    epochs: int | None = None
    images_per_epoch: int | None = None
    time_budget_s: float | None = None
    sampler: str = "tpe"
    scheduler: str = "asha"
    metric: str = "val_map"
    seed: int = 0
    replicates: int = 1
    replicate_top: int = REPLICATE_TOP
    confirm: int = 0
    screen: bool = SCREEN
    keep: int = KEEP
    max_failures: int = MAX_FAILURES
    disk_bytes: int | None = None
    storage: str | None = None
    slots: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    share_gpus: bool = False
    address: str | None = None
    dashboard_port: int | None = None
    dashboard_host: str = LOOPBACK
    mlflow: str | None = None
    trackio: str | None = None
    init_from: str | None = None
    fixed: Flat = field(default_factory=dict)
    config: Flat = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    believed: Flat = field(default_factory=dict)
    until_settled: bool = False
    gain: float = GAIN
    aims: str = ""

    def __post_init__(self) -> None:
        """Check the type of every value and the choices of its flag.

        Raises:
            UsageError: a value is not allowed.
        """
        wrong = wrong_field(self)
        for name, known in (("sampler", SAMPLERS), ("scheduler", SCHEDULERS), ("metric", METRICS)):
            if wrong is None and getattr(self, name) not in known:
                wrong = name
        if wrong is None and (any(one not in AIMS for one in self.costs) or len(set(self.costs)) < len(self.costs)):
            wrong = "aims"
        if wrong is None and not 0 < self.gain < 1:
            wrong = "gain"
        if wrong is not None:
            raise UsageError(f"settings: '{wrong}' cannot be {getattr(self, wrong)!r}")

    @property
    def costs(self) -> list[str]:
        """The names in `aims`."""
        return self.aims.split(",") if self.aims else []

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "SearchSettings":
        """The settings that `to_json` wrote, without `space_files`: anybody may have written them, so none is run."""
        return cls(**{**tree, "data": DataSource(**tree["data"]), "space_files": {}})


MOST_TRIALS = 10**9
"""More trials than any search has."""


def make_plan(settings: SearchSettings, *, trained: bool = False) -> Plan:
    """Resolve and check the settings of a search.

    Args:
        settings: of the search.
        trained: whether the model is trained already, so that a space may vary how its boxes are merged.

    Raises:
        UserError: an unknown or conflicting space, parameter or value.
    """
    named = get_spaces(settings.space, settings.space_files)
    if settings.init_from is not None:
        named = [one.without("model.weights") for one in named]
    whole = combine(named)  # raises for conflicts between any two of them
    if settings.aims:
        _check_aims(settings)
    _check_fixed(named, settings.fixed)
    base = _base_config(settings, whole)
    named = [one.with_fixed(settings.fixed) for one in named]
    for one in named:
        check_space(one, base)
    _check_stages(named, base)
    space, trials = _trained_space(settings, named, base)
    plan = Plan(
        space,
        base,
        trials,
        _sweep_of(settings, named, trained=trained),
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        seed=settings.seed,
        replicates=settings.replicates,
        replicate_top=settings.replicate_top,
        confirm=settings.confirm,
        max_failures=settings.max_failures,
        prior=prior_of(settings, space),
        gain=settings.gain,
        until_settled=settings.until_settled,
    )
    if settings.until_settled and settings.sampler == "grid":
        raise UsageError("--until settled: has no effect with --sampler grid, which trains every configuration")
    if settings.confirm > plan.trials - 1:
        raise UsageError(
            f"--confirm {settings.confirm}: the leaderboard will have {plan.trials - 1} configurations in addition to "
            "the default; confirm at most that many, or increase --trials"
        )
    plan.first_settings()  # raises if a baseline is not valid
    return plan


def _check_aims(settings: SearchSettings) -> None:
    """Check what a search with several aims cannot do.

    Raises:
        UsageError: a setting is for one aim only.
    """
    for flag, given, wrong, right in (
        ("--sampler", settings.sampler, settings.sampler not in (*AIM_SAMPLERS, "grid"), " or ".join(AIM_SAMPLERS)),
        ("--scheduler", settings.scheduler, settings.scheduler == "median", "asha or none"),
        ("--until", "settled", settings.until_settled, "trials"),
        ("--learn-from", "", bool(settings.learned), ""),
        ("--believe", "", bool(settings.believed), ""),
    ):
        if wrong:
            use = f"; use {right}" if right else "; remove it"
            raise UsageError(f"{flag} {given}".strip() + f": needs one aim, but --metric names several{use}")


def _check_fixed(named: list[Space], fixed: Flat) -> None:
    """Check that `--set` does not conflict with the spaces."""
    for one in named:
        taken = sorted(one.fields() & fixed.keys())
        if taken and not one.after_training:  # a sweep does not change the trial's own thresholds
            raise UsageError(f"--set {taken[0]}: space '{one.name}' varies this parameter; remove one of the two")
        other = [name for name, value in one.fixed.items() if fixed.get(name, value) != value]
        if other:
            raise UsageError(f"--set {other[0]}: space '{one.name}' needs {other[0]}={one.fixed[other[0]]}")
    if "runtime.seed" in fixed:
        raise UsageError("--set runtime.seed: use the flag --seed instead")


def _base_config(settings: SearchSettings, whole: Space) -> TrainConfig:
    """The config that all trials start from: the preset of the spaces, then `--config`, `--set` and the flags."""
    flat: Flat = {**whole.preset, **settings.config, **settings.fixed, "runtime.seed": settings.seed}
    for parameter, value in (
        ("model.weights", settings.init_from),
        ("optim.epochs", settings.epochs),
        ("data.images_per_epoch", settings.images_per_epoch),
    ):
        if value is not None:
            flat[parameter] = value
    return TrainConfig.from_flat(flat)


def _check_stages(named: list[Space], base: TrainConfig) -> None:
    """Check that no space varies a parameter that every stage of `optim.stages` sets again."""
    stages = [] if base.optim.stages is None else parse_stages(base.optim.stages, parameter_named)
    for one in named:
        without_effect = [name for name in sorted(one.fields()) if stages and all(name in flat for _, flat in stages)]
        if without_effect:
            raise UsageError(
                f"optim.stages: every stage sets {without_effect[0]}, which space '{one.name}' varies; remove one of "
                "the two"
            )


def _sweep_of(settings: SearchSettings, named: list[Space], *, trained: bool) -> list[Overrides]:
    """The `detect.*` settings that are scored on each trained model in addition to the standard grid."""
    swept = [one for one in named if one.after_training and one is not SPACES["thresholds"]]  # that is the grid itself
    sweep = [overrides for _, overrides in enumerate_settings(combine(swept))] if swept else []
    if any("detect.reading" in overrides for overrides in sweep):
        raise UsageError(f"--space {settings.space}: detect.reading cannot be swept; try its two values with --set")
    merging = [name for overrides in sweep for name in merging_part(overrides)]
    if merging and not trained:
        raise UsageError(
            f"--space {settings.space}: varies {merging[0]}, which is scored on a trained model; train first, then "
            "give this space together with --from RUN"
        )
    return sweep


def merging_part(overrides: Overrides) -> Overrides:
    """The parameters of a `detect.*` setting that change raw detections before NMS, the same for both tasks."""
    return {name: value for name, value in overrides.items() if not name.startswith(("detect.task1.", "detect.task2."))}


def _trained_space(settings: SearchSettings, named: list[Space], base: TrainConfig) -> tuple[Space, int]:
    """The space that trials vary, and the number of trials."""
    trained = [one for one in named if not one.after_training]
    if not trained:
        if settings.trials not in (None, 1):
            raise UsageError(
                f"--trials {settings.trials}: space '{settings.space}' is applied after training and needs only one "
                "training; omit --trials"
            )
        return Space(name=settings.space, summary="", suggest=lambda _: {}), 1
    space = combine(trained)
    if settings.sampler == "grid":
        return space, settings.trials or count_settings(space, base)
    return space, settings.trials or TRIALS


def with_baselines(settings: SearchSettings, sampled: int | None) -> SearchSettings:
    """The settings with so many sampled configurations in addition to the baselines.

    Args:
        settings: of the search; `trials` is replaced by the number of both together.
        sampled: the number of sampled configurations; None means all of a grid, and otherwise `TRIALS`.

    Raises:
        UserError: the settings are not valid.
    """
    trained = [one for one in get_spaces(settings.space, settings.space_files) if not one.after_training]
    if not trained or (sampled is None and settings.sampler == "grid"):
        return replace(settings, trials=sampled)
    baselines = make_plan(replace(settings, trials=MOST_TRIALS)).first_settings()
    return replace(settings, trials=(TRIALS if sampled is None else sampled) + len(baselines))


def trial_words(plan: Plan) -> str:
    """How many configurations are trained: `12 sampled + 3 baselines (default; report A; report B)`."""
    baselines = plan.first_settings()
    sampled = plan.trials - len(baselines)
    names = f"{len(baselines)} baseline{'s' * (len(baselines) != 1)} ({'; '.join(baselines)})"
    kind = "from the grid" if plan.sampler == "grid" else "sampled"
    return f"{sampled} {kind} + {names}" if sampled else names


class Manner(NamedTuple):
    """The settings whose defaults depend on whether the space is a comparison."""

    sampler: str
    scheduler: str
    replicates: int
    screen: bool
    replicate_all: bool


def manner(
    space: str, sampler: str | None, scheduler: str | None, replicates: int | None, screen: str | None
) -> Manner:
    """The values of the flags; for flags that were not given, the defaults of a comparison or of a search.

    A comparison trains every configuration to its end and replicates it; a search stops trials early. It does not if
    the space varies the length of a training: after the same number of epochs a short training has a lower learning
    rate and therefore a better score than a long one.

    Raises:
        SpaceError: there is no such space.
    """
    whole = combine(get_spaces(space))
    if whole.comparison:
        usual = Manner("grid", "none", COMPARISON_REPLICATES, screen=False, replicate_all=True)
    else:
        stops = "none" if "optim.epochs" in whole.fields() else "asha"
        usual = Manner("tpe", stops, 1, screen=SCREEN, replicate_all=False)
    return Manner(
        sampler or usual.sampler,
        scheduler or usual.scheduler,
        replicates or usual.replicates,
        usual.screen if screen is None else screen == "on",
        usual.replicate_all,
    )


def length_notes(settings: SearchSettings) -> list[str]:
    """Lines about the lengths of a training that `--config` sets and no flag: they differ from the usual ones."""
    found = []
    for parameter, flag, given in (
        ("optim.epochs", "--epochs", settings.epochs),
        ("data.images_per_epoch", "--images-per-epoch", settings.images_per_epoch),
    ):
        value = settings.config.get(parameter)
        usual = value in (None, TrainConfig().to_flat()[parameter])
        if not usual and given is None and parameter not in settings.fixed:
            found.append(f"{parameter} {value}: from --config; {flag} N changes it")
    return found


def count_settings(space: Space, base: TrainConfig) -> int:
    """The number of different configurations of a finite space, including the default and the baselines.

    Raises:
        SpaceError: the space is not finite, or too large to list.
    """
    settings: list[Mapping[str, Scalar]] = [{}, *(one.overrides for one in space.baselines)]
    settings = [{**space.fixed, **overrides} for overrides in settings]
    settings += [overrides for _, overrides in enumerate_settings(space)]
    return len({setting_digest(TrainConfig.from_flat(overrides, base)) for overrides in settings})
