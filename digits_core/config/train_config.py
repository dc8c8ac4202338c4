"""Every parameter of one training: its name, type, unit, limits and default.

The flat name of a parameter is its path with dots (`model.anchor_sizes`, `detect.task1.nms`). Spaces, `--set` and
`--config` use flat names, and all of them call `TrainConfig.from_flat`. The file has more than 400 lines because it
declares every parameter in one place.
"""

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from digits_core.config.parameter import Flat, Parameter, Scalar, format_numbers, parameter, parse_numbers
from digits_core.config.sections import build, check_section, leaves, section_parameters
from digits_core.config.stages import Span, format_stages, parse_stages, spans
from digits_core.errors import ConfigError, did_you_mean, printable

BACKBONES = ("tiny", "resnet18", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "resnet50_v2")
"""All except tiny come from torchvision; resnet50_v2 is its second version, with trainable batch norm and a deeper
head."""

COCO_BACKBONES = ("resnet50", "resnet50_v2")
"""Backbones for which torchvision has COCO weights."""

PIPELINES = ("none", "color", "color_b", "geometric", "binarize")
"""Names of the augmentation pipelines; `data/augment.py` implements them."""

PROCESSING = ("binarize",)
"""Pipelines without randomness; they also change the images of an evaluation."""

READINGS = ("left_to_right", "main_axis")
"""Rules that combine the digits of an image into a number; `evaluation/transcribe.py` implements them."""

BOX_LOSSES = ("smooth_l1", "l1", "giou", "ciou")
"""Losses of the boxes in the RoI heads; `model/box_loss.py` implements them."""

LR_BATCH = 8
"""The batch size for which `optim.lr` is given if `optim.lr_scaling` is used."""

