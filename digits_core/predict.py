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
from typing import TYPE_CHECKING, Any, NamedTuple

from digits_core.command import JSON_HELP, CommandParser, at_least, number_where, run_command, say, say_json
from digits_core.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from digits_core.data.coco import Table
    from digits_core.labels import Categories
    from digits_core.submission.files import Detection
    from digits_core.submission.inference import Detector, Predictions

DECIMALS = 3
"""Decimal places of pixel coordinates in pred.json."""

MOST_PROBLEMS = 50
"""The largest number of problems of `--check` that are printed; the rest is counted."""

SHEET = "predictions.png"

OURS = ("pred.json", "pred.csv", "submission.zip", SHEET)
"""The files of a folder of predictions; `--force` replaces only folders without other files."""

_EPILOG = """
examples:
  digit-search predict MODEL test/ -o predictions
  digit-search predict MODEL valid/ -o predictions --annotations valid.json --draw 24
  digit-search predict --check predictions/submission.zip test/

exit codes: 0 success, 1 an image could not be read, --check found a problem, or torchmetrics gives another mAP for the
annotations, 2 wrong arguments or data
"""


_score = number_where(lambda number: 0 <= number < 1, "be a number from 0 to below 1")


MODEL = "a model folder or checkpoint"
"""What MODEL can be."""


def build_parser(model: str = MODEL) -> argparse.ArgumentParser:
    """The flags of this command; `model` is what MODEL can be."""
    parser = CommandParser(
        prog="python -m digits_core.predict",
        usage="%(prog)s MODEL IMAGES -o OUT [flags]\n       %(prog)s --check FILE IMAGES",
        description="Detect and read the numbers on a folder of images: pred.json, pred.csv, submission.zip.",
        epilog=_EPILOG,
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="MODEL IMAGES", help=f"{model}; and a folder of images")
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
        help="print how well the predictions fit these annotations, as digit-search evaluate does; with --draw, also "
        "draw them, the images with most errors first",
    )
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="list the problems of a pred.json, pred.csv or submission.zip"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


class Helpers(NamedTuple):
    """What `digit-search predict` adds to this command.

    Attributes:
        find_model: finds the model folder that MODEL names, and describes it in words.
        evaluate: scores predictions against annotations, as values for JSON; the first argument is a title.
        print_evaluation: prints these values as tables.
        exit_code: of the evaluation.
        model: what MODEL can be.
    """

    find_model: Callable[[Path], tuple[Path, str]]
    evaluate: "Callable[[str, Predictions, Table, Detector], dict[str, Any]]"
    print_evaluation: Callable[[dict[str, Any]], None]
    exit_code: Callable[[dict[str, Any]], int]
    model: str = MODEL


