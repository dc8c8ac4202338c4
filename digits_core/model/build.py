"""build_model(config): a torchvision Faster R-CNN that takes every parameter from TrainConfig."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from digits_core.config.parameter import parse_numbers
from digits_core.config.train_config import NUM_LEVELS, ModelConfig, TrainConfig
from digits_core.errors import ConfigError, UserError, WeightsError
from digits_core.labels import NUM_CLASSES
from digits_core.model.anchors import mean_the_same
from digits_core.model.backbones import COCO_WEIGHTS, build_backbone, build_box_head, build_rpn_head, download
from digits_core.model.cascade import Stage
from digits_core.model.checkpoint import load_config, load_tensors
from digits_core.model.detector import BatchDetector
from digits_core.model.region_proposals import ProposalNetwork
from digits_core.model.roi_align import PyramidRoIAlign

DRAWN_WEIGHTS = Path(__file__).parents[1] / "weights" / "tiny_drawn"
"""Folder of the shipped weights, an ordinary checkpoint in half precision."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Which initial weights were loaded.

    Attributes:
        source: the value of `model.weights`.
        left_out: names of tensors that the model does not have, or has with another shape.
        random: parts of the model whose weights begin at random.
    """

    source: str
    left_out: tuple[str, ...] = ()
    random: tuple[str, ...] = ()

    @property
    def words(self) -> str | None:
        """A message about tensors that were left out; None if there are none."""
        if not self.left_out:
            return None
        parts = dict.fromkeys(name.rpartition(".")[0] for name in self.left_out)
        few = ", ".join(list(parts)[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
        return (
            f"initial weights {self.source}: {len(self.left_out)} tensors do not fit this model and were left out "
            f"({few})"
        )


def build_model(config: TrainConfig, *, num_classes: int = NUM_CLASSES) -> tuple[BatchDetector, Loaded]:
    """Build the detector and load its initial weights.

    The model has the thresholds of `detect.task1`, so that it also works as a plain torchvision model. Random numbers
    come from torch's global generator: seed it before.

    Returns:
        The model, in training mode on the CPU, and which weights were loaded.

    Raises:
        ConfigError: `model.weights` is `drawn`, but its RPN head was trained with other anchors.
        WeightsError: weights are missing, damaged, do not fit the model or cannot be downloaded.
    """
    detector = _build(config, num_classes)
    detector.to(memory_format=torch.channels_last)  # faster convolutions, and the same rounding in all uses
    return detector, _load_initial(detector, config.model)


def check_model(config: TrainConfig, *, num_classes: int = NUM_CLASSES) -> Loaded:
    """Check that a detector can be built and that its initial weights fit, without memory for the detector.

    Returns:
        Which weights `build_model` would load.

    Raises:
        UserError: as `build_model`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
        with _NoValues(), torch.device("meta"):
            detector = _build(config, num_classes)
        return _load_initial(detector, config.model)


class _NoValues(TorchFunctionMode):
    """Skips random initialisation of tensors without storage, for which torch would load a part of its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The unchanged tensor for a random initialisation, otherwise the result of the function."""
        known = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):
            return args[0] if args else known["tensor"]
        return func(*args, **known)


