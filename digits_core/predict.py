"""python -m digits_core.predict: predicts a folder of images and writes the files that the course expects."""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from digits_core.command import CommandParser, at_least, number_where, run_command, say
from digits_core.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from digits_core.data.coco import Table
    from digits_core.labels import Categories
    from digits_core.submission.files import Detection
    from digits_core.submission.inference import Detector, Predictions

DECIMALS = 3
"""Decimal places of pixel coordinates in pred.json."""

SHEET = "predictions.png"

OURS = ("pred.json", "pred.csv", "submission.zip", SHEET)
"""The files of a folder of predictions; `--force` replaces only folders without other files."""

_EPILOG = """
examples:
  python -m digits_core.predict MODEL test/ -o predictions
  python -m digits_core.predict MODEL valid/ -o predictions --draw 24 --annotations valid.json
  python -m digits_core.predict --check predictions/submission.zip test/

exit codes: 0 success, 1 an image could not be read or --check found a problem, 2 wrong arguments or data
"""


_score = number_where(lambda number: 0 <= number < 1, "be a number from 0 to below 1")


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m digits_core.predict",
        usage="python -m digits_core.predict MODEL IMAGES -o OUT [flags]\n"
        "       python -m digits_core.predict --check FILE IMAGES",
        description="Detect and read the numbers on a folder of images: pred.json, pred.csv, submission.zip.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="MODEL IMAGES", help="model folder or checkpoint, and folder of images"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--batch-size", type=at_least(1), default=32, metavar="N", help="images per forward pass (default 32)"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument(
        "--score-1", type=_score, metavar="X", help="Task 1: keep boxes with a score above X (default: the model's)"
    )
    parser.add_argument(
        "--score-2", type=_score, metavar="X", help="Task 2: read digits with a score above X (default: the model's)"
    )
    parser.add_argument("--draw", type=at_least(1), metavar="N", help="draw N images with their predictions")
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE.json",
        help="also draw these annotations; the images with most errors come first",
    )
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="list the problems of a pred.json, pred.csv or submission.zip"
    )
    return parser


