"""python -m digits_core.to_onnx: a model folder as one ONNX file, checked against the model itself."""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.command import CommandParser, at_least, run_command, say
from digits_core.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from digits_core.submission.inference import Detector

OPSET = 17

BOX_TOLERANCE = 1e-3
"""How far a box may lie from the model's own, pixels for each pixel of the box's longer side (at least one)."""

SCORE_TOLERANCE = 1e-3

NUM_CHECKED = 24

_EPILOG = """
example:
  python -m digits_core.to_onnx runs/my-search/models/t0003-r1 -o model.onnx --images valid/

The file takes `image`, float32 [3, height, width] in [0, 1], of any size, and gives `boxes` [num, 4] (xyxy, pixels of
that image), `labels` [num] and `scores` [num] at Task 1's thresholds. Its metadata hold the categories, both tasks'
thresholds and the `augment` parameters: a pipeline that changes evaluated images too, like binarize, is not in the
file, so give it images that have been through it.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m digits_core.to_onnx",
        description="Export a model folder to ONNX, and check the file with onnxruntime against the model.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder or checkpoint")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.onnx", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images to check it on (default: drawn house numbers)"
    )
    parser.add_argument(
        "--check", type=at_least(1), default=NUM_CHECKED, metavar="N", help=f"how many of them (default {NUM_CHECKED})"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("digits_core.to_onnx", lambda: _export(args))


def _export(args: argparse.Namespace) -> int:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs packages of its own ({error.name} is missing): pip install '.[onnx]'") from None
    import torch

    from digits_core.submission.inference import load_detector

    if args.out.suffix != ".onnx":
        raise UsageError(f"-o {printable(str(args.out))}: must be a file that ends in .onnx")
    if args.out.exists() and not args.force:
        raise UsageError(f"-o {printable(str(args.out))}: exists; name another file, or replace it with --force")
    if args.out.exists() and not args.out.is_file():
        raise UsageError(f"-o {printable(str(args.out))}: is no file; name another")
    if not args.out.absolute().parent.is_dir():
        raise UsageError(f"-o {printable(str(args.out))}: no such folder {args.out.parent}")
    if not os.access(args.out.absolute().parent, os.W_OK):
        raise UsageError(f"-o {printable(str(args.out))}: no permission to write there")
    detector = load_detector(args.model, torch.device("cpu"), torch.float32)
    images = _images(args.images, args.check)
    with tempfile.TemporaryDirectory(dir=args.out.absolute().parent, prefix=".onnx-") as scratch:
        half = Path(scratch) / "model.onnx"
        export(detector, half)
        worst = compare(detector, half, images)
        half.replace(args.out)
    say(
        f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB); on {len(images)} images onnxruntime gives the "
        f"labels of a prediction, and boxes within {worst:.1e} of their size"
    )
    return 0


def _images(folder: Path | None, count: int) -> list[Any]:
    """Images to compare on, uint8 [height, width, 3]."""
    if folder is None:
        from digits_core.data.drawn import draw_numbers, stream_seed

        return [one.pixels for one in draw_numbers(stream_seed("valid", 0), count)]
    from digits_core.data.source import decode_image
    from digits_core.submission.files import numbered_images

    found = []
    for path in list(numbered_images(folder).values())[:count]:
        pixels, fault = decode_image(path)
        if pixels is None:
            raise DataError(f"{printable(str(path))} {fault}")
        found.append(pixels)
    return found


def export(detector: "Detector", path: Path) -> None:
    """Write a detector as ONNX, for images of any size."""
    import onnx
    import torch

    from digits_core.submission.onnx_model import exportable

    outputs = ("boxes", "labels", "scores")
    with exportable(detector) as model, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.rand(3, 60, 120),),
            str(path),
            opset_version=OPSET,
            dynamo=False,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_axes={"image": {1: "height", 2: "width"}, **{name: {0: "num"} for name in outputs}},
        )
    exported = onnx.load(str(path))
    flat = detector.config.to_flat()
    metadata = {
        "categories": {"ids": detector.categories.ids, "names": detector.categories.names},
        "detect": {name: value for name, value in flat.items() if name.startswith("detect.")},
        "augment": {name: value for name, value in flat.items() if name.startswith("augment.")},
    }
    onnx.helper.set_model_props(exported, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.save(exported, str(path))


def compare(detector: "Detector", path: Path, images: Sequence[Any]) -> float:
    """The largest distance of a box from those of a prediction, over the box's longer side.

    Raises:
        DataError: the file gives other detections than a prediction, or there is nothing to compare.
    """
    import numpy as np
    import onnxruntime

    from digits_core.data.batches import to_tensor
    from digits_core.submission.inference import detect_with, kept_at

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst, compared = 0.0, 0
    for number, pixels in enumerate(images):
        image = to_tensor(pixels)
        raw = detect_with(detector, [image])
        own = kept_at(raw, detector.config.detect.task1)
        boxes, labels, scores = session.run(["boxes", "labels", "scores"], {"image": image.numpy()})
        if sorted(labels.tolist()) != sorted(own.labels.tolist()):
            raise DataError(
                f"{path.name}: on image {number} of the check it finds {len(labels)} boxes with other labels than the "
                f"model's {len(own.labels)}; nothing was written"
            )
        # Of two boxes with the same score NMS may keep either: so each is looked for among all that the model found.
        found = raw.original_boxes
        for box, label, score in zip(boxes, labels, scores, strict=True):
            alike = (raw.labels == label) & (np.abs(raw.scores - score) < SCORE_TOLERANCE)
            apart = np.abs(found[alike] - box).max(axis=1)
            side = max(float((box[2:] - box[:2]).max()), 1.0)
            worst = max(worst, float(apart.min()) / side if len(apart) else float("inf"))
            compared += 1
    if not compared:
        raise DataError(
            f"{path.name}: the model detects nothing on the {len(images)} images of the check, so there is nothing to "
            "compare; name others by --images"
        )
    if worst > BOX_TOLERANCE:
        raise DataError(
            f"{path.name}: boxes lie up to {worst:.1e} of their size away from the model's; nothing was written"
        )
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
