"""python -m digits_core.to_onnx: exports a model folder to an ONNX file, and compares both."""

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
"""The largest distance between boxes of file and model, divided by the longer side of the box (at least 1 px)."""

SCORE_TOLERANCE = 1e-3

NUM_CHECKED = 24

_EPILOG = """
example:
  digit-search onnx runs/my-search/models/t0003-r1 -o model.onnx --images valid/

The input is `image`, float32 [3, height, width] in [0, 1], of any size. The outputs are `boxes` [num, 4] (xyxy, pixels
of the image), `labels` [num] and `scores` [num] at Task 1's thresholds. The metadata contain the categories, the
thresholds of both tasks and the `augment` parameters. The file does not contain a pipeline that also changes evaluated
images, like binarize; apply it to the images first.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m digits_core.to_onnx",
        description="Export a model folder to ONNX, and compare the file in onnxruntime with the model.",
        epilog=_EPILOG,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder or checkpoint")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.onnx", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images for the comparison (default: drawn house numbers)"
    )
    parser.add_argument(
        "--check",
        type=at_least(1),
        default=NUM_CHECKED,
        metavar="N",
        help=f"number of images for the comparison (default {NUM_CHECKED})",
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
        raise UsageError(f"ONNX export needs more packages ({error.name} is missing): pip install '.[onnx]'") from None
    import torch

    from digits_core.files import ENSEMBLE_FILE
    from digits_core.submission.ensemble import read_ensemble
    from digits_core.submission.inference import load_detector

    if args.out.suffix != ".onnx":
        raise UsageError(f"-o {printable(str(args.out))}: must end in .onnx")
    if args.out.exists() and not args.force:
        raise UsageError(f"-o {printable(str(args.out))}: exists; give another file, or replace it with --force")
    if args.out.exists() and not args.out.is_file():
        raise UsageError(f"-o {printable(str(args.out))}: is not a file; give another name")
    if not args.out.absolute().parent.is_dir():
        raise UsageError(f"-o {printable(str(args.out))}: no such folder {args.out.parent}")
    if not os.access(args.out.absolute().parent, os.W_OK):
        raise UsageError(f"-o {printable(str(args.out))}: no permission to write there")
    if (args.model / ENSEMBLE_FILE).is_file():
        raise UsageError(
            f"{printable(str(args.model))}: is an ensemble; a file can have only one model, so export one of: "
            + ", ".join(printable(str(args.model / name)) for name in read_ensemble(args.model).counts)
        )
    detector = load_detector(args.model, torch.device("cpu"), torch.float32)
    for name, value in detector.config.detect.before_nms.items():
        raise UsageError(
            f"{args.model} has {name}={json.dumps(value)}, which acts after the model and is not in an ONNX file; "
            "use digit-search predict, or export a model without it"
        )
    if detector.config.model.cascade_stages > 1:
        raise UsageError(
            f"{args.model} has model.cascade_stages={detector.config.model.cascade_stages}, which an ONNX file cannot "
            "have yet; use digit-search predict"
        )
    images = _images(args.images, args.check)
    with tempfile.TemporaryDirectory(dir=args.out.absolute().parent, prefix=".onnx-") as scratch:
        half = Path(scratch) / "model.onnx"
        export(detector, half)
        worst = compare(detector, half, images)
        half.replace(args.out)
    say(
        f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB); on {len(images)} images onnxruntime gives the "
        f"same labels as the model, and the same boxes up to {worst:.1e} of their size"
    )
    return 0


def _images(folder: Path | None, count: int) -> list[Any]:
    """Images for the comparison, uint8 [height, width, 3]."""
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
    """The largest distance of a box from the model's boxes, divided by the box's longer side.

    Raises:
        DataError: the file gives other detections than the model, or the model detects nothing.
    """
    import numpy as np
    import onnxruntime

    from digits_core.data.augment import Sample
    from digits_core.data.batches import pack, to_tensor
    from digits_core.submission.inference import detect_with, kept_at

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst, compared = 0.0, 0
    for number, pixels in enumerate(images):
        sample = Sample(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        raw = detect_with(detector, pack([sample], detector.device))
        own = kept_at(raw, detector.config.detect.task1)
        boxes, labels, scores = session.run(["boxes", "labels", "scores"], {"image": to_tensor(pixels).numpy()})
        if sorted(labels.tolist()) != sorted(own.labels.tolist()):
            raise DataError(
                f"{path.name}: on image {number} the labels of its {len(labels)} boxes are not those of the model's "
                f"{len(own.labels)} boxes; nothing was written"
            )
        # NMS can keep any of two boxes with the same score, so each box is compared with all raw detections.
        found = raw.original_boxes
        for box, label, score in zip(boxes, labels, scores, strict=True):
            alike = (raw.labels == label) & (np.abs(raw.scores - score) < SCORE_TOLERANCE)
            apart = np.abs(found[alike] - box).max(axis=1)
            side = max(float((box[2:] - box[:2]).max()), 1.0)
            worst = max(worst, float(apart.min()) / side if len(apart) else float("inf"))
            compared += 1
    if not compared:
        raise DataError(
            f"{path.name}: the model detects nothing on the {len(images)} images, so there is nothing to compare; give "
            "other images with --images"
        )
    if worst > BOX_TOLERANCE:
        raise DataError(
            f"{path.name}: boxes differ from the model's by up to {worst:.1e} of their size; nothing was written"
        )
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
