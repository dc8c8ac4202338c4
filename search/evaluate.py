"""python -m search.evaluate: scores one model on labelled images, and says where it is wrong."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from digits_core.command import JSON_HELP, CommandParser, at_least, run_command, say, say_json
from digits_core.config.train_config import DetectConfig, TrainConfig
from digits_core.errors import RunError, UsageError, printable
from results.record.folder import RUN_HELP, read_run_file
from results.tables.matches import StoredMatches
from results.tables.parquet import check_target, write_text
from results.verdicts.words import agrees

if TYPE_CHECKING:
    from digits_core.data.coco import Table
    from digits_core.submission.inference import Detector, Predictions

_EPILOG = """
examples:
  digit-search evaluate runs/my-search
  digit-search evaluate runs/my-search:t0003 --html errors.html
  digit-search evaluate MODEL --images test/ --annotations test.json -o scores.json

Without --images the detections on the run's validation images are scored, which the search stored: no model is run.
"""


class Evaluated(NamedTuple):
    """What is scored.

    Attributes:
        title: the model, in words.
        stored: its detections and the annotations.
        detect: its thresholds.
        name_of: the name of a label.
    """

    title: str
    stored: StoredMatches
    detect: DetectConfig
    name_of: Callable[[int], str]


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m search.evaluate",
        description="Score one model: AP of each class, best thresholds, kinds of errors, digits by size, numbers.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help=f"RUN, RUN:TRIAL, or a model folder; RUN is the {RUN_HELP}"
    )
    parser.hints = {"--data": "name the images and their annotations with --images and --annotations"}
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images to score the model on")
    parser.add_argument("--annotations", type=Path, metavar="FILE.json", help="their annotations, in COCO format")
    parser.add_argument("--batch-size", type=at_least(1), default=32, metavar="N", help="images at once (default 32)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.json", help="write everything as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="write a page with figures")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("search.evaluate", lambda: _evaluate(args))


def _evaluate(args: argparse.Namespace) -> int:
    if (args.images is None) != (args.annotations is None):
        raise UsageError("--images and --annotations belong together: give both, or neither")
    for flag, path in (("-o", args.out), ("--html", args.html)):
        if path is not None:
            check_target(path, f"{flag} ")
    one = _stored(args.model) if args.images is None else _predicted(args)
    found = evaluate_matches(one)
    if args.out is not None:
        write_text(args.out, json.dumps(found, indent=2) + "\n")
    if args.html is not None:
        write_text(args.html, _page(found))
    if args.json:
        say_json(found)
    else:
        print_found(found)
    for path in (args.out, args.html):
        if path is not None:
            say(f"wrote {path}", error=True)
    return exit_code(found)


def evaluate_matches(one: Evaluated) -> dict[str, Any]:
    """All that is known about a model on one split, with the mAP by torchmetrics, as values for JSON."""
    from digits_core.evaluation.independent import torchmetrics_map
    from results.views.evaluation import evaluation_of

    found = {"model": one.title, **evaluation_of(one.stored, one.detect, one.name_of)}
    found["torchmetrics_map"] = torchmetrics_map(one.stored.task1, one.stored.truth, one.detect)
    return found


def print_found(found: dict[str, Any]) -> None:
    """Print an evaluation as tables."""
    from digits_core.terminal import open_console
    from results.views.evaluation import print_evaluation

    console = open_console()
    console.print(f"{found['model']}: {found['images']:,} images, {found['digits']:,} digits", soft_wrap=True)
    print_evaluation(found, console)
    if found["torchmetrics_map"] is not None and _agree(found):
        console.print(f"mAP checked by torchmetrics: {found['torchmetrics_map']:.4f}")


def exit_code(found: dict[str, Any]) -> int:
    """0; 1 and a warning on standard error if torchmetrics gives another mAP."""
    from digits_core.terminal import open_console

    if _agree(found):
        return 0
    ours, theirs = found["scores"]["map"]["value"], found["torchmetrics_map"]
    words = f"error: mAP is {ours:.4f} here and {theirs:.4f} by torchmetrics; do not use it, and report a bug"
    open_console(sys.stderr).print(words, style="bold red", soft_wrap=True)
    return 1


def _agree(found: dict[str, Any]) -> bool:
    theirs = found["torchmetrics_map"]
    return theirs is None or agrees(found["scores"]["map"]["value"], theirs)


def _stored(name: str | None) -> Evaluated:
    """The stored detections of a run's trial.

    Raises:
        RunError: there is no such run or trial, or it stored no annotated boxes.
        UsageError: a model folder is named.
    """
    from results.tables.matches import matches_path, read_matches
    from results.views.opened_run import OpenedRun
    from search.models.source import find_trial, is_model_folder

    if name and is_model_folder(Path(name)):
        raise UsageError(
            f"MODEL {printable(name)}: a model folder needs --images and --annotations; for the stored detections of a "
            "run give RUN or RUN:TRIAL"
        )
    folder, record, trial = find_trial(name, "MODEL")
    run = OpenedRun(folder, record, read_run_file(folder))
    path = matches_path(folder, trial.trial_id, "val")
    stored = read_matches(path, trial.best_epoch(run.metric))
    if stored.truth.boxes is None:
        raise RunError(
            f"{path}: an older version wrote it without the annotated boxes; give --images and --annotations"
        )
    title = f"{trial.trial_id} of {folder}, validation images"
    return Evaluated(title, stored, TrainConfig.from_flat(trial.config).detect, run.category_in_full)


def _predicted(args: argparse.Namespace) -> Evaluated:
    """The detections of a model on a folder of images.

    Raises:
        UserError: the model, the images or the annotations cannot be used.
    """
    from digits_core.predict import progress_bar, read_truth
    from digits_core.submission.files import numbered_images
    from digits_core.submission.inference import load_detector, predict_images, scoring_floor
    from digits_core.training.device import choose_device
    from search.models.source import find_source

    source = find_source(args.model or "", "MODEL", ensembles=True)
    images = numbered_images(args.images)
    detector = load_detector(source.folder, choose_device(args.device))
    table = read_truth(args.annotations, images, detector.categories)
    with progress_bar(len(table.image_ids)) as advance:
        found = predict_images(
            detector,
            {image_id: images[image_id] for image_id in table.image_ids.tolist()},
            batch_size=args.batch_size,
            floor=scoring_floor(detector.config.detect),
            progress=advance,
        )
    for image_id, fault in found.damaged.items():
        say(f"{images[image_id]}: {fault}; it gets no detection", error=True)
    return of_predictions(f"{source.words}, {args.images}", found, table, detector)


def of_predictions(title: str, found: "Predictions", table: "Table", detector: "Detector") -> Evaluated:
    """What a model predicted on some images, matched with their annotations.

    Args:
        title: the model and the images, in words.
        found: the predictions, with raw detections above `scoring_floor`.
        table: the annotations of these images, or of some of them.
        detector: the model.
    """
    from digits_core.evaluation.matching import Candidates
    from digits_core.evaluation.metrics import Truth
    from digits_core.submission.inference import match_as_predicted

    detect = detector.config.detect
    each = dict(zip(found.image_ids, found.raw.split(), strict=True))
    raw = Candidates.join([each[image_id] for image_id in table.image_ids.tolist()])
    tables = match_as_predicted(raw, table, detect)
    stored = StoredMatches(table.image_ids, Truth.from_table(table, detect.reading), *tables)
    names = detector.categories.names
    return Evaluated(title, stored, detect, lambda label: names[label - 1])


def _page(found: dict[str, Any]) -> str:
    """The evaluation as one HTML page that needs no network."""
    from markupsafe import Markup

    from results.figures.evaluation import FIGURES
    from results.page.fill import fill
    from results.views.evaluation import tables_of

    drawn: list[tuple[str, str, Markup]] = []
    for _, caption, draw in FIGURES:
        figure = draw(found)
        title = figure.layout.title.text
        figure.update_layout(title=None)
        html = figure.to_html(
            full_html=False, include_plotlyjs=not drawn, config={"displaylogo": False, "responsive": True}
        )
        drawn.append((title, caption, Markup(html)))

    return fill(
        "evaluation.html",
        title=printable(f"Evaluation of {found['model']}"),
        about=f"{found['images']:,} images, {found['digits']:,} digits",
        tables=tables_of(found),
        figures=drawn,
    )


if __name__ == "__main__":
    raise SystemExit(main())
