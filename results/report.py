"""python -m results.report: one page of HTML that tells what a search found, also while it runs."""

import argparse
import json
import time
import webbrowser
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.command import CommandParser, at_least, run_command, say, version_of
from digits_core.errors import UsageError, printable

if TYPE_CHECKING:
    from results.views.opened_run import OpenedRun

REPORT_FILE = "report.html"

WATCH_SECONDS = 10

_EPILOG = """
examples:
  python -m results.report runs/my-search --open
  python -m results.report runs/my-search --watch
  python -m results.report runs/monday runs/tuesday -o both.html

The page holds all it needs: it can be mailed, put on a server, or opened without any network. It may be written at any
moment of a search; --watch writes it again and again until the search ends, and an open page follows.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    from results.record.folder import RUNS_HELP

    parser = CommandParser(
        prog="python -m results.report",
        description="Write a page that tells who won, by how much, whether it is real, and at what cost.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help=f"file to write (default RUN/{REPORT_FILE}; of several runs, "
        f"{REPORT_FILE} here)"
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=at_least(1),
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"write it anew every so often (default {WATCH_SECONDS}) until the search ends; an open page follows",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.report", lambda: _report(args))


def _report(args: argparse.Namespace) -> int:
    from results.record.folder import find_runs
    from results.views.opened_run import open_run

    folders = find_runs(args.runs)
    path = args.out or (folders[0] / REPORT_FILE if len(folders) == 1 else Path(REPORT_FILE))
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder; name a file" if path.is_dir() else f"there is no folder {printable(str(path.parent))}"
        raise UsageError(f"-o {printable(str(path))}: {what}")
    opened, shown = False, False
    try:
        while True:
            runs = [open_run(folder) for folder in folders]
            live = args.watch if any(run.live for run in runs) else None
            size = write_report(runs, path, watch=live)
            if not shown:
                say(f"wrote {path}: {size / 1e6:.1f} MB")
                shown = True
            if args.open and not opened:
                opened = webbrowser.open(path.absolute().as_uri())
                if not opened:
                    say(f"no browser is to be found here; open {path.absolute().as_uri()}", error=True)
                opened = True
            if live is None:
                return 0
            time.sleep(args.watch)
    except KeyboardInterrupt:  # the page is to stop reloading itself
        if args.watch:
            write_report([open_run(folder) for folder in folders], path)
        return 130


def write_report(runs: "Sequence[OpenedRun]", path: Path, *, watch: int | None = None) -> int:
    """Write the page of some runs; a reader never sees half of it.

    Args:
        runs: opened.
        path: the file; its folder must exist.
        watch: seconds after which the open page reloads itself; None never.

    Returns:
        Its size in bytes.

    Raises:
        RunError: a table of a run is damaged.
    """
    from results.tables.parquet import replacing

    content = render(runs, watch=watch).encode("utf-8", errors="replace")
    with replacing(path) as half:
        half.write_bytes(content)
    return len(content)


def render(runs: "Sequence[OpenedRun]", *, watch: int | None = None) -> str:
    """The page as text; arguments as in `write_report`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from results.figures.style import DARK, LIGHT
    from results.page.content import content_of, now

    def file(name: str) -> str:
        return resources.files("results.page").joinpath(name).read_text(encoding="utf-8")

    contents = [content_of(run, number) for number, run in enumerate(runs)]
    for content in contents:
        content["statuses"] = sorted({row["status"] for row in content["board"]["rows"]})
        content["faint"] = ("stopped", "screened", "failed", "diverged", "out_of_memory", "interrupted")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    plotted = any(picture["figure"] for content in contents for picture in content["pictures"])
    return environment.from_string(file("template.html")).render(
        title=f"{', '.join(run.name for run in runs)} – digit-search",
        runs=contents,
        watch=watch,
        version=version_of("digit-search") or "",
        written=now(),
        style=Markup(file("style.css")),
        script=Markup(file("page.js")),
        plotly=Markup(get_plotlyjs()) if plotted else "",
        data=Markup(_data(contents, {"light": LIGHT, "dark": DARK})),
    )


def _data(contents: Sequence[dict[str, Any]], templates: dict[str, Any]) -> str:
    """What the page's script reads, as JSON that cannot end its script element."""
    runs = [
        {
            "name": content["name"],
            "metric": content["metric"],
            "rows": [
                {"trial": row["trial"], "status": row["status"], "values": row["values"]}
                for row in content["board"]["rows"]
            ],
            "csv": content["board"]["csv"],
            "details": content["details"],
            "figures": {one["key"]: one["figure"] for one in content["pictures"] if one["figure"]},
        }
        for content in contents
    ]
    text = json.dumps({"runs": runs, "templates": templates}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


if __name__ == "__main__":
    raise SystemExit(main())
