"""A detector in a form that the ONNX exporter can trace; the same detections as torchvision's own model."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from digits_core.evaluation.detect import MIN_SIDE_PX
from digits_core.submission.inference import Detector


@contextmanager
def exportable(detector: Detector) -> Iterator[nn.Module]:
    """A module that takes one image and gives its boxes, labels and scores at Task 1's thresholds.

    Inside this context the detector's model has another resize and, if NMS is class-agnostic, other post-processing.
    """
    model = detector.model
    assert model is not None  # the command refuses ensembles
    before = model.transform
    model.transform = _Transform(before.min_size, before.max_size, before.image_mean, before.image_std)
    model.transform.fixed_size, model.transform.size_divisible = before.fixed_size, before.size_divisible
    if detector.config.detect.task1.class_agnostic:
        model.roi_heads.postprocess_detections = partial(_nms_over_all_classes, model.roi_heads)
    try:
        yield _OneImage(model).eval()
    finally:
        model.transform = before
        model.roi_heads.__dict__.pop("postprocess_detections", None)


class _OneImage(nn.Module):
    """A detector of one image instead of a list of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model([image])[0]
        return found["boxes"], found["labels"], found["scores"]


class _Transform(GeneralizedRCNNTransform):
    """torchvision's transform with a resize to whole pixels: ONNX would scale by the factor before it is rounded."""

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        shape = torch._shape_as_tensor(image)[-2:]
        if self.fixed_size is not None:
            size = torch.tensor([self.fixed_size[1], self.fixed_size[0]])
        else:
            # Double precision in vectors of one element: the exporter casts scalars to single precision, which rounds
            # to other sizes.
            sides = shape.to(torch.float64)
            limits = torch.tensor([[self.min_size[0]], [self.max_size]], dtype=torch.float64)
            shortest, longest = torch.amin(sides, 0, keepdim=True), torch.amax(sides, 0, keepdim=True)
            scale = torch.minimum(limits[0] / shortest, limits[1] / longest)
            size = torch.floor(sides * scale).to(torch.int64)
        traced: Any = [size[0], size[1]]  # tensors, so that the size depends on the image in the exported file
        resized = functional.interpolate(image[None], size=traced, mode="bilinear", align_corners=False)
        return resized[0], target


def _nms_over_all_classes(
    heads: RoIHeads,
    class_logits: Tensor,
    box_regression: Tensor,
    proposals: list[Tensor],
    image_shapes: list[tuple[int, int]],
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Torchvision's `postprocess_detections` for one image, with NMS over all classes together."""
    boxes = clip_boxes_to_image(heads.box_coder.decode(box_regression, proposals), image_shapes[0])[:, 1:]
    scores = functional.softmax(class_logits, -1)[:, 1:]
    labels = torch.arange(1, class_logits.shape[-1]).view(1, -1).expand_as(scores)
    boxes, scores, labels = boxes.reshape(-1, 4), scores.reshape(-1), labels.reshape(-1)
    rows = torch.where(scores > heads.score_thresh)[0]
    boxes, scores, labels = boxes[rows], scores[rows], labels[rows]
    rows = remove_small_boxes(boxes, MIN_SIDE_PX)
    boxes, scores, labels = boxes[rows], scores[rows], labels[rows]
    rows = nms(boxes, scores, heads.nms_thresh)[: heads.detections_per_img]
    return [boxes[rows]], [scores[rows]], [labels[rows]]