def _build(config: TrainConfig, num_classes: int) -> BatchDetector:
    model = config.model
    task1 = config.detect.task1
    backbone = build_backbone(model)
    box_head, head_width = build_box_head(model, backbone.out_channels)
    predictor = FastRCNNPredictor(head_width, num_classes)
    anchors = _anchor_generator(
        model
    )  # the RPN head is built last, as in torchvision, so that a seed gives the same weights
    pool = PyramidRoIAlign(model.roi_levels, model.roi_output_size, model.roi_sampling_ratio)
    detector = BatchDetector(
        backbone,
        config=model,
        rpn_anchor_generator=anchors,
        rpn_head=build_rpn_head(model, backbone.out_channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=pool,
        box_head=box_head,
        box_predictor=predictor,
        box_score_thresh=task1.score,
        box_nms_thresh=task1.nms,
        box_detections_per_img=task1.max_detections,
        box_fg_iou_thresh=model.roi_fg_iou,
        box_bg_iou_thresh=model.roi_fg_iou,
        box_batch_size_per_image=model.roi_batch_size,
        box_positive_fraction=model.roi_positive_fraction,
    )
    detector.rpn = ProposalNetwork(
        anchors,
        detector.rpn.head,
        model.rpn_fg_iou,
        model.rpn_bg_iou,
        model.rpn_batch_size,
        model.rpn_positive_fraction,
        {"training": model.rpn_pre_nms_top_n_train, "testing": model.rpn_pre_nms_top_n_test},
        {"training": model.rpn_post_nms_top_n_train, "testing": model.rpn_post_nms_top_n_test},
        model.rpn_nms,
    )
    for number in range(2, model.cascade_stages + 1):
        head, width = build_box_head(model, backbone.out_channels)
        detector.cascade.append(Stage(number, head, width, num_classes))
    return detector


def read_back(model: BatchDetector) -> dict[str, Any]:
    """The properties of a built model, read from the objects that torchvision uses.

    Returns:
        Plain values: parameter counts, anchors per level (width, height), image sizes and thresholds.
    """
    generator = model.rpn.anchor_generator
    anchors = [
        [[int(x_max - x_min), int(y_max - y_min)] for x_min, y_min, x_max, y_max in level.tolist()]
        for level in generator.cell_anchors
    ]
    heads, rpn = model.roi_heads, model.rpn
    return {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "anchors": anchors,
        "min_size": model.transform.min_size[0],
        "max_size": model.transform.max_size,
        "fixed_size": None if model.transform.fixed_size is None else model.transform.fixed_size[0],
        "nms": heads.nms_thresh,
        "score": heads.score_thresh,
        "max_detections": heads.detections_per_img,
        "roi_batch_size": heads.fg_bg_sampler.batch_size_per_image,
        "roi_positive_fraction": heads.fg_bg_sampler.positive_fraction,
        "roi_levels": len(heads.box_roi_pool.featmap_names),
        "cascade_stages": 1 + len(model.cascade),
        "rpn_nms": rpn.nms_thresh,
        "rpn_batch_size": rpn.fg_bg_sampler.batch_size_per_image,
    }


def _anchor_generator(model: ModelConfig) -> AnchorGenerator:
    sizes = parse_numbers(model.anchor_sizes, "model.anchor_sizes")
    ratios = parse_numbers(model.aspect_ratios, "model.aspect_ratios")
    return AnchorGenerator(tuple((size,) for size in sizes), (ratios,) * NUM_LEVELS)


def _load_initial(detector: BatchDetector, model: ModelConfig) -> Loaded:
    match model.weights:
        case "none":
            return Loaded("none", random=("backbone", "rpn", "roi_heads"))
        case "imagenet":
            return Loaded("imagenet", random=("backbone.fpn", "rpn", "roi_heads"))
        case "coco":
            weights = COCO_WEIGHTS[model.backbone]
            state = download(
                lambda: weights.get_state_dict(progress=False, check_hash=True), f"the COCO weights of {model.backbone}"
            )
        case "drawn":
            state = load_tensors(DRAWN_WEIGHTS)
            _refuse_other_anchors(model)
        case path:
            state = load_tensors(Path(path))
    left_out, random = _load_fitting(detector, state, model)
    return Loaded(model.weights, left_out, random)


def _refuse_other_anchors(model: ModelConfig) -> None:
    """Raise a ConfigError if the RPN head of the drawn weights was trained with other anchors than the model's."""
    trained = load_config(DRAWN_WEIGHTS).model
    if not model.fresh_rpn and not mean_the_same(trained, model):
        raise ConfigError(
            f"model.weights=drawn was trained with anchors {trained.anchor_sizes} and ratios "
            f"{trained.aspect_ratios} at model.min_size={trained.min_size}, but this model has anchors "
            f"{model.anchor_sizes} and ratios {model.aspect_ratios}; use the same anchors, scale their sizes with the "
            "image size, or set model.fresh_rpn=true"
        )


def _load_fitting(
    detector: BatchDetector, state: dict[str, Tensor], model: ModelConfig
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Load all tensors that fit.

    A further stage of a cascade for which there are no weights begins with those of the stage before.

    Returns:
        The names of the tensors that were left out, and the parts of the model that keep their random values.

    Raises:
        WeightsError: no tensor of the backbone fits.
    """
    own = detector.state_dict()
    fitting, left_out = {}, []
    for name, tensor in state.items():
        if model.fresh_rpn and name.startswith("rpn.head."):
            continue
        if name.endswith("num_batches_tracked") and name not in own:
            continue  # frozen batch norm has no counter
        if name in own and own[name].shape == tensor.shape:
            fitting[name] = tensor.to(own[name].dtype)
        else:
            left_out.append(name)
    if not any(name.startswith("backbone.") for name in fitting):
        known = _backbone_of(Path(model.weights))
        raise WeightsError(
            f"model.weights={model.weights} contains no weights that fit model.backbone={model.backbone}"
            + (f"; it was trained with --set model.backbone={known}" if known else "")
        )
    detector.load_state_dict(fitting, strict=False)
    heads: Any = detector.roi_heads
    head, cls_score = heads.box_head, heads.box_predictor.cls_score
    for number, stage in enumerate(detector.cascade):
        if not any(name.startswith(f"cascade.{number}.") for name in fitting):
            stage.start_from(head, cls_score)
        head, cls_score = stage.box_head, stage.cls_score
    missing = {name for name, _ in detector.named_parameters()} - fitting.keys()
    parts = dict.fromkeys(name.rpartition(".")[0] for name in sorted(missing) if not name.startswith("cascade."))
    return tuple(left_out), tuple(parts)


def _backbone_of(folder: Path) -> str | None:
    """The backbone of a checkpoint's configuration; None if it has no valid configuration."""
    try:
        return load_config(folder).model.backbone
    except UserError:
        return None
