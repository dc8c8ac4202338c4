"""Prints the end of a sweep without training: the best settings of a trained model, and the next commands."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import Console

from digits_core.config.train_config import TaskConfig, TrainConfig
from results.record.folder import BEST_FILE, CHECKPOINTS, THRESHOLDS
from results.record.run import RunRecord
from results.verdicts.comparison import whole_board
from results.verdicts.words import ERROR, check_words
from results.views.evaluation import SCORES
from results.views.fitted_columns import empty_table, fit
from results.views.leaderboard import leaderboard_table
from results.views.terminal_table import print_leaderboard, score_cells
from results.views.winner import verdict_words, write_best
from search.cli.settings import SearchSettings
from search.models.source import Source
from search.monitor.summary import folder_lines, next_lines, next_search, this_program

if TYPE_CHECKING:
    from digits_core.evaluation.sweep import Sweep

NUM_SHOWN = 5
"""Number of settings that are printed for each task."""

CHOSEN_BY = {"task1": ("map", "map_50"), "task2": ("number_accuracy", "digit_accuracy")}
"""The score that selects the thresholds of a task, and the score that is shown next to it."""


def print_swept(
    settings: SearchSettings, source: Source, folder: Path, record: RunRecord, sweep: "Sweep", console: Console
) -> int:
    """Print the scores of the model, the best settings of each task and the next commands; write best.toml.

    Args:
        settings: the settings of the search.
        source: the model.
        folder: the run folder.
        record: the record of the run, with one trial.
        sweep: the scores of all threshold settings.
        console: where to print.

    Returns:
        The exit code: 0, or 1 without a score.
    """
    model = record.winner()
    if model is None:
        console.print(f"no score: {record.metric} cannot be measured on the validation images")
        return 1
    write_best(folder, record)
    [row] = leaderboard_table(record, folder).to_pylist()
    score = " ".join(score_cells(row, record.metric)).strip()
    heading = SCORES[record.metric.removeprefix("val_")]
    console.print(f"{model.trial_id} ({source.words}) at its own thresholds: {heading} {score}", soft_wrap=True)
    for line in check_words(record):
        console.print(line, style="bold red" if line.startswith(ERROR) else None, soft_wrap=True)
    detect = TrainConfig.from_flat(model.config).detect
    _print_task("task1", sweep, detect.task1, console)
    _print_task("task2", sweep, detect.task2, console)
    console.print(
        "Each row is one setting of NMS and score threshold, scored on the same detections; own is the setting of the "
        "model, or of --set. The best ones were selected on these validation images, so their scores are slightly "
        "optimistic.",
        soft_wrap=True,
    )
    for line in _next_commands(settings, source, folder, model.trial_id):
        console.print(line, soft_wrap=True)
    return 0


def print_merged(folder: Path, record: RunRecord, console: Console) -> int:
    """Print the leaderboard of the ways to merge the boxes of a model; write best.toml.

    Returns:
        The exit code: 0, or 1 without a score.
    """
    board = leaderboard_table(record, folder).to_pandas()
    print_leaderboard(board, record.metric, console)
    if record.winner() is None:
        console.print(f"no score: {record.metric} cannot be measured on the validation images")
        return 1
    write_best(folder, record)
    console.print(
        "The first trial is the model at its own thresholds. Each other row is the same model with another way to "
        "merge its boxes, at thresholds that were selected on these validation images, so their scores are slightly "
        "optimistic.",
        soft_wrap=True,
    )
    for line in [
        *verdict_words(record, whole_board(record, folder, record.metric)),
        *folder_lines(folder),
        *next_lines([f"{this_program()} {verb} {quote(str(folder))}" for verb in ("compare", "report --open")]),
    ]:
        console.print(line, soft_wrap=True)
    return 0


def _print_task(task: str, sweep: "Sweep", own: TaskConfig, console: Console) -> None:
    """Print the best settings of a task and its own one; nothing if its score could not be measured."""
    name, beside = CHOSEN_BY[task]
    rows = sweep.ranked(name)
    if not len(rows):
        return
    values = getattr(sweep, name)
    same = int((values == values[rows[0]]).sum())
    ties = f"; {same:,} settings have the best score" if same > 1 else ""
    console.print()
    console.print(
        f"Task {task[-1]}: the best {min(NUM_SHOWN, len(rows))} of {len(sweep):,} settings by {SCORES[name]}{ties}"
    )
    table = empty_table(fit([], [], None))
    for heading in ("", "NMS", "score above", "boxes at most", SCORES[name], SCORES[beside]):
        table.add_column(heading, justify="left" if heading in ("", "NMS") else "right")
    places = [(str(place), int(row)) for place, row in enumerate(rows[:NUM_SHOWN], 1)]
    places += [("own", row) for row in range(len(sweep)) if sweep.task(row) == own][:1]
    for place, row in places:
        setting = sweep.task(row)
        table.add_row(
            place,
            f"{setting.nms:g} {'across' if setting.class_agnostic else 'within'} classes",
            f"{setting.score:g}",
            str(setting.max_detections),
            *(f"{getattr(sweep, one)[row]:.3f}" for one in (name, beside)),
            end_section=place == str(min(NUM_SHOWN, len(rows))),
        )
    console.print(table)


def _next_commands(settings: SearchSettings, source: Source, folder: Path, trial_id: str) -> list[str]:
    """The files of the run folder and commands to try next."""
    program, named = this_program(), quote(str(folder))
    commands = {"maps of all settings": f"report {named} --open"}
    if source.data is not None and source.folder.parent.name == CHECKPOINTS:
        run = source.folder.parent.parent
        if settings.fixed or settings.config:
            commands["compare with its run"] = f"compare {quote(str(run))} {named}"
        commands["train again with best thresholds"] = f"retrain {quote(str(run))} --trial {quote(source.folder.name)}"
    commands["search with these thresholds"] = f"run {next_search(settings)} --config {quote(str(folder / BEST_FILE))}"
    width = max(map(len, commands))
    return [
        "",
        f"run folder  {folder}",
        f"            {BEST_FILE} (the best setting of each task), {THRESHOLDS}/{trial_id}.parquet (all settings)",
        "next",
        *(f"  {name:{width}}  {program} {command}" for name, command in commands.items()),
    ]
