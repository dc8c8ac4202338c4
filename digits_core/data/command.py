"""python -m digits_core.data: checks, draws and converts data sets."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from digits_core.command import JSON_HELP, CommandParser, at_least, number_where, run_command, say, say_json
from digits_core.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from digits_core.data.coco import Problem

MAX_LISTED = 200
"""The largest number of problems that are printed; the rest is only counted."""


_fraction = number_where(lambda number: 0 < number < 1, "be between 0 and 1")


def add_layout_flags(parser: argparse._ActionsContainer) -> None:
    """The flags for file names inside a COCO folder, for every command that reads one."""
    parser.add_argument(
        "--train-json", default="train.json", metavar="FILE", help="training annotations, inside FOLDER"
    )
    parser.add_argument(
        "--valid-json",
        default="valid.json",
        metavar="FILE",
        help="validation annotations, inside FOLDER; without this file, training images are split",
    )
    parser.add_argument("--train-dir", default="train", metavar="DIR", help="training images, inside FOLDER")
    parser.add_argument("--valid-dir", default="valid", metavar="DIR", help="validation images, inside FOLDER")
    parser.add_argument(
        "--valid-fraction",
        type=_fraction,
        default=0.1,
        metavar="X",
        help="share of validation images if training images are split (default 0.1)",
    )
    parser.add_argument("--split-seed", type=at_least(0), default=0, metavar="N", help="seed of this split")


LAYOUT = ("train_json", "valid_json", "train_dir", "valid_dir", "valid_fraction", "split_seed")
"""The flags of `add_layout_flags`, which are also fields of DataSource."""


_EPILOG = """
examples:
  digit-search data check FOLDER
  digit-search data draw -o drawn
  digit-search data preview --augment color,geometric -o sheet.png
  digit-search data convert FOLDER -o OUT

