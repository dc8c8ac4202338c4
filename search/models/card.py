"""The model card of a model folder: metadata for the Hugging Face Hub, and Markdown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from digits_core.config.train_config import TrainConfig
from results.views.evaluation import SCORES

_THRESHOLDS = """## Thresholds

| | NMS | score above | maximum |
| --- | --- | --- | --- |
{thresholds}

Task 2 is read from Task 1's detections.
"""

_USE = """## Use

```sh
digit-search predict {name} IMAGES -o OUT
```

```python
from pathlib import Path
import torch
from digits_core.submission.inference import load_detector
detector = load_detector(Path("{name}"), torch.device("cpu"))
```
"""

_MEMBERS = """
| model | counts |
| --- | --- |
{members}

- data: {data}, fingerprint {fingerprint}
- categories: {categories}

## Scores

{measured}

On images that took no part in the choice (two halves, each scored with what the other one chose):

{honest}
"""
"""The models of an ensemble or average, and its scores."""

_CARD = (
    """---
{metadata}---

# {name}

A Faster R-CNN ({backbone}), retrained from trial {parent} of {run}.

- trained on: {trained_on}, {num_train} images, {epochs} epochs of {images_per_epoch} images each, seed {seed}, \
{processes} on {device}
- data: {data}, fingerprint {fingerprint}
- categories: {categories}

## Scores

{measured}

"""
    + _THRESHOLDS
    + """
## Searched parameters

{searched}

## Other parameters that differ from the default

{others}

"""
    + _USE
)


_ENSEMBLE = (
    """---
{metadata}---

# {name}

An ensemble of {number} Faster R-CNN models of {run}, chosen by {metric} on the validation images. It detects with \
each model and fuses their boxes (weighted boxes fusion, IoU {iou:g}).
"""
    + _MEMBERS
    + """
## Cost

| | milliseconds an image, one at a time on {device} | megabytes |
| --- | --- | --- |
| ensemble | {ensemble_ms:.1f} | {ensemble_mb:.1f} |
| best single model ({single}) | {single_ms:.1f} | {single_mb:.1f} |

"""
    + _THRESHOLDS
    + """
"""
    + _USE
)


_AVERAGE = (
    """---
{metadata}---

# {name}

A Faster R-CNN ({backbone}) whose weights are the mean of trained models of {run}, chosen by {metric} on the \
validation images. Its batch-norm statistics were measured again on training images.
"""
    + _MEMBERS
    + """
"""
    + _THRESHOLDS
    + """
