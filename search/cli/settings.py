"""What one search is asked to do, checked before anything starts."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from digits_core.config.fields import wrong_field
from digits_core.config.parameter import Flat, Scalar
from digits_core.config.reading import parse_assignment, read_toml
from digits_core.config.stages import parse_stages
from digits_core.config.train_config import TrainConfig, parameter_named
from digits_core.data.remote import SCHEMES, is_address, open_place
from digits_core.data.source import DRAWN, DataSource
from digits_core.errors import UsageError, printable
from digits_core.model.anchors import setting_digest
from results.record.events import is_name
from search.defaults import (
    COMPARISON_REPLICATES,
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
from spaces.registry import Space, check_space, combine, enumerate_settings

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?")
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([KMGT]?)B?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSettings:
    """The flags of `python -m search.run`, as plain values; hyperparameters are not among them.

    Attributes:
        space: names with commas, as typed.
        space_files: the files among them that the user has named, as `spaces.catalogue.space_files` gives them; no
            other is run.
        trials: settings to train, baselines included; None takes the default.
        epochs, images_per_epoch: None leaves the config's own.
        time_budget_s: seconds after which the search ends; None never.
        replicates: trainings of each of the best settings, the search's own among them.
        replicate_top: how many settings get them.
        confirm: how many settings are confirmed on images set apart; 0 confirms none.
        max_failures: starts after a fault that a trial has, at most.
        disk_bytes: the run folder takes no more; None leaves it to the disk.
        storage: where checkpoints and a copy of the run folder lie, a path or an address; None keeps all in the folder.
        slots: trials side by side; None takes as many as there is room for.
        share_gpus: whether it is measured how many trials share a GPU.
        dashboard_host: what the dashboard of a Ray of its own listens on.
        mlflow: the tracking server that is told of every trial; None tells none.
        screen: whether settings whose anchors miss the digits are left untrained.
        init_from: the folder of weights that every training starts from, whatever a space says; None leaves that to
            `model.weights`.
        fixed: parameters from `--set`; a space must not vary them.
        config: parameters from `--config`; a space may vary them.
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
    init_from: str | None = None
    fixed: Flat = field(default_factory=dict)
    config: Flat = field(default_factory=dict)

    def __post_init__(self) -> None:
        """See that every value is of its type, and among the choices of its flag.

        Raises:
            UsageError: one is not.
        """
        wrong = wrong_field(self)
        for name, known in (("sampler", SAMPLERS), ("scheduler", SCHEDULERS), ("metric", METRICS)):
            if wrong is None and getattr(self, name) not in known:
                wrong = name
        if wrong is not None:
            raise UsageError(f"settings: '{wrong}' cannot be {getattr(self, wrong)!r}")

    def to_json(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "SearchSettings":
        """What `to_json` wrote, but for `space_files`: a file may have been written by anybody, so none may be run."""
        return cls(**{**tree, "data": DataSource(**tree["data"]), "space_files": {}})


def make_plan(settings: SearchSettings) -> Plan:
    """Resolve and check what is asked.

    Raises:
        UserError: an unknown or clashing space, parameter or value.
    """
    named = get_spaces(settings.space, settings.space_files)
    if settings.init_from is not None:
        named = [one.without("model.weights") for one in named]
    whole = combine(named)  # refuses clashes among all of them
    for one in named:
        taken = sorted(one.fields() & settings.fixed.keys())
        if taken and not one.after_training:  # a sweep leaves the trial's own setting to --set
            raise UsageError(f"--set {taken[0]}: space '{one.name}' varies this parameter; leave it out of one of them")
        other = [name for name, value in one.fixed.items() if settings.fixed.get(name, value) != value]
        if other:
            raise UsageError(f"--set {other[0]}: space '{one.name}' needs {other[0]}={one.fixed[other[0]]}")
    if "runtime.seed" in settings.fixed:
        raise UsageError("--set runtime.seed: the seed has a flag of its own, --seed")
    flat: Flat = {**whole.preset, **settings.config, **settings.fixed, "runtime.seed": settings.seed}
    if settings.init_from is not None:
        flat["model.weights"] = settings.init_from
    for parameter, value in (("optim.epochs", settings.epochs), ("data.images_per_epoch", settings.images_per_epoch)):
        if value is not None:
            flat[parameter] = value
    base = TrainConfig.from_flat(flat)
    named = [one.with_fixed(settings.fixed) for one in named]
    for one in named:
        check_space(one, base)
    parsed = [] if base.optim.stages is None else parse_stages(base.optim.stages, parameter_named)
    for one in named:
        undone = [name for name in sorted(one.fields()) if parsed and all(name in flat for _, flat in parsed)]
        if undone:
            raise UsageError(
                f"optim.stages: every stage sets {undone[0]}, which space '{one.name}' varies; leave it out of one"
            )
    trained = [one for one in named if not one.after_training]
    swept = [one for one in named if one.after_training and one is not SPACES["thresholds"]]  # its grid always is
    sweep = [overrides for _, overrides in enumerate_settings(combine(swept))] if swept else []
    if any("detect.reading" in overrides for overrides in sweep):
        raise UsageError(f"--space {settings.space}: detect.reading is not swept; try its two values with --set")
    trials = settings.trials
    if not trained:
        if trials not in (None, 1):
            raise UsageError(
                f"--trials {trials}: space '{settings.space}' acts after training, so one training serves; "
                "leave --trials out"
            )
        space, trials = Space(name=settings.space, summary="", suggest=lambda _: {}), 1
    else:
        space = combine(trained)
        if settings.sampler == "grid":  # all of it, unless fewer are asked for
            trials = trials or count_settings(space, base)
    plan = Plan(
        space,
        base,
        trials or TRIALS,
        sweep,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        seed=settings.seed,
        replicates=settings.replicates,
        replicate_top=settings.replicate_top,
        confirm=settings.confirm,
        max_failures=settings.max_failures,
    )
    if settings.confirm > plan.trials - 1:
        raise UsageError(
            f"--confirm {settings.confirm}: the leaderboard will hold {plan.trials - 1} settings beside the default; "
            "confirm at most so many, or raise --trials"
        )
    plan.first_settings()
    return plan


class Manner(NamedTuple):
    """How a search goes about it."""

    sampler: str
    scheduler: str
    replicates: int
    screen: bool
    replicate_all: bool


def manner(
    space: str, sampler: str | None, scheduler: str | None, replicates: int | None, screen: str | None
) -> Manner:
    """What flags say, and where they say nothing what suits the spaces.

    A comparison trains every setting to its end, with fresh seeds; a search stops the weak and repeats the best.

    Raises:
        SpaceError: there is no such space.
    """
    if combine(get_spaces(space)).comparison:
        usual = Manner("grid", "none", COMPARISON_REPLICATES, screen=False, replicate_all=True)
    else:
        usual = Manner("tpe", "asha", 1, screen=SCREEN, replicate_all=False)
    return Manner(
        sampler or usual.sampler,
        scheduler or usual.scheduler,
        replicates or usual.replicates,
        usual.screen if screen is None else screen == "on",
        usual.replicate_all,
    )


def count_settings(space: Space, base: TrainConfig) -> int:
    """Different settings of a finite space, the default and the baselines among them.

    Raises:
        SpaceError: the space is not finite, or too large to be listed.
    """
    settings: list[Mapping[str, Scalar]] = [{}, *(one.overrides for one in space.baselines)]
    settings = [{**space.fixed, **overrides} for overrides in settings]
    settings += [overrides for _, overrides in enumerate_settings(space)]
    return len({setting_digest(TrainConfig.from_flat(overrides, base)) for overrides in settings})


def run_name(name: str | None, space: str) -> str:
    """The folder's name: as asked, or from the space and the time.

    Raises:
        UsageError: the name holds anything but letters, digits, dots, dashes and underscores.
    """
    if name is None:
        stem = "-".join(Path(item.strip()).stem for item in space.split(","))
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}-{datetime.now():%Y%m%d-%H%M%S}"
    if not is_name(name):
        raise UsageError(
            f"--name {printable(repr(name))}: a run's name is letters, digits, '.', '-' and '_', and starts with a "
            "letter or digit"
        )
    return name


