"""Backbones with a feature pyramid of five levels (0 1 2 3 pool), and the heads that belong to them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, resnet50
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights, FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.misc import FrozenBatchNorm2d

from digits_core.config.train_config import ModelConfig
from digits_core.errors import DownloadError, reason_of

TINY_WIDTHS = (16, 32, 64, 128, 128)
TINY_FPN_WIDTH = 64
TINY_HEAD_WIDTH = 256
RESNET_HEAD_WIDTH = 1024
RESNET_LAYERS_WITH_WEIGHTS = 3
"""Trained resnet stages if weights are given and `trainable_layers` is not: torchvision's default."""

COCO_WEIGHTS = {
    "resnet50": FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "resnet50_v2": FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}


def build_backbone(model: ModelConfig) -> BackboneWithFPN:
    """The backbone of a configuration with its pyramid, with ImageNet weights if `model.weights` says so.

    Raises:
        DownloadError: the weights cannot be downloaded.
    """
    if model.backbone == "tiny":
        return _tiny()
    name = "resnet50" if model.backbone == "resnet50_v2" else model.backbone
    weights = get_model_weights(name)["IMAGENET1K_V1"] if model.weights == "imagenet" else None
    layers = model.trainable_layers
    if layers is None:
        layers = 5 if model.weights == "none" else RESNET_LAYERS_WITH_WEIGHTS

    def build() -> BackboneWithFPN:
        if model.backbone == "resnet50_v2":
            return _resnet50_v2(weights, layers)
        norm = nn.BatchNorm2d if model.live_batch_norm else FrozenBatchNorm2d
        return resnet_fpn_backbone(backbone_name=name, weights=weights, norm_layer=norm, trainable_layers=layers)

    built: BackboneWithFPN = download(build, f"the ImageNet weights of {model.backbone}")
    return built


def build_rpn_head(model: ModelConfig, width: int, num_anchors: int) -> RPNHead:
    """The RPN head: one shared convolution, or two for `resnet50_v2`."""
    return RPNHead(width, num_anchors, conv_depth=2 if model.backbone == "resnet50_v2" else 1)


def build_box_head(model: ModelConfig, width: int) -> tuple[nn.Module, int]:
    """The head on the pooled features, and the width of its output, which is the input of the predictor."""
    if model.backbone == "tiny":
        return TwoMLPHead(width * model.roi_output_size**2, TINY_HEAD_WIDTH), TINY_HEAD_WIDTH
    if model.backbone == "resnet50_v2":
        shape = (width, model.roi_output_size, model.roi_output_size)
        head = FastRCNNConvFCHead(shape, [width] * 4, [RESNET_HEAD_WIDTH], norm_layer=nn.BatchNorm2d)
        return head, RESNET_HEAD_WIDTH
    return TwoMLPHead(width * model.roi_output_size**2, RESNET_HEAD_WIDTH), RESNET_HEAD_WIDTH


def download(call: Callable[[], Any], what: str) -> Any:
    """Call a function that may download a file, and turn a failed download into an error message for the user.

    Raises:
        WeightsError: the file is not in torch's cache and cannot be downloaded.
    """
    try:
        return call()
    except (URLError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "invalid hash" not in str(error):
            raise
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise DownloadError(
            f"{what} cannot be downloaded ({reason_of(error)}); copy the file into {folder}, give a checkpoint folder "
            "with --set model.weights=PATH, or start from random weights with --set model.weights=none"
        ) from None


class _Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, basic block without stride)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _conv(width, width, stride=1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu(features + self.second(self.first(features)))


def _conv(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _tiny() -> BackboneWithFPN:
    """A stem and four stages at strides 4, 8, 16 and 32 under a pyramid of 64 channels."""
    body = nn.Sequential()
    body.add_module("stem", _conv(3, TINY_WIDTHS[0], stride=2))
    for stage, (inputs, outputs) in enumerate(itertools.pairwise(TINY_WIDTHS)):
        down = _conv(inputs, outputs, stride=2)
        body.add_module(f"stage{stage}", down if stage == 3 else nn.Sequential(down, _Residual(outputs)))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    returned = {f"stage{stage}": str(stage) for stage in range(4)}
    return BackboneWithFPN(body, returned, list(TINY_WIDTHS[1:]), TINY_FPN_WIDTH)


def _resnet50_v2(weights: Any, trainable_layers: int) -> BackboneWithFPN:
    """Torchvision's v2: trainable batch norm in the body and in the pyramid.

    Torchvision's builder accepts no anchor generator, so the parts are combined here.

    Source:
        torchvision `fasterrcnn_resnet50_fpn_v2`.
    """
    body = resnet50(weights=weights)
    trained = ["layer4", "layer3", "layer2", "layer1", "conv1"][:trainable_layers]
    if trainable_layers == 5:
        trained.append("bn1")
    for name, parameter in body.named_parameters():
        if not any(name.startswith(layer) for layer in trained):
            parameter.requires_grad_(False)
    width = body.inplanes // 8
    channels = [width * 2**stage for stage in range(4)]
    returned = {f"layer{stage + 1}": str(stage) for stage in range(4)}
    return BackboneWithFPN(body, returned, channels, 256, norm_layer=nn.BatchNorm2d)