def main(argv: Sequence[str] | None = None, find_model: Callable[[Path], Path] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None takes those of the process.
        find_model: finds the model folder that MODEL names; None takes MODEL as a path.
    """
    args = build_parser().parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("digits_core.predict", lambda: _check(args) if args.check else _predict(args, find_model))


def _check(args: argparse.Namespace) -> int:
    from digits_core.submission.files import NOTE, check_file, numbered_images
    from digits_core.submission.inference import image_sizes

    if len(args.paths) != 1:
        raise UsageError("--check FILE needs exactly one folder, with the images of FILE")
    images = numbered_images(args.paths[0])
    problems = 0
    for problem in check_file(args.check, image_sizes(images)):
        if problem.startswith(NOTE):
            say(f"{args.check}: {problem}")
            continue
        problems += 1
        if problems <= 50:
            say(f"{args.check}: {problem}")
    if problems > 50:
        say(f"and {problems - 50} more")
    say("no problem found" if not problems else f"{problems} problem{'s' * (problems > 1)}")
    return 1 if problems else 0


def _predict(args: argparse.Namespace, find_model: Callable[[Path], Path] | None) -> int:
    from digits_core.submission.files import numbered_images, write_submission
    from digits_core.submission.inference import load_detector, predict_images
    from digits_core.training.device import choose_device

    if len(args.paths) != 2:
        raise UsageError("needs two folders, MODEL and IMAGES")
    if args.out is None:
        raise UsageError("-o is missing: give a new folder to write to")
    if args.annotations is not None and args.draw is None:
        raise UsageError("--annotations needs --draw")
    folder = args.paths[0] if find_model is None else find_model(args.paths[0])
    images = numbered_images(args.paths[1])
    out = args.out.absolute()
    check_out(out, force=args.force)
    detector = at_scores(load_detector(folder, choose_device(args.device)), args.score_1, args.score_2)
    truth = None if args.annotations is None else read_truth(args.annotations, images, detector.categories)
    try:  # before the prediction, so that a disk error appears early
        out.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UsageError(f"-o {printable(str(args.out))}: cannot be written: {error.strerror}") from None
    try:
        with progress_bar(len(images)) as advance:
            found = predict_images(detector, images, batch_size=args.batch_size, progress=advance)
        names = write_submission(half, detections(found, detector), found.numbers)
        if args.draw is not None:
            names += draw_sheet(half, found, detector, images, args.draw, truth)
        half.chmod(0o755)
        check_out(out, force=args.force)  # another process may have created it in the meantime
        if out.exists():
            for name in OURS:
                (out / name).unlink(missing_ok=True)
            for name in names:
                (half / name).replace(out / name)
        else:
            half.rename(out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    say(f"wrote {', '.join(names)} to {args.out}")
    if found.numbers is None:
        say(f"{detector.categories.words}: these are not digits, so no numbers are read and no pred.csv is written")
    rate = len(images) / found.seconds
    model_rate = (len(images) - len(found.damaged)) / max(found.model_seconds, 1e-9)
    say(f"{len(images)} images in {found.seconds:.1f} s: {rate:.0f} images/s (model only: {model_rate:.0f} images/s)")
    for image_id, fault in found.damaged.items():
        say(f"{images[image_id]}: {fault}; it has no detections", error=True)
    return 1 if found.damaged else 0


def check_out(out: Path, *, force: bool) -> None:
    """Check that a folder can be written.

    Raises:
        UsageError: it exists and `force` is not set, or it contains other files than predictions.
    """
    name = printable(str(out))
    if not out.exists() and not out.is_symlink():
        above = next(parent for parent in out.parents if parent.exists())
        if not above.is_dir():
            raise UsageError(f"-o {name}: {printable(str(above))} is not a folder")
        return
    if not force:
        raise UsageError(f"-o {name}: exists; give a new folder, or replace it with --force")
    if not out.is_dir() or out.is_symlink():
        raise UsageError(f"-o {name}: is not a folder; give a new one")
    other = next((entry.name for entry in out.iterdir() if entry.name not in OURS), None)
    if other is not None:
        raise UsageError(
            f"-o {name}: contains {printable(other)}, which is not a file of a prediction; give a new folder"
        )


def at_scores(detector: "Detector", score_1: float | None, score_2: float | None) -> "Detector":
    """The detector with other score thresholds, if they are given.

    Raises:
        UsageError: the threshold of Task 2 is below that of Task 1, whose detections Task 2 reads.
    """
    detect = detector.config.detect
    task1 = detect.task1 if score_1 is None else replace(detect.task1, score=score_1)
    task2 = detect.task2 if score_2 is None else replace(detect.task2, score=score_2)
    if task2.score < task1.score:
        raise UsageError(
            f"Task 2 reads Task 1's detections, so its score threshold ({task2.score:g}, --score-2) must be at least "
            f"Task 1's ({task1.score:g}, --score-1)"
        )
    config = replace(detector.config, detect=replace(detect, task1=task1, task2=task2))
    return replace(detector, config=config)


def detections(found: "Predictions", detector: "Detector") -> "list[Detection]":
    """The detections for pred.json: boxes clipped to their images, with rounded coordinates."""
    from digits_core.submission.files import Detection

    boxes = found.found.original_boxes.astype(float)
    lines = []
    for row, image in enumerate(found.found.image.tolist()):
        image_id = found.image_ids[image]
        size = found.sizes[image_id]
        if size is None:  # a damaged image has no detections
            continue
        x_min, y_min, x_max, y_max = (round(float(side), DECIMALS) for side in boxes[row])
        x_min, y_min = max(x_min, 0.0), max(y_min, 0.0)
        wide, tall = min(x_max, float(size[0])) - x_min, min(y_max, float(size[1])) - y_min
        if wide <= 0 or tall <= 0:
            continue
        lines.append(
            Detection(
                image_id,
                (x_min, y_min, round(wide, DECIMALS), round(tall, DECIMALS)),
                float(found.found.scores[row]),
                detector.categories.ids[int(found.found.labels[row]) - 1],
            )
        )
    return lines


@contextlib.contextmanager
def progress_bar(total: int) -> "Iterator[Callable[[int], None]]":
    """A progress bar on a terminal; nothing if standard error is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from digits_core.terminal import open_console

    with Progress(
        "predicting", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty(),
        console=open_console(sys.stderr), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("predicting", total=total)
        yield lambda done: bar.update(task, completed=done)


def read_truth(path: Path, images: dict[int, Path], categories: "Categories") -> "Table":
    """The annotations of a folder of images; the image ids are the numbers in the file names.

    Raises:
        DataError: the file cannot be read, has problems, is for other images, or has other categories than the model.
    """
    from digits_core.data.coco import Table, read_part
    from digits_core.data.source import MAX_ANNOTATION_BYTES
    from digits_core.files import read_whole
    from digits_core.submission.inference import image_sizes

    name = printable(str(path))
    try:
        content = read_whole(path, MAX_ANNOTATION_BYTES)
    except OSError as error:
        raise DataError(f"--annotations {name} cannot be read: {error.strerror}") from None
    part = read_part("valid", path, content)
    if part.problems:
        raise DataError(f"--annotations {name}: {printable(part.problems[0].text)}")
    if part.categories != categories:
        raise DataError(
            f"--annotations {name}: has other categories ({printable(part.categories.words)}) than the model "
            f"({printable(categories.words)})"
        )
    numbers = {file.name: number for number, file in images.items()}
    there = image_sizes({number: images[number] for file, *_ in part.images.values() if (number := numbers.get(file))})
    others = []
    for image_id, (file, width, height) in part.images.items():
        size = there.get(numbers.get(file, image_id), None)
        if numbers.get(file) != image_id or (size is not None and size != (width, height)):
            others.append(f"{printable(file)} ({width} x {height} px, image {image_id})")
    if others:
        raise DataError(
            f"--annotations {name}: is for other images: the folder has no {others[0]}"
            + (f", nor {len(others) - 1} more" if len(others) > 1 else "")
        )
    return Table.from_part(part)


def draw_sheet(
    folder: Path,
    found: "Predictions",
    detector: "Detector",
    images: dict[int, Path],
    count: int,
    truth: "Table | None",
) -> list[str]:
    """Draw some images with their predictions; with truth, images with most errors first. Returns the file name."""
    from digits_core.data.preview import Shown, write_predictions
    from digits_core.data.source import decode_image
    from digits_core.evaluation.metrics import wrong_labels
    from digits_core.submission.inference import kept_at

    read = kept_at(found.found, detector.config.detect.task2)
    boxes, image = read.original_boxes, read.image
    place = {image_id: index for index, image_id in enumerate(found.image_ids)}
    chosen = [image_id for image_id in found.image_ids if image_id not in found.damaged]
    known: dict[int, tuple[Any, Any]] = {}
    wrong: dict[int, int] = {}
    if truth is not None:
        for index, image_id in enumerate(truth.image_ids.tolist()):
            mine = slice(int(truth.box_start[index]), int(truth.box_start[index + 1]))
            known[image_id] = truth.boxes[mine], truth.labels[mine]
        chosen = [image_id for image_id in chosen if image_id in known]

        inside = [place[image_id] for image_id in truth.image_ids.tolist()]
        counts = wrong_labels(image, read.labels, np.repeat(inside, np.diff(truth.box_start)), truth.labels, len(place))
        wrong = {image_id: int(counts[place[image_id]]) for image_id in chosen}
        chosen.sort(key=lambda image_id: (-wrong[image_id], image_id))
    shown = []
    for image_id in chosen[:count]:
        pixels, _ = decode_image(images[image_id])
        if pixels is None:  # deleted in the meantime
            continue
        rows = np.flatnonzero(image == place[image_id])
        labels = [detector.categories.name_of(int(label)) for label in read.labels[rows]]
        theirs = known.get(image_id)
        shown.append(
            Shown(
                (f"{wrong[image_id]} wrong, " if wrong else "")
                + f"image {image_id}"
                + (f": {found.numbers[image_id]}" if found.numbers is not None else ""),
                pixels,
                boxes[rows],
                labels,
                None if theirs is None else theirs[0],
                None if theirs is None else [detector.categories.name_of(int(label)) for label in theirs[1]],
            )
        )
    write_predictions(shown, folder / SHEET)
    return [SHEET]


if __name__ == "__main__":
    raise SystemExit(main())
