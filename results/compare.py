"""python -m results.compare: which differences between trials or configurations are significant."""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits_core.command import JSON_HELP, CommandParser, run_command, say_json
from digits_core.errors import RunError, UsageError, did_you_mean, printable
from digits_core.evaluation.metrics import SCORE_NAMES
from results.record.folder import RUN_HELP, find_runs, read_record_of, read_run_file
from results.record.lengths import LENGTH_PARAMETERS
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.statistics import Difference, pooled_variance
from results.tables.matches import MATCHES_FOLDER, matches_path, read_matches
from results.verdicts.comparison import Board, whole_board
from results.verdicts.equal_models import best_weights
from results.verdicts.published import Answer, Published, luck_of
from results.verdicts.several_runs import joint_record, kind_of, leader_words, why_apart
from results.verdicts.verdict import Verdict
from results.verdicts.words import confirmation_words, length_words, seed_words, twin_words, verdict_lines
from results.views.leaderboard import varying_parameters

METRICS = tuple(f"val_{name}" for name in SCORE_NAMES)

MAX_GROUPS = 8
"""Most values that the parameter of `--by` may have."""

FIGURES = {"val_map": "report: validation mAP", "public_map": "public mAP", "public_number_accuracy": "public accuracy"}
"""Column headings of the printed scores."""

_EPILOG = """
examples:
  digit-search compare runs/my-search
  digit-search compare runs/my-search --trials t0003,t0000
  digit-search compare runs/monday runs/tuesday
  digit-search compare runs/my-search --by optim.schedule --metric val_number_accuracy
  digit-search compare runs/my-reports --by table

How to read a verdict: docs/statistics.md.
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(
        prog="python -m results.compare",
        description="Compare the best configuration with each other one, also of several runs, or trials or groups "
        "with each other.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP}; several must share their data")
    parser.add_argument("--trials", metavar="A,B", help="compare these trials; of several runs, RUN:TRIAL")
    parser.add_argument(
        "--by",
        metavar="FIELD",
        help="compare groups of configurations that have the same value of a parameter; "
        "'table' compares with the published tables of a space such as reports",
    )
    parser.add_argument("--metric", choices=METRICS, help="score to compare (default: the run's metric)")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("results.compare", lambda: _compare(args))


def _compare(args: argparse.Namespace) -> int:
    from digits_core.terminal import open_console

    if args.trials and args.by:
        raise UsageError("--trials and --by cannot be combined; give one of them")
    folders = find_runs(args.runs)
    named: dict[Path, Path] = {}
    for folder in folders:
        named.setdefault(folder.resolve(), folder)
    folders = list(named.values())
    records = {folder.resolve().name: (read_record_of(folder), folder) for folder in folders}
    if len(records) < len(folders):
        raise UsageError(f"two of the runs have the same name ({folders[0].name}); rename one of their folders")
    if len(records) > 1 and args.by:
        raise UsageError(f"--by: compares configurations of one run, {len(records)} are given")
    lines = []
    for record, folder in records.values():
        check_tables(record, folder)
        board = Board(record, folder, args.metric or record.metric)
        if args.by != "table":
            lines.append(f"{folder}: {board.metric} on {board.num_images} validation images; {_luck(board)}")
    whole = record
    if args.trials:
        whole, verdicts = _pairs(records, args.trials, args.metric)
    elif args.by == "table":
        published = Published(record, folder, board.metric)
        if args.json:
            tables = [answer_document(one) for one in published.answers()]
            say_json({"metric": board.metric, "notes": _published_head(published), "tables": tables})
        else:
            print_published(published, open_console())
        return 0
    elif args.by:
        verdicts = _groups(board, args.by)
        lines += length_words(record)
    elif len(records) > 1:
        whole, first, places = _one_board(records)
        verdicts = whole_board(whole, first, board.metric, folders=places)
        own = verdicts if board.metric == whole.metric else whole_board(whole, first, whole.metric, folders=places)
        lines.insert(0, leader_words(whole, list(records), own, whole.metric))
    else:
        verdicts = whole_board(record, folder, board.metric)
        lines += [*length_words(record), *confirmation_words(record, folder), *twin_words(record)]
    if not verdicts and not args.by:
        lines.append("nothing to compare: fewer than two configurations have a score")
    seeds = seed_words(whole, verdicts)
    if seeds is not None:
        lines.append(seeds)
    if args.json:
        metric = args.metric or next(iter(records.values()))[0].metric
        say_json({"metric": metric, "notes": lines, "verdicts": [verdict_document(one) for one in verdicts]})
        return 0
    console = open_console()
    for line in [*lines, *verdict_lines(verdicts)]:
        console.print(line, soft_wrap=True)
    return 0


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict as values for JSON; the difference is first minus second, None if the two are not compared."""
    return {
        "first": verdict.first,
        "second": verdict.second,
        "level": verdict.level,
        **_difference_document(verdict.difference),
        "p": _number(verdict.p),
        "significant": verdict.told_apart,
        "words": verdict.words,
    }


