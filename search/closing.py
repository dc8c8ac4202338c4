"""What a search says when it ends: the leaderboard, the winner in words, the commands to go on with."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from digits_core.config import TrainConfig
from digits_core.data import LAYOUT
from digits_core.source import DRAWN, DataSource
from results.compare import confirmation_words, twin_words
from results.guard import left_out_words
from results.leaderboard import SHOWN, print_board, score_cells
from results.record import RunRecord
from results.store import BEST_FILE, leaderboard_table
from results.tables import write_text
from results.verdicts import confirmations, whole_board
from search.settings import Plan, SearchSettings


def print_end(
    settings: SearchSettings, plan: Plan, folder: Path, record: RunRecord, ending: str | None, console: Console
) -> int:
    """Print the leaderboard, the winner in words and what to do next."""
    python = this_python()
    board = leaderboard_table(record, folder).to_pandas()
    print_board(board, settings.metric, console)
    for line in [*confirmation_words(record, folder), *twin_words(record), *left_out_words(record)]:
        console.print(line, markup=False, soft_wrap=True)
    winner = record.winner()
    if winner is None:
        console.print("no trial has a score; see the reasons above" if record.trials else "no trial was started")
    else:
        best = TrainConfig.from_flat(winner.config)
        if winner.optima:
            best = TrainConfig.from_flat(swept_thresholds(winner.optima), best)
        write_text(folder / BEST_FILE, best.to_toml())
        [row] = board[board["trial_id"] == winner.trial_id].to_dict("records")
        for line in [*winner_words(record, plan.base, row), *verdict_words(record, folder)]:
            console.print(line, markup=False, soft_wrap=True)
        files = f"leaderboard.parquet, epochs.parquet, {BEST_FILE} (the winner's settings), events.jsonl"
        console.print(
            f"""
run folder  {folder}
            {files}, thresholds/, matches/
go on with  {python} -m results.leaderboard {quote(str(folder))}
            {python} -m results.compare {quote(str(folder))}{" --by table" if plan.space.tables else ""}
            {python} -m results.plots {quote(str(folder))}
            {python} -m search.retrain {quote(str(folder))} --replicates 3
            {python} -m results.export {quote(str(folder))} --format csv -o leaderboard.csv
            {python} -m search.run {_next_search(settings)} --config {quote(str(folder / BEST_FILE))}""",
            markup=False,
            soft_wrap=True,
        )
    if ending == "interrupted":
        console.print(f"interrupted; go on with\n            {resume_command(settings)}", markup=False, soft_wrap=True)
        return 130
    under_way = sum(trial.status == "interrupted" for trial in record.trials.values())
    if ending == "time budget":
        console.print(
            f"the time budget was used up with {under_way} trainings under way; go on with\n"
            f"            {resume_command(settings)} --time-budget ...",
            markup=False,
            soft_wrap=True,
        )
    confirmed = len(confirmations(record, folder))
    if confirmed < settings.confirm:
        why = "the run ended before" if ending else "no more of them trained to their end"
        console.print(f"confirmed {confirmed} of the {settings.confirm} settings asked for: {why}")
    trained = sum(trial.role == "search" and trial.status != "screened" for trial in record.trials.values())
    if ending is None and trained < plan.trials:
        console.print(f"the space holds no more than {trained} different settings of the {plan.trials} asked for")
    return 0 if winner is not None else 1


def _next_search(settings: SearchSettings) -> str:
    """The flags of a search that takes the winner further: another space, the same data."""
    searched = settings.space.split(",")
    space = next((name for name in ("lr_schedules", "anchors", "thresholds") if name not in searched), "aspect_ratios")
    if settings.data.folder == DRAWN:
        return f"--space {space}"
    flags = [f"--space {space} --data {quote(settings.data.folder)}"]
    for name in LAYOUT:
        value = getattr(settings.data, name)
        if value != getattr(DataSource(), name):
            flags.append(f"--{name.replace('_', '-')} {quote(str(value))}")
    return " ".join([*flags, *(["--skip-bad"] if settings.data.skip_bad else [])])


def resume_command(settings: SearchSettings) -> str:
    """What goes on with a run."""
    out = "" if settings.out == "runs" else f" --out {quote(settings.out)}"
    return f"{this_python()} -m search.run --resume {settings.name}{out}"


def this_python() -> str:
    """How to call the interpreter that runs this: `python` where a shell would find it so."""
    found = shutil.which("python")
    if found is not None and Path(found) == Path(sys.executable):
        return "python"
    here = Path(sys.executable)
    return quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))


def winner_words(record: RunRecord, base: TrainConfig, row: Mapping[Any, Any]) -> list[str]:
    """The winner and how it differs from the default, in a few lines.

    Args:
        record: the run's; it has a winner.
        base: the config that settings change.
        row: the winner's on the leaderboard.
    """
    winner = record.winner()
    best = None if winner is None else winner.best(record.metric)
    if winner is None or best is None:
        return []
    numbers = best["val_number_accuracy"]
    name = f" ({winner.baseline})" if winner.baseline else ""
    score, interval = score_cells(row, record.metric)
    lines = [
        "",
        f"winner: {winner.trial_id}{name}, best at epoch {best['epoch']} of {winner.num_epochs}: "
        f"{SHOWN[record.metric]} {score}{' ' + interval if interval else ''}, mAP@.5 {best['val_map_50']:.2f}"
        + ("" if numbers is None else f", {numbers:.0%} of the numbers read right"),
    ]
    default = base.to_flat()
    for knob, value in winner.config.items():
        if value != default[knob]:
            lines.append(f"        {knob} = {value}   (default {default[knob]})")
    for task, column, unit in (("task1", "task1_map", "mAP"), ("task2", "task2_number_accuracy", "of the numbers")):
        if column in winner.optima:
            optima = winner.optima
            kind = "across classes" if optima[f"{task}_class_agnostic"] else "within classes"
            gain = f"{optima[column]:.3f} mAP" if unit == "mAP" else f"{optima[column]:.1%} {unit}"
            lines.append(
                f"        Task {task[-1]} at its best thresholds: nms {optima[f'{task}_nms']:g} {kind}, score "
                f"{optima[f'{task}_score']:g} -> {gain} (chosen on these validation images)"
            )
    return lines


def verdict_words(record: RunRecord, folder: Path) -> list[str]:
    """What can be said of the winner against the default and the others."""
    verdicts = whole_board(record, folder, record.metric)
    winner = record.winner()
    judged = [one for one in verdicts if one.told_apart is not None]
    if winner is None or not judged:
        return []
    lines = []
    default = next((trial.trial_id for trial in record.settings() if trial.baseline == "default"), None)
    for one in verdicts:
        if one.second == default:
            lines.append(f"        against the default ({default}): {one.words}")
    tied = [one.second for one in judged if not one.told_apart]
    if tied:
        lines.append(f"        {len(tied)} of {len(judged)} others cannot be told apart from it")
    if all(one.level == "models" for one in judged):
        repeated = any(trial.role == "replicate" for trial in record.trials.values())
        few = "too few fresh seeds" if repeated else "one training"
        lines.append(f"        {few} each: verdicts hold for these models; --replicates 3 tells settings apart")
    return lines


def swept_thresholds(optima: dict[str, Any]) -> dict[str, object]:
    """Knobs of `detect` at a sweep's best thresholds."""
    return {
        f"detect.{task}.{name}": optima[f"{task}_{name}"]
        for task in ("task1", "task2")
        for name in ("nms", "score", "class_agnostic", "max_detections")
        if f"{task}_{name}" in optima
    }