def parse_duration(text: str) -> float:
    """Seconds of `30m`, `2h`, `1h30m`, `45s` or `90`.

    Raises:
        UsageError: anything else, or no time at all.
    """
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if not total:
        raise UsageError(f"--time-budget takes a time like 30m, 2h, 1h30m or 45s, got '{printable(text)}'")
    return float(total)


def parse_size(text: str) -> int:
    """Bytes of `20G`, `500M` or `1.5T`.

    Raises:
        UsageError: anything else, or nothing at all.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else round(float(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()))
    if not size:
        raise UsageError(f"--disk takes a size like 20G, 500M or 1.5T, got '{printable(text)}'")
    return size


def read_parameters(assignments: list[str], config: str | None) -> tuple[Flat, Flat]:
    """The parameters of `--set` and of `--config`.

    Raises:
        ConfigError: an unknown parameter, a value it does not take, or a file that cannot be read.
    """
    return dict(parse_assignment(text) for text in assignments), {} if config is None else read_toml(Path(config))


def _refuse_one_slash(flag: str, text: str) -> None:
    if re.match(rf"({'|'.join(SCHEMES)}):/?(?!/)", text):
        raise UsageError(f"{flag} {printable(text)}: an address has two slashes after the colon, as s3://bucket/folder")


def storage_address(text: str) -> str:
    """The place of `--storage`: an address, or a folder as an absolute path, so that workers find it.

    Raises:
        UsageError: an address of another form.
    """
    _refuse_one_slash("--storage", text)
    if is_address(text):
        open_place(text, "--storage")
        place, mark, options = text.partition("?")
        return place.rstrip("/") + mark + options
    return str(Path(text).expanduser().absolute())


def data_source(folder: str, **names: Any) -> DataSource:
    """The data of `--data`: the folder as an address or an absolute path, so that workers find it."""
    _refuse_one_slash("--data", folder)
    if folder != DRAWN and not is_address(folder):
        folder = str(Path(folder).expanduser().absolute())
    return DataSource(folder=folder, **names)