def main(argv: Sequence[str] | None = None, helpers: Helpers | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None takes those of the process.
        helpers: None takes MODEL as a path, and does not score predictions.
    """
    args = build_parser(MODEL if helpers is None else helpers.model).parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("digits_core.predict", lambda: _check(args) if args.check else _predict(args, helpers))


def _check(args: argparse.Namespace) -> int:
    from digits_core.submission.files import NOTE, check_file, numbered_images
    from digits_core.submission.inference import image_sizes

    if len(args.paths) != 1:
        raise UsageError("--check FILE needs exactly one folder, with the images of FILE")
    images = numbered_images(args.paths[0])
    found = list(check_file(args.check, image_sizes(images)))
    problems = [one for one in found if not one.startswith(NOTE)]
    notes = [one.removeprefix(NOTE) for one in found if one.startswith(NOTE)]
    if args.json:
        say_json({"file": str(args.check), "problems": problems, "notes": notes})
        return 1 if problems else 0
    for problem in problems[:MOST_PROBLEMS]:
        say(f"{args.check}: {problem}")
    if len(problems) > MOST_PROBLEMS:
        say(f"and {len(problems) - MOST_PROBLEMS} more")
    for note in notes:
        say(f"{args.check}: {NOTE}{note}")
    say("no problem found" if not problems else f"{len(problems)} problem{'s' * (len(problems) > 1)}")
    return 1 if problems else 0


def _predict(args: argparse.Namespace, helpers: Helpers | None) -> int:
    from digits_core.submission.files import numbered_images
    from digits_core.submission.inference import load_detector, predict_images, scoring_floor
    from digits_core.training.device import choose_device

    if len(args.paths) != 2:
        what = MODEL if helpers is None else helpers.model
        raise UsageError(f"needs MODEL ({what}) and IMAGES (a folder)")
    if args.out is None:
        raise UsageError("-o is missing: give a new folder to write to")
    if args.annotations is not None and args.draw is None and helpers is None:
        raise UsageError("--annotations needs --draw here; digit-search predict also scores the predictions")
    folder, words = (args.paths[0], "") if helpers is None else helpers.find_model(args.paths[0])
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
    floor = None if truth is None else scoring_floor(detector.config.detect)
    try:
        with progress_bar(len(images)) as advance:
            found = predict_images(detector, images, batch_size=args.batch_size, floor=floor, progress=advance)
        names = _write(half, found, detector, images, args.draw, truth)
        _move(half, out, names, force=args.force)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    scores = None
    if truth is not None and helpers is not None:
        scores = helpers.evaluate(f"{words}, {args.paths[1]}", found, truth, detector)
    _say_result(args, found, images, names, detector)
    if args.json:
        say_json(_document(args.out, found, names, scores))
    elif scores is not None and helpers is not None:
        helpers.print_evaluation(scores)
    code = helpers.exit_code(scores) if scores is not None and helpers is not None else 0
    return 1 if found.damaged else code


def _write(
    folder: Path,
    found: "Predictions",
    detector: "Detector",
    images: dict[int, Path],
    drawn: int | None,
    truth: "Table | None",
) -> list[str]:
    """Write the files of a prediction into a folder; returns their names."""
    from digits_core.submission.files import write_submission
    from digits_core.submission.sheet import draw_sheet

    names = write_submission(folder, detections(found, detector), found.numbers)
    if drawn is not None:
        draw_sheet(folder / SHEET, found, detector, images, drawn, truth)
        names.append(SHEET)
    return names


def _move(half: Path, out: Path, names: list[str], *, force: bool) -> None:
    """Move written files to the folder that the user named."""
    half.chmod(0o755)
    check_out(out, force=force)  # another process may have created it in the meantime
    if not out.exists():
        half.rename(out)
        return
    for name in OURS:
        (out / name).unlink(missing_ok=True)
    for name in names:
        (half / name).replace(out / name)


def _say_result(
    args: argparse.Namespace, found: "Predictions", images: dict[int, Path], names: list[str], detector: "Detector"
) -> None:
    """Say what was written and how fast; with --json on standard error."""
    say(f"wrote {', '.join(names)} to {args.out}", error=args.json)
    if found.numbers is None:
        words = f"{detector.categories.words}: these are not digits, so no numbers are read and no pred.csv is written"
        say(words, error=args.json)
    per_second, model_per_second = _speeds(found)
    say(
        f"{len(images)} images in {found.seconds:.1f} s: {per_second:.0f} images/s (model only: "
        f"{model_per_second:.0f} images/s)",
        error=args.json,
    )
    for image_id, fault in found.damaged.items():
        say(f"{images[image_id]}: {fault}; it has no detections", error=True)


def _speeds(found: "Predictions") -> tuple[float, float]:
    """Images per second, of everything and of the model only."""
    num_images = len(found.image_ids)
    return num_images / found.seconds, (num_images - len(found.damaged)) / max(found.model_seconds, 1e-9)


def _document(out: Path, found: "Predictions", names: list[str], scores: dict[str, Any] | None) -> dict[str, Any]:
    """A prediction as values for JSON."""
    per_second, model_per_second = _speeds(found)
    return {
        "folder": str(out),
        "files": names,
        "images": len(found.image_ids),
        "damaged": {str(image_id): fault for image_id, fault in found.damaged.items()},
        "detections": len(found.found.scores),
        "seconds": found.seconds,
        "images_per_second": per_second,
        "model_images_per_second": model_per_second,
        "evaluation": scores,
    }


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


if __name__ == "__main__":
    raise SystemExit(main())