def answer_document(answer: Answer) -> dict[str, Any]:
    """The result for one published table as values for JSON."""
    return {
        "title": answer.title,
        "reading": answer.reading,
        "note": answer.note or None,
        "verdicts": [
            {
                "first": pair.first,
                "second": pair.second,
                **_difference_document(pair.difference),
                "published_difference": _number(pair.published),
                "verdict": pair.verdict,
                "words": pair.words,
            }
            for pair in answer.pairs
        ],
    }


def _difference_document(difference: Difference | None) -> dict[str, Any]:
    found = (None, None, None) if difference is None else (difference.estimate, difference.low, difference.high)
    return dict(zip(("difference", "low", "high"), (_number(value) for value in found), strict=True))


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def print_published(published: Published, console: Any) -> None:
    """Print each published table with its scores, the scores of the run, and the verdict on each pair of rows."""
    for line in _published_head(published):
        console.print(line, soft_wrap=True)
    answers = published.answers()
    for answer in answers:
        console.print()
        console.print(f"{answer.title} ({answer.reading})", style="bold")
        for name, (ours, theirs) in answer.other_question.items():
            console.print(
                f"{name} is {ours} here and was {theirs} in the report: another question, no verdict on the report",
                soft_wrap=True,
            )
        if answer.note:
            console.print(answer.note)
        console.print(_published_table(answer, published.metric))
        for pair in answer.pairs:
            console.print(f"  {pair.first} against {pair.second}: {pair.words}", soft_wrap=True)
    console.print()
    console.print("summary", style="bold")
    titles = [answer.title for answer in answers]
    for answer in sorted(answers, key=lambda one: titles.index(one.title)):
        asked = "; another question" if answer.other_question else ""
        verdicts = ", ".join(f"{pair.first} / {pair.second}: {pair.verdict}" for pair in answer.pairs)
        console.print(f"  {answer.title} ({answer.reading}{asked}): {verdicts}", soft_wrap=True)
    counted = "every complete training counts" if published.first_counts else "only replicates count"
    console.print()
    console.print(
        "real: significant at 95 %, corrected for all pairs of one reading. noise: not significant, and the printed "
        f"difference is within the variation over seeds. {counted} ({published.record.run}).",
        soft_wrap=True,
    )


def _published_head(published: Published) -> list[str]:
    """The lines before the tables: images, variance over seeds, parameters that differ from the report."""
    variance, freedom = published.spread
    reach = luck_of(published.spread)
    if not freedom:
        return [f"{published.folder}: not compared, no configuration has replicates (--replicates 3)"]
    luck = "" if reach is None else f"; two trainings of one configuration differ by up to {reach:.4f}"
    lines = [
        f"{published.folder}: {published.metric} on {published.board.num_images} validation images; standard deviation "
        f"over seeds {variance**0.5:.4f} ({freedom} degrees of freedom){luck}"
    ]
    if published.measured_with:
        parameters = ", ".join(
            f"{parameter} {theirs} (here {ours})" for parameter, (ours, theirs) in published.measured_with.items()
        )
        lines.append(f"the report used {parameters}: the verdicts are valid for the values here")
    return lines


def _published_table(answer: Answer, metric: str) -> Any:
    """A rich Table: printed scores, and the mean and interval of this run, one row per row of the report."""
    from rich import box
    from rich.table import Table

    names = [name for name in FIGURES if any(name in row.published for row, _ in answer.rows)]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("row")
    for name in (*(FIGURES[name] for name in names), "seeds", f"ours, {metric}"):
        table.add_column(name, justify="right")
    table.add_column("95 %")
    for row, interval in answer.rows:
        figures = [f"{row.published[name]:g}" if name in row.published else "-" for name in names]
        ends = "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"
        ours = f"{row.mean:.3f}" if row.trials else "-"
        table.add_row(row.label, *figures, str(len(row.trials)), ours, ends)
    return table


def _luck(board: Board) -> str:
    """The standard deviation of the score over seeds, or why the run does not have it."""
    variance, freedom = board.seed_variance
    if not freedom:
        retrained = any(trial.role == "retrain" for trial in board.record.trials.values())
        why = " (retrainings do not count, because these scores selected them)" if retrained else ""
        return f"no configuration has two replicates{why}, so trained models are compared"
    return f"standard deviation over seeds {variance**0.5:.3f} ({freedom} degrees of freedom)"


