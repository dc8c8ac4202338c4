"""The tables of two course reports on SVHN digits, with every configuration trained again with several seeds.

Both reports tuned Faster R-CNN by hand: one parameter at a time, one run each. The ten runs of report B are eight
configurations: it assigned NMS and score thresholds to names that torchvision does not read, so two pairs of runs have
the same configuration. As they were meant, the thresholds act after training. Report A trained first with easy, then
with hard augmentations.
"""

from collections.abc import Mapping
from dataclasses import replace

import optuna

from digits_core.config.parameter import Flat
from spaces.registry import Baseline, Overrides, Row, Space, Table

STEP: Flat = {"optim.schedule": "step", "optim.step_epochs": 3, "optim.step_gamma": 0.1}
NORMAL, SMALL = "4,8,16,32,64", "4,8,12,24,48"
WIDE, TALL = "0.25,0.5,1", "1,1.5,2"

REPORT_B: Flat = {
    **STEP,
    "optim.optimizer": "adamw",
    "optim.lr": 1e-4,
    "optim.weight_decay": 1e-4,
    "optim.batch_size": 4,
    "optim.epochs": 20,
    "optim.early_stop_epochs": 5,
    "optim.max_grad_norm": 0.0,
    "model.anchor_sizes": NORMAL,
    "model.aspect_ratios": WIDE,
    "model.roi_levels": 4,
    "augment.pipeline": "none",
    # The values that torchvision used; Task 2 has the values that the report meant.
    "detect.task1.nms": 0.5,
    "detect.task1.score": 0.05,
    "detect.task2.nms": 0.3,
    "detect.task2.score": 0.5,
    "detect.task2.class_agnostic": False,
}
"""The common parameters of report B, which are also its first configuration."""

FULL_SIZE: Flat = {
    "model.backbone": "resnet50",
    "model.weights": "coco",
    "model.min_size": 512,
    "model.max_size": 1024,
    "model.rpn_pre_nms_top_n_train": 2000,
    "model.rpn_pre_nms_top_n_test": 1000,
    "model.rpn_post_nms_top_n_train": 2000,
    "model.rpn_post_nms_top_n_test": 1000,
    "model.rpn_batch_size": 256,
    "model.roi_batch_size": 512,
    "model.roi_positive_fraction": 0.25,
    "model.roi_output_size": 7,
    "model.roi_sampling_ratio": 2,
}
"""torchvision's fasterrcnn_resnet50_fpn with the image size of the reports."""

TINY_SIZE: Flat = {"model.fresh_rpn": True, "optim.lr": 1e-3, "optim.epochs": 6}
"""For two CPU cores: the default model and image size, ten times the learning rate, six epochs."""

SMALL_8: Flat = {"model.anchor_sizes": SMALL, "optim.batch_size": 8}

SETTINGS: dict[str, Flat] = {
    "B step": {},
    "B cosine": {"optim.schedule": "cosine", "optim.eta_min": 1e-7},
    "B color": {"augment.pipeline": "color_b"},
    "B binary": {"augment.pipeline": "binarize"},
    "B small": {"model.anchor_sizes": SMALL},
    "B batch 8": SMALL_8,
    "B tall": {**SMALL_8, "model.aspect_ratios": TALL},
    "B two levels": {**SMALL_8, "model.roi_levels": 2},
}
"""The configurations of report B, as changes of REPORT_B."""

REPORT_A: Flat = {
    "optim.schedule": "cosine",
    "optim.eta_min": 0.0,
    "model.anchor_sizes": "32,64,128,256,512",
    "model.aspect_ratios": "0.5,1,2",
    "augment.pipeline": "color",
    "model.fixed_size": 256,
}
"""The parameters of report A, as changes of REPORT_B; optimiser, learning rate and weight decay are equal."""

CURRICULUM = "50% augment.pipeline=color; 50% augment.mirror=true augment.pipeline=geometric"
"""The two stages of report A, 10 epochs each; the second one also mirrors."""

A_FULL: dict[str, Flat] = {
    "A easy": {**REPORT_A, "model.weights": "imagenet", "optim.batch_size": 32},
    "A easy, then hard": {
        **REPORT_A,
        "model.weights": "imagenet",
        "optim.batch_size": 32,
        "optim.stages": CURRICULUM,
    },
    "A easy, then hard, ResNeXt-50": {
        **REPORT_A,
        "model.weights": "imagenet",
        "model.backbone": "resnext50_32x4d",
        "optim.batch_size": 16,
        "optim.stages": CURRICULUM,
    },
}

_A_TINY: Flat = {
    **REPORT_A,
    "model.fixed_size": 96,
    "model.anchor_sizes": "12,24,48,96,192",  # 32 to 512, as 96 is to 256
    "optim.batch_size": 16,
}
A_TINY: dict[str, Flat] = {"A easy": _A_TINY, "A easy, then hard": {**_A_TINY, "optim.stages": CURRICULUM}}

