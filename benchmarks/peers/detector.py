"""The training that every peer runs: torchvision's model and reference loop, PIL images, torchmetrics.

Model, initial weights, image size, optimiser and schedule are those of digit-search's default setting.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.v2 import functional

from digits_core.config.train_config import TrainConfig
from digits_core.model.backbones import build_backbone, build_box_head
from digits_core.model.build import build_model

NUM_CLASSES = 11
BATCH_SIZE = 8


class Digits(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images of a COCO folder, opened one by one."""

    def __init__(self, folder: Path, part: str) -> None:
        """Read `part.json`."""
        tree = json.loads((folder / f"{part}.json").read_text())
        self.files = {image["id"]: folder / part / image["file_name"] for image in tree["images"]}
        self.ids = sorted(self.files)
        self.found: dict[int, list[dict[str, Any]]] = {number: [] for number in self.ids}
        for one in tree["annotations"]:
            self.found[one["image_id"]].append(one)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """An image, float32 [3, height, width], and its boxes and labels."""
        number = self.ids[index]
        image = functional.pil_to_tensor(Image.open(self.files[number]).convert("RGB")).float() / 255
        boxes = torch.tensor([one["bbox"] for one in self.found[number]], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([one["category_id"] for one in self.found[number]], dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels}


def loader(folder: Path, part: str, *, shuffle: bool) -> DataLoader[Any]:
    """Batches of images and targets, as torchvision's reference makes them."""
    return DataLoader(
        Digits(folder, part),
        batch_size=BATCH_SIZE,
        shuffle=shuffle,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),
    )


def anchor_setting(base: float, growth: float) -> dict[str, Any]:
    """The two parameters of the space `anchors`, as it turns them into anchor sizes."""
    return {"model.anchor_sizes": ",".join(str(round(base * growth**level)) for level in range(5))}


def plain_model(config: TrainConfig) -> FasterRCNN:
    """torchvision's own Faster R-CNN of a config, with the weights that digit-search would begin with."""
    ours, _ = build_model(config)
    model = config.model
    backbone = build_backbone(model)
    head, width = build_box_head(model, backbone.out_channels)
    task = config.detect.task1
    detector = FasterRCNN(
        backbone,
        min_size=model.min_size,
        max_size=model.max_size,
        rpn_anchor_generator=ours.rpn.anchor_generator,
        rpn_pre_nms_top_n_train=model.rpn_pre_nms_top_n_train,
        rpn_pre_nms_top_n_test=model.rpn_pre_nms_top_n_test,
        rpn_post_nms_top_n_train=model.rpn_post_nms_top_n_train,
        rpn_post_nms_top_n_test=model.rpn_post_nms_top_n_test,
        rpn_nms_thresh=model.rpn_nms,
        rpn_batch_size_per_image=model.rpn_batch_size,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], model.roi_output_size, model.roi_sampling_ratio),
        box_head=head,
        box_predictor=FastRCNNPredictor(width, NUM_CLASSES),
        box_score_thresh=task.score,
        box_nms_thresh=task.nms,
        box_detections_per_img=task.max_detections,
        box_batch_size_per_image=model.roi_batch_size,
    )
    detector.load_state_dict(ours.state_dict())
    return detector


class Training:
    """One setting under torchvision's reference loop.

    Attributes:
        images_per_second: of the last epoch's training steps.
        eval_seconds: of its evaluation.
        found: the detections of the last evaluation: image ids, and for each detection the image, box, score and label.
    """

    def __init__(self, setting: dict[str, Any], folder: Path, epochs: int, seed: int = 0) -> None:
        """Build everything that the first epoch needs."""
        torch.manual_seed(seed)
        self.config = TrainConfig.from_flat({"model.fresh_rpn": True, "optim.epochs": epochs, **setting})
        self.model = plain_model(self.config)
        self.train_loader = loader(folder, "train", shuffle=True)
        self.valid_loader = loader(folder, "valid", shuffle=False)
        optim = self.config.optim
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, optim.lr, total_steps=epochs * len(self.train_loader), pct_start=optim.onecycle_peak
        )
        self.images_per_second = self.eval_seconds = 0.0
        self.found: dict[str, NDArray[Any]] = {}

    def epochs(self) -> Iterator[float]:
        """Train on, and yield val_map after each epoch."""
        for _ in range(self.config.optim.epochs):
            self.train_one_epoch()
            yield self.evaluate()

    def train_one_epoch(self) -> None:
        """torchvision's `references/detection/engine.py`, without its logger."""
        self.model.train()
        started, count = time.perf_counter(), 0
        for images, targets in self.train_loader:
            losses = sum(self.model(list(images), list(targets)).values())
            if not torch.isfinite(losses):
                sys.exit(f"Loss is {losses.item()}, stopping training")
            self.optimizer.zero_grad()
            losses.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.max_grad_norm)
            self.optimizer.step()
            self.schedule.step()
            count += len(images)
        self.images_per_second = count / (time.perf_counter() - started)

    @torch.inference_mode()
    def evaluate(self) -> float:
        """COCO AP by torchmetrics with its default backend."""
        self.model.eval()
        started, metric = time.perf_counter(), MeanAveragePrecision()
        found = []
        for images, targets in self.valid_loader:
            found += self.model(list(images))
            metric.update(found[-len(images) :], list(targets))
        value = float(metric.compute()["map"])
        self.eval_seconds = time.perf_counter() - started
        counts = [len(one["scores"]) for one in found]
        self.found = {name: torch.cat([one[name] for one in found]).numpy() for name in ("boxes", "scores", "labels")}
        self.found |= {
            "ids": np.array(self.valid_loader.dataset.ids),
            "image": np.repeat(np.arange(len(found)), counts),
        }
        return value


class Trace:
    """One line of JSON for each epoch of a peer's search; several processes may write at once."""

    def __init__(self, path: Path) -> None:
        """Lines go to the end of `path`."""
        self.path = path

    def add(self, trial: str, epoch: int, value: float, training: Training) -> None:
        """Write down one epoch, and its detections beside the file."""
        line = {"time": time.time(), "trial": trial, "epoch": epoch, "val_map": value}
        np.savez(self.path.parent / f"found-{trial}-{epoch}.npz", **training.found)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def count(self) -> int:
        """Epochs so far, of all processes."""
        return len(self.path.read_text().splitlines()) if self.path.exists() else 0