NUM_LEVELS = 5
"""Pyramid levels of every backbone: 0, 1, 2, 3 and pool."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How many images an epoch uses."""

    images_per_epoch: int = parameter(
        0, "training images between two evaluations; 0 uses all of them", low=0, high=10_000_000
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Augmentation of training images and their boxes."""

    pipeline: str = parameter(
        "none", "none, color, color_b, geometric or binarize; or several, separated by commas, in order"
    )
    mirror: bool = parameter(False, "mirror half of the training images; note that a mirrored 2 is not a 2")
    scale_jitter: float = parameter(
        1.0,
        "crop a training image at random, or put it onto a larger grey one, so that its content becomes up to this "
        "many times as large or as small after the resize (large-scale jitter); 1: off",
        low=1.0,
        high=8.0,
    )
    multi_scale: float = parameter(
        1.0,
        "multiply the image size of each training step by a random factor from 1 / this value to this value; 1: off",
        low=1.0,
        high=4.0,
    )

    def __post_init__(self) -> None:
        """Check each parameter and the names of the pipelines."""
        check_section("augment", self)
        names = [name.strip() for name in self.pipeline.split(",")]
        for name in names:
            if name not in PIPELINES:
                raise ConfigError(
                    f"augment.pipeline: unknown pipeline '{printable(name)}'{did_you_mean(name, PIPELINES)}"
                )
        if len(names) > 1 and "none" in names:
            raise ConfigError("augment.pipeline: none cannot be combined with other pipelines; remove it")
        if len(set(names)) < len(names):
            raise ConfigError(f"augment.pipeline: '{self.pipeline}' contains a pipeline twice")
        object.__setattr__(self, "pipeline", ",".join(names))

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps, in order."""
        named = () if self.pipeline == "none" else tuple(self.pipeline.split(","))
        return (
            *named,
            *(("mirror",) if self.mirror else ()),
            *(("scale_jitter",) if self.scale_jitter > 1 else ()),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The detector: backbone, initial weights, anchors, RPN and RoI heads."""

    backbone: str = parameter("tiny", "feature extractor below the pyramid", choices=BACKBONES)
    weights: str = parameter(
        "drawn", "initial weights: none | drawn (shipped, tiny only) | imagenet | coco | path of a checkpoint folder"
    )
    fresh_rpn: bool = parameter(
        False, "initialise the RPN head randomly, because pretrained RPN weights fit only the anchors of their training"
    )
    trainable_layers: int | None = parameter(
        None, "trained resnet stages, counted from the top; none: 3 with weights, all 5 without", low=0, high=5
    )
    live_batch_norm: bool = parameter(
        False,
        "train the batch norm of a resnet, which a training from random weights needs; otherwise it is frozen, which "
        "suits loaded weights (tiny and resnet50_v2 always train it)",
    )
    anchor_sizes: str = parameter(
        "18,26,38,55,80", "one anchor side per pyramid level (0 1 2 3 pool), pixels after the resize"
    )
    aspect_ratios: str = parameter("1.4,2,2.8", "height / width of the anchors, on every level")
    min_size: int = parameter(64, "shortest image side after the resize, pixels", low=32, high=4096)
    max_size: int = parameter(224, "longest image side after the resize, pixels", low=32, high=8192)
    fixed_size: int | None = parameter(
        None, "resize every image to a square of this side; none keeps the aspect ratio", low=32, high=4096
    )
    rpn_pre_nms_top_n_train: int = parameter(400, "proposals per level before NMS, training", low=1, high=20_000)
    rpn_pre_nms_top_n_test: int = parameter(200, "proposals per level before NMS, evaluation", low=1, high=20_000)
    rpn_post_nms_top_n_train: int = parameter(200, "proposals per image after NMS, training", low=1, high=20_000)
    rpn_post_nms_top_n_test: int = parameter(60, "proposals per image after NMS, evaluation", low=1, high=20_000)
    rpn_nms: float = parameter(0.7, "IoU above which the RPN drops the lower-scored proposal", low=0.0, high=1.0)
    rpn_fg_iou: float = parameter(0.7, "IoU from which an anchor counts as foreground", low=0.0, high=1.0)
    rpn_bg_iou: float = parameter(0.3, "IoU below which an anchor counts as background", low=0.0, high=1.0)
    rpn_batch_size: int = parameter(128, "anchors per image in the RPN loss", low=1, high=4096)
    rpn_positive_fraction: float = parameter(0.5, "largest share of foreground anchors", low=0.0, high=1.0)
    roi_fg_iou: float = parameter(0.5, "IoU from which a proposal counts as foreground", low=0.0, high=1.0)
    roi_batch_size: int = parameter(64, "proposals per image in the RoI loss", low=1, high=4096)
    roi_positive_fraction: float = parameter(0.25, "largest share of foreground proposals", low=0.0, high=1.0)
    roi_levels: int = parameter(4, "pyramid levels that RoIAlign reads: 4 means 0-3, 2 means 0-1", low=1, high=4)
    roi_output_size: int = parameter(5, "side of the pooled RoI features", low=1, high=28)
    roi_sampling_ratio: int = parameter(2, "RoIAlign samples per bin and axis", low=1, high=8)
    cascade_stages: int = parameter(
        1,
        "stages of the RoI heads (Cascade R-CNN): each moves the boxes of the one before, at IoU .5, .6 and .7; 1 is "
        "Faster R-CNN",
        low=1,
        high=3,
    )
    box_loss: str = parameter(
        "smooth_l1", "box loss of the RoI heads; the RPN always has smooth_l1", choices=BOX_LOSSES
    )
    box_loss_beta: float = parameter(
        1 / 9, "where box_loss=smooth_l1 changes from a square to a line", low=1e-3, high=10.0
    )
    box_loss_weight: float = parameter(1.0, "weight of the box loss of the RoI heads", low=0.0, high=100.0)
    label_smoothing: float = parameter(
        0.0, "label smoothing of the classification loss of the RoI heads", low=0.0, high=0.5
    )
    box_jitter: float = parameter(
        0.0,
        "the annotated boxes, which training uses as proposals too, have each side moved by up to this share of their "
        "width or height; 0: exact boxes, as in torchvision",
        low=0.0,
        high=0.5,
    )

    def __post_init__(self) -> None:
        """Check each parameter and their combination."""
        check_section("model", self)
        if not self.weights.strip():
            raise ConfigError("model.weights must be none, drawn, imagenet, coco or a path, but is empty")
        sizes = parse_numbers(self.anchor_sizes, "model.anchor_sizes")
        ratios = parse_numbers(self.aspect_ratios, "model.aspect_ratios")
        if len(sizes) != NUM_LEVELS:
            raise ConfigError(
                f"model.anchor_sizes must have {NUM_LEVELS} sizes, one per pyramid level, got {len(sizes)}"
            )
        if min(round(size * min(ratio**0.5, ratio**-0.5) / 2) for size in sizes for ratio in ratios) < 1:
            raise ConfigError(
                f"model.anchor_sizes {self.anchor_sizes} with ratios {self.aspect_ratios} gives an anchor "
                "whose width or height rounds to 0; make the smallest size larger"
            )
        # Texts with the same meaning are stored as the same text.
        object.__setattr__(self, "anchor_sizes", format_numbers(sizes))
        object.__setattr__(self, "aspect_ratios", format_numbers(ratios))
        if self.max_size < self.min_size:
            raise ConfigError(f"model.max_size must be at least model.min_size ({self.min_size}), got {self.max_size}")
        if self.rpn_bg_iou > self.rpn_fg_iou:
            raise ConfigError(
                f"model.rpn_bg_iou must not exceed model.rpn_fg_iou ({self.rpn_fg_iou}), got {self.rpn_bg_iou}"
            )
        if self.weights == "drawn" and self.backbone != "tiny":
            raise ConfigError(
                f"model.weights=drawn fits only model.backbone=tiny; for {self.backbone} use none, imagenet, coco or a "
                "path"
            )
        if self.weights in ("imagenet", "coco") and self.backbone == "tiny":
            raise ConfigError(f"model.weights={self.weights} does not exist for model.backbone=tiny; use drawn or none")
        if self.weights == "coco" and self.backbone not in COCO_BACKBONES:
            raise ConfigError(
                f"model.weights=coco exists only for {' and '.join(COCO_BACKBONES)}, not for model.backbone="
                f"{self.backbone}; use imagenet, none or a path"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimiser, learning-rate schedule and length of the training."""

    optimizer: str = parameter("adamw", "torch.optim optimiser", choices=("adamw", "sgd"))
    lr: float = parameter(1.5e-3, "peak learning rate", low=1e-8, high=10.0)
    lr_scaling: str = parameter(
        "none",
        f"scale lr, given for {LR_BATCH} images per step, with batch_size: not at all, linearly or by the square root",
        choices=("none", "linear", "sqrt"),
    )
    weight_decay: float = parameter(1e-4, "weight decay", low=0.0, high=1.0)
    momentum: float = parameter(0.9, "momentum of sgd", low=0.0, high=0.9999)
    schedule: str = parameter(
        "onecycle", "learning rate over the epochs", choices=("onecycle", "cosine", "step", "constant")
    )
    step_epochs: int = parameter(3, "epochs between two reductions of schedule=step", low=1, high=10_000)
    step_gamma: float = parameter(0.1, "factor of each reduction of schedule=step", low=0.0, high=1.0)
    eta_min: float = parameter(0.0, "learning rate at the end of schedule=cosine", low=0.0, high=10.0)
    t_max: int | None = parameter(
        None,
        "epochs in which schedule=cosine falls to eta_min, before it rises again; none: all",
        low=1,
        high=10_000,
    )
    onecycle_peak: float = parameter(0.3, "share of the training before the peak of onecycle", low=0.01, high=0.99)
    warmup_epochs: float = parameter(0.0, "epochs of linear warm-up, starting at lr / 100", low=0.0, high=1000.0)
    batch_size: int = parameter(8, "images per optimiser step", low=1, high=4096)
    epochs: int = parameter(4, "epochs of the full schedule; early stopping never shortens it", low=1, high=10_000)
    max_grad_norm: float = parameter(5.0, "gradients are clipped to this norm; 0 does not clip", low=0.0, high=1e6)
    ema: float = parameter(
        0.0,
        "decay of a moving average of the weights, which is scored and kept instead of them; less at first; 0: off",
        low=0.0,
        high=0.99999,
    )
    early_stop_epochs: int = parameter(
        0,
        "stop after this many epochs without a better score, counted in the last stage; 0: never",
        low=0,
        high=10_000,
    )
    stages: str | None = parameter(
        None,
        "consecutive parts of the training, each a length (epochs or %) and parameters of optim or augment: "
        "'10 augment.pipeline=color; 10 augment.pipeline=geometric'; each has its own optimiser and schedule",
    )

    def __post_init__(self) -> None:
        """Check each parameter and their combination."""
        check_section("optim", self)
        if self.schedule == "cosine" and self.eta_min >= self.peak_lr:
            raise ConfigError(f"optim.eta_min must be less than optim.lr ({self.peak_lr:g}), got {self.eta_min}")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"optim.warmup_epochs must be less than optim.epochs ({self.epochs}), got {self.warmup_epochs}"
            )

    @property
    def peak_lr(self) -> float:
        """The learning rate for steps of `batch_size` images.

        Source:
            linear: Goyal et al. 2017, Accurate, large minibatch SGD; sqrt: Krizhevsky 2014, One weird trick.
        """
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.lr_scaling]
        return float(self.lr * (self.batch_size / LR_BATCH) ** power)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """NMS and thresholds of one task, applied to raw detections; training does not use them."""

    nms: float = parameter(0.5, "IoU above which the detection with the lower score is dropped", low=0.0, high=1.0)
    score: float = parameter(0.01, "only detections with a score above this one are kept", low=0.0, high=1.0)
    max_detections: int = parameter(100, "detections kept per image, best scores first", low=1, high=1000)
    class_agnostic: bool = parameter(False, "NMS over all classes together instead of within each class")

    def __post_init__(self) -> None:
        """Check each parameter."""
        check_section("detect.task", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectConfig:
    """What happens to the raw detections of one model: NMS and thresholds of Task 1 (boxes) and Task 2 (the number)."""

    task1: TaskConfig = field(default_factory=TaskConfig)
    task2: TaskConfig = field(
        default_factory=lambda: TaskConfig(nms=0.5, score=0.5, max_detections=100, class_agnostic=True)
    )
    reading: str = parameter(
        "left_to_right",
        "order of the digits of a number; main_axis also reads digits that are one above the other",
        choices=READINGS,
    )
    box_merge: float = parameter(
        0.0,
        "before NMS, each box becomes the mean, weighted by score, of the raw boxes of its class that overlap with it "
        "by at least this IoU (box voting); 0: off",
        low=0.0,
        high=1.0,
    )
    box_fusion: float = parameter(
        0.0,
        "before NMS, raw boxes of a class that overlap by more than this IoU become one box, their mean weighted by "
        "score, with the best score (weighted boxes fusion); 0: off",
        low=0.0,
        high=0.99,
    )
    soft_nms: float = parameter(
        0.0,
        "before NMS, multiply the score of a box by exp(-IoU² / this value) for each better box of its class "
        "(Soft-NMS; it needs a high IoU of NMS, which would otherwise drop the same boxes); 0: off",
        low=0.0,
        high=10.0,
    )
    common_height: bool = parameter(
        False,
        "before NMS, give boxes of one image that are about as tall and beside each other one height: fits data whose "
        "annotations draw all digits of a number equally tall, as SVHN's do",
    )

    def __post_init__(self) -> None:
        """Check each parameter and their combination."""
        check_section("detect", self)
        if self.box_merge and self.box_fusion:
            raise ConfigError(
                f"detect.box_fusion={self.box_fusion:g} and detect.box_merge={self.box_merge:g} both average boxes; "
                "set one of them to 0"
            )

    @property
    def before_nms(self) -> dict[str, Scalar]:
        """The parameters that change raw detections before NMS and are not off, by flat name."""
        names = ("box_merge", "box_fusion", "common_height", "soft_nms")
        return {f"detect.{name}": getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """Parameters that are not part of the configuration that a search compares: seed, arithmetic and batches."""

    seed: int = parameter(0, "seed of weights, data order and sampling", low=0, high=2**31 - 1)
    precision: str = parameter(
        "auto",
        "arithmetic: auto is bfloat16 on a GPU or CPU that computes it in hardware, otherwise float32",
        choices=("auto", "float32", "bfloat16"),
    )
    micro_batch: int | None = parameter(
        None, "images per forward pass in training; gradients add up over batch_size; none: all", low=1, high=4096
    )
    eval_batch_size: int = parameter(32, "images per batch of an evaluation", low=1, high=4096)
    train_sample: int = parameter(
        0,
        "number of training images, always the same, that are also scored after each epoch, to show overfitting",
        low=0,
        high=10_000_000,
    )

    def __post_init__(self) -> None:
        """Check each parameter."""
        check_section("runtime", self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """All parameters of one training."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        """Check the stages, each as a configuration."""
        if self.optim.stages is None:
            return
        text = format_stages(parse_stages(self.optim.stages, parameter_named))
        object.__setattr__(self.optim, "stages", text)  # texts with the same meaning are stored as the same text
        for stage in self.stages:
            for name in PROCESSING:
                if (name in stage.config.augment.steps) != (name in self.augment.steps):
                    raise ConfigError(
                        f"optim.stages: {name} also changes evaluated images, so it must be in augment.pipeline and in "
                        "every stage, or in none of them"
                    )

    @property
    def stages(self) -> tuple["Stage", ...]:
        """The parts of the training; without `optim.stages`, one stage with this configuration.

        Raises:
            ConfigError: the epochs of the stages do not add up, or a stage is not a valid configuration.
        """
        if self.optim.stages is None:
            return (Stage(Span(1, self.optim.epochs), self),)
        parsed = parse_stages(self.optim.stages, parameter_named)
        found = []
        for number, ((_, overrides), span) in enumerate(
            zip(parsed, spans(parsed, self.optim.epochs), strict=True), start=1
        ):
            flat = {**overrides, "optim.stages": None, "optim.epochs": span.epochs}
            try:
                found.append(Stage(span, TrainConfig.from_flat(flat, self)))
            except ConfigError as error:
                raise ConfigError(f"optim.stages, stage {number}: {error}") from None
        return tuple(found)

    def stage_at(self, epoch: int) -> "Stage":
        """The stage that contains an epoch."""
        return next(stage for stage in self.stages if epoch <= stage.span.last)

    @classmethod
    def from_flat(cls, flat: Mapping[str, object], base: Self | None = None) -> Self:
        """Build a configuration from flat names; other parameters keep their value in `base` (or their default).

        Raises:
            ConfigError: an unknown name, a wrong type or a value outside its limits.
        """
        values: dict[str, Scalar] = dict((base or cls()).to_flat())
        for name, value in flat.items():
            values[name] = parameter_named(name).check(value)
        return typing.cast(Self, build(cls, values))

    def to_flat(self) -> Flat:
        """Every parameter by its flat name, in the order of this file."""
        return dict(leaves(self))

    def to_json(self) -> str:
        """The configuration as one JSON object of flat names."""
        return json.dumps(self.to_flat())

    @classmethod
    def from_json(cls, text: str, source: str = "config") -> Self:
        """Read the text of `to_json`.

        Raises:
            ConfigError: not a JSON object, or a parameter is unknown or wrong.
        """
        try:
            flat = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source} is not JSON: {error}") from None
        if not isinstance(flat, dict):
            raise ConfigError(f"{source} must be one JSON object of flat names")
        return cls.from_flat(flat)

    def to_toml(self) -> str:
        """The configuration as a TOML file for `--config`, without parameters that are None."""
        lines: list[str] = []
        section = None
        for name, value in self.to_flat().items():
            table, _, key = name.rpartition(".")
            if table != section:
                lines += [*([""] if lines else []), f"[{table}]"]
                section = table
            if value is not None:
                # Numbers, booleans and escaped strings are written the same way in JSON and TOML.
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a training.

    Attributes:
        span: its epochs, counted from the start of the training.
        config: the parameters of this part, with its own number of epochs and no stages.
    """

    span: Span
    config: TrainConfig


def parameters() -> dict[str, Parameter]:
    """All parameters by flat name, in the order of this file."""
    return dict(_ALL_PARAMETERS)


def parameter_named(name: str) -> Parameter:
    """The parameter with a flat name.

    Raises:
        ConfigError: there is none; the message contains similar names.
    """
    try:
        return _ALL_PARAMETERS[name]
    except KeyError:
        hint = did_you_mean(str(name), _ALL_PARAMETERS) or "; --list-parameters prints all of them"
        raise ConfigError(f"unknown parameter '{printable(str(name))}'{hint}") from None


_ALL_PARAMETERS: dict[str, Parameter] = {one.name: one for one in section_parameters(TrainConfig, "", TrainConfig())}