_AT_512: Flat = {"model.min_size": 512}


def _b(label: str, setting: str, val: float, public: float | None = None, numbers: float | None = None) -> Row:
    published = {"val_map": val}
    if public is not None and numbers is not None:
        published |= {"public_map": public, "public_number_accuracy": numbers}
    return Row(label=label, setting=setting, published=published)


_TABLES_B: tuple[tuple[str, tuple[Row, ...], Flat], ...] = (
    ("Table 2, schedule", (_b("cosine", "B cosine", 0.4535, 0.35, 0.76), _b("step", "B step", 0.4588, 0.36, 0.77)), {}),
    ("Table 3, batch", (_b("4", "B small", 0.4643, 0.36, 0.77), _b("8", "B batch 8", 0.4653, 0.36, 0.77)), {}),
    (
        "Table 4, data",
        (
            _b("none", "B step", 0.4588, 0.36, 0.77),
            _b("color", "B color", 0.2545),
            _b("binary", "B binary", 0.4309, 0.32, 0.63),
        ),
        {},
    ),
    (
        "Table 5, anchor sizes",
        (_b("normal", "B step", 0.4588, 0.36, 0.77), _b("small", "B small", 0.4619, 0.36, 0.77)),
        _AT_512,
    ),
    (
        "Table 5, aspect ratios",
        (_b("wide", "B batch 8", 0.4653, 0.36, 0.77), _b("tall", "B tall", 0.4671, 0.36, 0.77)),
        _AT_512,
    ),
    ("Table 6, NMS", (_b("0.5", "B step", 0.4611, 0.36, 0.76), _b("0.3", "B step", 0.4588, 0.36, 0.77)), {}),
    ("Table 6, score", (_b("0.05", "B small", 0.4619, 0.36, 0.77), _b("0.5", "B small", 0.4643, 0.36, 0.77)), {}),
    (
        "Table 7, RoI levels",
        (_b("four", "B batch 8", 0.4653, 0.36, 0.77), _b("two", "B two levels", 0.4633, 0.35, 0.76)),
        _AT_512,
    ),
)

_MEANT: dict[tuple[str, str], tuple[float, float]] = {
    ("Table 3, batch", "4"): (0.3, 0.5),
    ("Table 3, batch", "8"): (0.3, 0.5),
    ("Table 5, aspect ratios", "wide"): (0.3, 0.5),
    ("Table 5, aspect ratios", "tall"): (0.3, 0.5),
    ("Table 6, NMS", "0.5"): (0.5, 0.05),
    ("Table 6, score", "0.5"): (0.3, 0.5),
    ("Table 7, RoI levels", "four"): (0.3, 0.5),
    ("Table 7, RoI levels", "two"): (0.3, 0.5),
}
"""The NMS and score threshold that a row meant, if they are not .3 and .05."""

_SAME = "as printed, the assignment has no effect: one configuration, trained twice"


def _tables() -> tuple[Table, ...]:
    printed, meant = [], []
    for title, rows, holds_at in _TABLES_B:
        note = _SAME if len({row.setting for row in rows}) < len(rows) else ""
        printed.append(Table(title=f"B, {title}", reading="as printed", rows=rows, holds_at=holds_at, note=note))
        readings = []
        for row in rows:
            nms, score = _MEANT.get((title, row.label), (0.3, 0.05))
            readings.append(replace(row, detect={"detect.task1.nms": nms, "detect.task1.score": score}))
        meant.append(Table(title=f"B, {title}", reading="as meant", rows=tuple(readings), holds_at=holds_at))
    curriculum = Table(
        title="A, curriculum",
        reading="as printed",
        rows=(Row(label="easy", setting="A easy"), Row(label="easy, then hard", setting="A easy, then hard")),
        note="report A prints only curves",
    )
    return (*printed, curriculum, *meant)


TABLES = _tables()


def _space(name: str, summary: str, size: Flat, settings: Mapping[str, Flat]) -> Space:
    def suggest(trial: optuna.Trial) -> Overrides:
        """One of the configurations of the reports."""
        return dict(settings[trial.suggest_categorical("setting", list(settings))])

    return Space(
        name=name,
        summary=summary,
        suggest=suggest,
        baselines=tuple(
            Baseline(name=setting, overrides=overrides, source=f"course report {setting[0]}")
            for setting, overrides in settings.items()
        ),
        preset={**REPORT_B, **size},
        tables=TABLES,
        measured_with={"optim.epochs": 20, "optim.lr": 1e-4, "model.backbone": "resnet50", "model.min_size": 512},
        comparison=True,
    )


reports = _space(
    "reports",
    "the configurations of two course reports, trained again with several seeds",
    FULL_SIZE,
    SETTINGS | A_FULL,
)
reports_tiny = _space(
    "reports_tiny", "the same tables with the tiny model, for two CPU cores", TINY_SIZE, SETTINGS | A_TINY
)
