"""python -m results.report: writes the results of a search as one HTML page, also while it runs."""

import argparse
import json
import time
import webbrowser
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.command import CommandParser, at_least, port, run_command, say
from digits_core.errors import RunError, UsageError

if TYPE_CHECKING:
    from results.views.opened_run import OpenedRun

REPORT_FILE = "report.html"

WATCH_SECONDS = 10

_EPILOG = """
examples:
  digit-search report runs/my-search --open
  digit-search report runs/my-search --watch
  digit-search report runs/my-search --serve
  digit-search report runs/monday runs/tuesday -o both.html

The page is one file that needs no network. It can be written at any time during a search; --watch writes it repeatedly
until the search ends, and an open page reloads itself. --serve writes no file: it serves the page on 127.0.0.1 until
Ctrl-C, and open pages follow the search. To read it from another machine, run there the command that it prints,
ssh -L PORT:127.0.0.1:PORT HOST, and open the printed address.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    from results.record.folder import RUNS_HELP

    parser = CommandParser(
        prog="python -m results.report",
        description="Write an HTML page with the best trial, the leaderboard, figures and the cost of a search. "
        "Several runs are also compared: which one leads, one leaderboard, and their curves in one figure.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUNS_HELP)
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help=f"file to write (default RUN/{REPORT_FILE}; for several runs "
        f"{REPORT_FILE} in the current folder)"
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=at_least(1),
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"write the page every SECONDS (default {WATCH_SECONDS}) until the search ends; the open page reloads",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="serve the page on 127.0.0.1 only, at an address with a token, until Ctrl-C; open pages show each change "
        "of the search; writes no file",
    )
    parser.add_argument("--port", type=port, metavar="N", help="port of --serve (default: a free one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.report", lambda: _report(args))


def _report(args: argparse.Namespace) -> int:
    from results.record.folder import find_runs

    if args.port is not None and not args.serve:
        raise UsageError(f"--port {args.port}: has an effect only together with --serve")
    if args.serve:
        return _serve(args)
    from results.tables.parquet import check_target
    from results.views.opened_run import open_run
    from results.views.several_runs import compared_runs

    folders = list({folder.resolve(): folder for folder in find_runs(args.runs)}.values())
    path = args.out or (folders[0] / REPORT_FILE if len(folders) == 1 else Path(REPORT_FILE))
    check_target(path, "-o ")
    opened, shown = False, False
    try:
        while True:
            runs = [open_run(folder) for folder in folders]
            live = args.watch if any(run.live for run in runs) else None
            size = write_report(runs, path, watch=live)
            if not shown:
                apart = compared_runs(runs)[1]
                if apart is not None:
                    say(apart, error=True)
                say(f"wrote {path}: {size / 1e6:.1f} MB")
                shown = True
            if args.open and not opened:
                opened = webbrowser.open(path.absolute().as_uri())
                if not opened:
                    say(f"no browser found; open {path.absolute().as_uri()}", error=True)
                opened = True
            if live is None:
                return 0
            time.sleep(args.watch)
    except KeyboardInterrupt:  # write the page once more without reloading
        if args.watch:
            write_report([open_run(folder) for folder in folders], path)
        return 130


def _serve(args: argparse.Namespace) -> int:
    from results.record.folder import find_runs
    from results.serve import LivePage, serve

    for flag, given in (("-o", args.out), ("--watch", args.watch)):
        if given is not None:
            raise UsageError(f"{flag}: has no effect with --serve, which writes no file")

    def opened(address: str) -> None:
        if args.open and not webbrowser.open(address):
            say("no browser found; open the address yourself", error=True)

    return serve(
        LivePage(find_runs(args.runs), render), args.port or 0, lambda line: say(line, with_token=True), opened
    )


def write_report(
    runs: "str | PathLike[str] | Iterable[str | PathLike[str]]", path: str | PathLike[str], *, watch: int | None = None
) -> int:
    """Write the page of one or more runs atomically.

    Args:
        runs: names of runs in `runs/`, paths of run folders, or opened runs; also only one.
        path: the file; its folder must exist.
        watch: seconds between reloads of the open page; None means no reload.

    Returns:
        Size of the page in bytes.

    Raises:
        RunError: one of them is not a run, none is named, or a table is damaged.
        UsageError: `path` is a folder, or its folder does not exist.
    """
    from results.tables.parquet import check_target, replacing
    from results.views.opened_run import open_run

    names = [runs] if isinstance(runs, str | PathLike) else list(runs)
    if not names:
        raise RunError("no run is named; give at least one name or path")
    place = Path(path)
    check_target(place)
    content = render([open_run(run) for run in names], watch=watch).encode("utf-8", errors="replace")
    with replacing(place) as half:
        half.write_bytes(content)
    return len(content)


def render(runs: "Sequence[OpenedRun]", *, watch: int | None = None, live: int | None = None) -> str:
    """The page of opened runs as text.

    Args:
        runs: the opened runs.
        watch: as in `write_report`.
        live: the number of this version of a served page, which replaces its content after a change; None for a file.
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from results.figures.style import DARK, LIGHT
    from results.page.content import content_of
    from results.page.fill import fill, page_file
    from results.page.several_runs import content_of_compared
    from results.views.several_runs import compared_runs, run_names

    contents = [content_of(run, number) for number, run in enumerate(runs)]
    groups, apart = compared_runs(runs)
    named = dict(zip(run_names(runs), contents, strict=True))
    several = [content_of_compared(group, number, named) for number, group in enumerate(groups)]
    articles = [*several, *contents]
    for content in articles:
        content["statuses"] = sorted({row["status"] for row in content["board"]["rows"]})
        content["faint"] = ("stopped", "screened", "failed", "diverged", "out_of_memory", "interrupted")
    plotted = any(picture["figure"] for content in articles for picture in _all_pictures(content))
    return fill(
        "template.html",
        title=f"{', '.join(run.name for run in runs)} – digit-search",
        runs=contents,
        articles=articles,
        apart=apart,
        watch=watch,
        live=live,
        script=page_file("page.js"),
        plotly=Markup(get_plotlyjs()) if plotted else "",
        data=Markup(_data(articles, {"light": LIGHT, "dark": DARK})),
    )


def _all_pictures(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of a run, or of compared runs; those of a best trial's evaluation are included."""
    return [*content["pictures"], *content.get("evaluation", {}).get("pictures", [])]


def _data(contents: Sequence[dict[str, Any]], templates: dict[str, Any]) -> str:
    """The data of the page's script as JSON, escaped so that it cannot close the script element."""
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
            "figures": {one["key"]: one["figure"] for one in _all_pictures(content) if one["figure"]},
        }
        for content in contents
    ]
    text = json.dumps({"runs": runs, "templates": templates}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


if __name__ == "__main__":
    raise SystemExit(main())