"""
    + _USE
)


def average_card(name: str, config: TrainConfig, metrics: dict[str, Any]) -> str:
    """The model card of an average of models, in Markdown."""
    return _AVERAGE.format(backbone=config.model.backbone, **_of_several(name, config, metrics))


def ensemble_card(name: str, config: TrainConfig, metrics: dict[str, Any]) -> str:
    """The model card of an ensemble, in Markdown."""
    cost = metrics["cost"]
    return _ENSEMBLE.format(
        number=len(metrics["members"]),
        iou=metrics["fusion"]["iou"],
        device=cost["device"],
        ensemble_ms=cost["ensemble"]["milliseconds"],
        ensemble_mb=cost["ensemble"]["megabytes"],
        single=cost["single"]["trial"],
        single_ms=cost["single"]["milliseconds"],
        single_mb=cost["single"]["megabytes"],
        **_of_several(name, config, metrics),
    )


def _of_several(name: str, config: TrainConfig, metrics: dict[str, Any]) -> dict[str, Any]:
    """The values of a card of several models together."""
    return {
        "metadata": yaml.safe_dump(_metadata(name, metrics), sort_keys=False, allow_unicode=True),
        "name": name,
        **{key: metrics[key] for key in ("run", "metric", "data", "fingerprint", "categories")},
        "members": "\n".join(f"| {one['trial']} | {one['count']} |" for one in metrics["members"]),
        "measured": _measured(metrics),
        "honest": "\n".join(f"- {line}" for line in metrics["verdicts"]),
        "thresholds": _thresholds(config),
    }


def _thresholds(config: TrainConfig) -> str:
    """The rows of the table of thresholds."""
    rows = []
    for number, task in ((1, config.detect.task1), (2, config.detect.task2)):
        kind = "across classes" if task.class_agnostic else "within classes"
        rows.append(f"| Task {number} | {task.nms:g} {kind} | {task.score:g} | {task.max_detections} |")
    return "\n".join(rows)


def card(name: str, config: TrainConfig, metrics: dict[str, Any]) -> str:
    """The model card of a retrained model, in Markdown."""
    default, searched = TrainConfig().to_flat(), metrics["searched"]
    shown = {
        parameter: value
        for parameter, value in config.to_flat().items()
        if not parameter.startswith("detect.task") and parameter != "runtime.seed"  # both are shown above
    }
    others = {name: value for name, value in shown.items() if value != default[name] and name not in searched}
    return _CARD.format(
        **{key: value for key, value in metrics.items() if key != "searched"},
        processes=f"{metrics['workers']} process{'es' * (metrics['workers'] != 1)}",
        metadata=yaml.safe_dump(_metadata(name, metrics), sort_keys=False, allow_unicode=True),
        name=name,
        backbone=config.model.backbone,
        measured=_measured(metrics),
        thresholds=_thresholds(config),
        searched=_parameters({name: value for name, value in shown.items() if name in searched}),
        others=_parameters(others),
    )


def _parameters(values: Mapping[str, object]) -> str:
    """A table of parameters with their values."""
    rows = [f"| `{name}` | {value} |" for name, value in values.items()]
    return "\n".join(["| parameter | value |", "| --- | --- |", *rows]) if rows else "None."


def _metadata(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a model card; the scores are in `model-index`, each with its 95 % interval in `args`.

    Source:
        Hugging Face, specification of model cards (huggingface/hub-docs, modelcard.md).
    """
    tree: dict[str, Any] = {"pipeline_tag": "object-detection", "tags": ["faster-rcnn", "digit-search"]}
    if not metrics["scores"]:
        return tree
    data = Path(str(metrics["data"])).name
    result = {
        "task": {"type": "object-detection"},
        "dataset": {
            "type": re.sub(r"[^A-Za-z0-9._-]+", "-", data) or "data",
            "name": f"{data}, validation images",
            "split": "validation",
            "args": {
                "fingerprint": metrics["fingerprint"],
                "num_images": metrics["num_valid"],
                "also_used_for": f"choice of {_chosen_on_them(metrics)}",
            },
        },
        "metrics": [
            {
                "type": key.removeprefix("val_"),
                "name": SCORES[key.removeprefix("val_")],
                "value": value,
                "args": {"interval_95": [low, high]},
            }
            for key, (value, low, high) in metrics["scores"].items()
        ],
    }
    return {**tree, "model-index": [{"name": name, "results": [result]}]}


def _chosen_on_them(metrics: dict[str, Any]) -> str:
    """What was chosen on the images of the scores."""
    return "models, epochs and thresholds" if "members" in metrics else "epoch and thresholds"


def _measured(metrics: dict[str, Any]) -> str:
    """The scores of a model card, or why there are none."""
    if not metrics["scores"]:
        return (
            f"None: it trained on the validation images too. {metrics['ends_after']} Thresholds come from the search."
        )
    scores = [
        f"| {key.removeprefix('val_')} | {value:.3f} | [{low:.3f}, {high:.3f}] |"
        for key, (value, low, high) in metrics["scores"].items()
    ]
    return "\n".join(
        [
            f"On {metrics['num_valid']} validation images, which also chose {_chosen_on_them(metrics)} (optimistic):",
            "",
            "| score | value | 95 % over images |",
            "| --- | --- | --- |",
            *scores,
        ]
    )