exit codes: 0 success, 2 problems in the data or wrong arguments
"""


_CONVERT = """Turn a data set of another format into a COCO folder. The format is recognised by its files:

  YOLO        data.yaml (names, train, val), images/, labels/; or give a YAML file
  Pascal VOC  Annotations/*.xml, JPEGImages/, ImageSets/Main/train.txt and val.txt
  SVHN        digitStruct.mat, in FOLDER or in its train/, extra/ and test/"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m digits_core.data", description="Check, draw, preview and convert data sets.", epilog=_EPILOG
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="check|draw|preview|convert", parser_class=CommandParser
    )

    check = _add_action(actions, "check", _check, "Read everything once and list every problem.")
    check.add_argument("folder", metavar="FOLDER", help="COCO folder: train.json, valid.json, train/, valid/")
    add_layout_flags(check)
    check.add_argument("--json", action="store_true", help=JSON_HELP)

    draw = _add_action(actions, "draw", _draw, "Write drawn house numbers as a COCO folder.")
    draw.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="new folder")
    draw.add_argument("--train", type=at_least(1), default=320, metavar="N", help="training images (default 320)")
    draw.add_argument("--valid", type=at_least(1), default=160, metavar="N", help="validation images (default 160)")
    draw.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="0 draws the built-in images (default)")

    preview = _add_action(actions, "preview", _preview, "Draw a sheet of augmented training images with their boxes.")
    preview.add_argument("--data", default="drawn", metavar="FOLDER", help="COCO folder, or 'drawn' (default)")
    add_layout_flags(preview)
    preview.add_argument(
        "--augment", default="none", metavar="NAME[,NAME]", help="none | color | color_b | geometric | binarize"
    )
    preview.add_argument("--mirror", action="store_true", help="mirror half of the images")
    preview.add_argument("--images", type=at_least(1), default=24, metavar="N", help="number of images (default 24)")
    preview.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed of the augmentation")
    preview.add_argument("-o", "--out", type=Path, required=True, metavar="FILE.png", help="image file to write")

    convert = _add_action(actions, "convert", _convert, "Turn a YOLO, Pascal VOC or SVHN folder into a COCO folder.")
    convert.description = _CONVERT
    convert.add_argument(
        "folder", type=Path, metavar="FOLDER", help="YOLO (or its YAML file), Pascal VOC or SVHN folder"
    )
    convert.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="new COCO folder")
    convert.add_argument(
        "--valid-fraction",
        type=_fraction,
        default=0.1,
        metavar="X",
        help="share of validation images if the folder has none (default 0.1)",
    )
    convert.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="seed of the split into training and validation images"
    )
    convert.add_argument(
        "--link", action="store_true", help="hard-link the images instead of copying them: needs no disk space"
    )
    return parser


def _add_action(
    actions: "argparse._SubParsersAction[CommandParser]",
    name: str,
    handler: Callable[[argparse.Namespace], int],
    sentence: str,
) -> CommandParser:
    """Add an action with a sentence for its help; returns the parser of its flags."""
    parser = actions.add_parser(name, help=sentence[0].lower() + sentence[1:].rstrip("."), description=sentence)
    parser.set_defaults(handler=handler)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    return run_command("digits_core.data", lambda: int(args.handler(args)))


def _check(args: argparse.Namespace) -> int:
    from digits_core.data.cache import brought_here
    from digits_core.data.coco import describe, summary
    from digits_core.data.source import DataSource, check_data

    source = DataSource(folder=args.folder, **{name: getattr(args, name) for name in LAYOUT})
    tables, problems, notes = check_data(brought_here(source))
    if args.json:
        say_json(
            {
                "folder": args.folder,
                "parts": {name: summary(table) for name, table in tables.items()},
                **notes,
                "problems": [asdict(problem) for problem in problems],
            }
        )
    else:
        _print_check(describe(tables), problems, notes)
    if problems:
        raise DataError(f"{printable(args.folder)}: {len(problems)} problems; fix them, or search with --skip-bad")
    if not args.json:
        say("no problem found")
    return 0


def _print_check(lines: list[str], problems: "list[Problem]", notes: dict[str, int]) -> None:
    """Print a description of the data and its problems."""
    for line in lines:
        say(line)
    if notes["clipped_boxes"]:
        say(f"{notes['clipped_boxes']} boxes slightly exceed their image and will be clipped")
    if notes["crowd_boxes"]:
        say(f"{notes['crowd_boxes']} crowd boxes: training and evaluation ignore them")
    for problem in problems[:MAX_LISTED]:
        say(str(problem))
    if len(problems) > MAX_LISTED:
        say(f"and {len(problems) - MAX_LISTED} more")


def _draw(args: argparse.Namespace) -> int:
    from digits_core.data.drawn import write_drawn_folder

    write_drawn_folder(args.out, args.train, args.valid, args.seed)
    say(f"wrote {args.train} training and {args.valid} validation images to {args.out}")
    return 0


def _preview(args: argparse.Namespace) -> int:
    from digits_core.config.train_config import AugmentConfig
    from digits_core.data.augment import Augmentation
    from digits_core.data.cache import open_data
    from digits_core.data.preview import write_sheet
    from digits_core.data.source import DataSource

    if args.out.suffix.lower() != ".png" or not args.out.parent.is_dir():
        raise UsageError(f"-o {printable(str(args.out))}: must be a .png file in an existing folder")
    config = AugmentConfig(pipeline=args.augment, mirror=args.mirror)
    source = DataSource(folder=args.data, **{name: getattr(args, name) for name in LAYOUT})
    split = open_data(source).train
    count = min(args.images, len(split))
    dropped = write_sheet(split, Augmentation(config, args.seed, 1), count, args.out)
    say(f"wrote {args.out}: {count} training images" + (f", {dropped} boxes dropped" if dropped else ""))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from digits_core.data.convert import convert

    done = convert(args.folder, args.out, valid_fraction=args.valid_fraction, seed=args.seed, link=args.link)
    parts = ", ".join(f"{count} {split}" for split, count in done.counts.items())
    say(f"wrote {parts} images to {args.out} ({done.format} to COCO)")
    for note in done.notes:
        say(note)
    return 0
