"""Searches each space shortly on drawn data and writes docs/gallery.md: python docs/make_gallery.py."""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import OpenedRun, open_run, write_report
from results.figures.history import start_of
from results.report import REPORT_FILE
from results.verdicts.comparison import whole_board
from results.views.winner import recommend
from spaces.catalogue import SPACES

DOCS = Path(__file__).parent

OUT = Path("runs/gallery")

PICTURES = DOCS / "images" / "gallery"

SIZE_PX = (1000, 640)
"""Width and height of a picture: the top of the report page."""

MAX_PICTURE_BYTES = 60_000

SAMPLED = "--trials 3 --epochs 2 --images-per-epoch 160"
COMPARED = "--trials 0 --epochs 1 --images-per-epoch 160 --replicates 1"

FLAGS = {
    "anchors": SAMPLED,
    "aspect_ratios": SAMPLED,
    "roi_heads": SAMPLED,
    "roi_levels": COMPARED,
    "cascade": SAMPLED,
    "box_loss": SAMPLED,
    "image_size": SAMPLED,
    "lr_schedules": SAMPLED,
    "optimizer": SAMPLED,
    "weight_average": SAMPLED,
    "long": "--trials 1 --images-per-epoch 160",
    "batch_size": COMPARED,
    "augmentation": COMPARED,
    "multi_scale": SAMPLED,
    "regularization": SAMPLED,
    "thresholds": "--epochs 2 --images-per-epoch 160",
    "reports_tiny": "--trials 0 --epochs 2 --images-per-epoch 160 --replicates 1",  # its stages need two epochs
}
"""The budget of each search."""

NOT_RUN = {
    "box_merging": "compares ways to use one trained model: `digit-search run --space box_merging --from RUN`",
    "backbones": "not run here: downloads pretrained weights, too slow without a GPU",
    "reports": "not run here: ResNets at full size, too slow without a GPU",
}

HEAD = """# Gallery

A finished search of each space: what it searches, and what its report recommends. This page is written by
`python docs/make_gallery.py`, which anybody can run.

The searches are very small: drawn images, one or two epochs of 160 images, one training per configuration, and of a
comparison only the baselines. In {kept} of {number} the recommendation is to keep the default, because no other
configuration is significantly better. They show what a finished search says, not which parameters are good; for
street-view images, see the [findings](findings.md). The commands below make each run and its complete report.

"""

KEPT = "Keep the default"
"""Begins a recommendation for the default."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One space on the page.

    Attributes:
        space: its name.
        trials: number of trained trials; None if it was not run.
        verdict: what the report recommends, or why the space was not run.
        seconds: time from the start of the search to its last trial; None if it was not run.
        command: makes the same run.
    """

    space: str
    trials: int | None
    verdict: str
    seconds: float | None
    command: str | None


def command_of(space: str, out: Path) -> list[str]:
    """The command that searches a space, without the program."""
    return ["run", "--space", space, *FLAGS[space].split(), "--out", str(out), "--name", space]


def shown_of(run: OpenedRun, space: str) -> Shown:
    """What the page says about a finished run."""
    record = run.record
    trials = [one for one in record.trials.values() if one.epochs]
    ends = [one.finished_at for one in trials if one.finished_at is not None]
    verdict = recommend(record, whole_board(record, run.folder, run.metric))
    return Shown(
        space=space,
        trials=len(trials),
        verdict=verdict or "no trial has a score",
        seconds=(max(ends) - start_of(run)).total_seconds() if ends else None,
        command=shlex.join(["digit-search", *command_of(space, OUT)]),
    )


def page(shown: Sequence[Shown], pictures: Path = PICTURES) -> str:
    """The text of docs/gallery.md; a picture is shown if its file exists."""
    finished = [one for one in shown if one.command is not None]
    kept = sum(one.verdict.startswith(KEPT) for one in finished)
    lines = [HEAD.format(kept=kept, number=len(finished))]
    lines += ["| space | searches | trials | seconds | verdict |\n| --- | --- | --- | --- | --- |\n"]
    for one in shown:
        name = f"`{one.space}`" if one.command is None else f"[`{one.space}`](#{one.space})"
        trials = "–" if one.trials is None else str(one.trials)
        seconds = "–" if one.seconds is None else f"{one.seconds:.0f}"
        lines.append(f"| {name} | {SPACES[one.space].summary} | {trials} | {seconds} | {_cell(one.verdict)} |\n")
    lines.append("\nSeconds are those of two CPU cores that were busy with other work, too.\n")
    for one in finished:
        lines.append(f"\n## {one.space}\n\n{one.verdict}\n\n")
        lines.append(f"```sh\n{one.command}\ndigit-search report {OUT / one.space} --open\n```\n")
        if (pictures / f"{one.space}.png").is_file():
            lines.append(f"\n![The top of the report on {one.space}](images/gallery/{one.space}.png)\n")
    return "".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def take_pictures(folders: Sequence[Path]) -> None:
    """Write the top of each report as a small PNG; says why if there is no browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if browser is None:
        sys.stderr.write("no new pictures: they need playwright and Chromium (make browser)\n")
        return
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = window.new_page(viewport={"width": SIZE_PX[0], "height": SIZE_PX[1]})
        for folder in folders:
            tab.goto((folder / REPORT_FILE).absolute().as_uri())
            target = PICTURES / f"{folder.name}.png"
            tab.screenshot(path=target)
            _shrink(target)
        window.close()


def _shrink(path: Path) -> None:
    """Store a picture with as many colours as its size limit allows."""
    from PIL import Image

    picture: Any = Image.open(path).convert("RGB")
    for colors in (64, 32, 16, 8):
        picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MAX_PICTURE_BYTES:
            return


def main(argv: Sequence[str] | None = None) -> int:
    """Search the spaces that have no run yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder of the runs (default {OUT}); known ones stay")
    out = parser.parse_args(argv).out
    folders = {space: out / space for space in FLAGS}
    for space, folder in folders.items():
        if not folder.exists():
            command = [sys.executable, "-m", "search.command", *command_of(space, out), "--quiet"]
            subprocess.run(command, check=True)
        write_report(folder, folder / REPORT_FILE)
    take_pictures(list(folders.values()))
    shown = [
        shown_of(open_run(folders[space]), space)
        if space in folders
        else Shown(space=space, trials=None, verdict=NOT_RUN[space], seconds=None, command=None)
        for space in SPACES
    ]
    (DOCS / "gallery.md").write_text(page(shown), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