def check_tables(record: RunRecord, folder: Path) -> None:
    """Check that a run has the match tables that a comparison needs.

    Raises:
        RunError: it has no match tables, or they are of another schema version or damaged.
    """
    scored = [trial for trial in record.trials.values() if record.value(trial) is not None]
    paths = [matches_path(folder, trial.trial_id, "val") for trial in scored]
    there = [path for path in paths if path.is_file()]
    if scored and not there:
        raise RunError(
            f"{folder}: has no match tables ({MATCHES_FOLDER}/TRIAL.parquet), so intervals cannot be computed; "
            "they are written when a trial ends"
        )
    for path in there[:1]:
        read_matches(path)


def _pairs(
    records: dict[str, tuple[RunRecord, Path]], names: str, metric: str | None
) -> tuple[RunRecord, list[Verdict]]:
    """The record of the runs as one, and the verdicts on all pairs of the named trials."""
    found = [_named(records, name.strip()) for name in names.split(",")]
    if len(found) < 2:
        raise UsageError(f"--trials {printable(names)}: names one trial; give two or more, like t0003,t0000")
    if len({(run, trial.trial_id) for run, trial in found}) < len(found):
        raise UsageError(f"--trials {printable(names)}: names a trial twice")
    runs = list(dict.fromkeys(run for run, _ in found))
    record, folder, folders = _one_board({run: records[run] for run in runs})
    board = Board(record, folder, metric or record.metric, folders=folders)
    trials = [trial if len(runs) == 1 else record.trials[f"{run}:{trial.trial_id}"] for run, trial in found]
    verdicts = [board.compare(first, second) for first, second in itertools.combinations(trials, 2)]
    return record, board.correct(verdicts)


def _one_board(records: dict[str, tuple[RunRecord, Path]]) -> tuple[RunRecord, Path, dict[str, Path]]:
    """The record of a run, or of several as one, with the folder of the first and all folders by name.

    Raises:
        RunError: the runs have different metrics or different data.
    """
    record, folder = next(iter(records.values()))
    if len(records) == 1:
        return record, folder, {}
    kinds = {run: kind_of(one, read_run_file(place)) for run, (one, place) in records.items()}
    for run in records:
        reason = why_apart(next(iter(records)), run, kinds)
        if reason is not None:
            raise RunError(reason)
    return (
        joint_record({run: one for run, (one, _) in records.items()}),
        folder,
        {run: place for run, (_, place) in records.items()},
    )


def _named(records: dict[str, tuple[RunRecord, Path]], name: str) -> tuple[str, TrialRecord]:
    run, colon, trial_id = name.rpartition(":")
    run = Path(run).name if colon else next(iter(records))
    if len(records) > 1 and not colon:
        raise UsageError(f"--trials {printable(name)}: several runs are named; write RUN:{printable(name)}")
    if run not in records:
        raise UsageError(f"--trials {printable(name)}: no run '{printable(run)}'{did_you_mean(run, records)}")
    trials = records[run][0].trials
    if trial_id not in trials:
        raise UsageError(f"--trials {printable(name)}: run '{run}' has no such trial{did_you_mean(trial_id, trials)}")
    return run, trials[trial_id]


def _groups(board: Board, field: str) -> list[Verdict]:
    """Compare all pairs of values of a parameter, each value with its configurations."""
    record = board.record
    leads = [lead for lead in record.settings() if lead.status == "finished" and board.measured([lead])]
    short = set() if field in LENGTH_PARAMETERS else record.short()
    leads = [lead for lead in leads if lead.trial_id not in short]
    known = [*varying_parameters(list(record.trials.values())), "baseline", "space"]
    if field not in known:
        raise UsageError(f"--by {printable(field)}: no such parameter varies in this run{did_you_mean(field, known)}")
    groups: dict[str, list[TrialRecord]] = {}
    models: set[tuple[Any, ...]] = set()
    for lead in leads:
        value = lead.config.get(field) if "." in field else getattr(lead, field)
        weights = best_weights(lead, record.metric)
        model = value, weights, board.setting_value(lead)
        if weights is None or model not in models:  # configurations with the same model count once
            groups.setdefault(f"{field}={value}", []).append(lead)
        models.add(model)
    if len(groups) < 2:
        end = f"for {record.epochs_now()} epochs" if short else "to their end"
        raise UsageError(f"--by {field}: all configurations trained {end} have the same value; nothing to compare")
    if len(groups) > MAX_GROUPS:
        raise UsageError(
            f"--by {field}: has {len(groups)} values here, more than {MAX_GROUPS}; name a parameter with fewer values"
        )
    spread = pooled_variance([[board.setting_value(one) for one in group] for group in groups.values()])
    ordered = sorted(groups, key=lambda name: -sum(map(board.setting_value, groups[name])) / len(groups[name]))
    return board.correct(
        [
            board.compare_groups(first, groups[first], second, groups[second], spread)
            for first, second in itertools.combinations(ordered, 2)
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
