"""Prints the end of a search: the leaderboard, the winner in words, the next commands."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console

from digits_core.command import PROGRAM
from digits_core.data.command import LAYOUT
from digits_core.data.source import DRAWN, DataSource
from digits_core.errors import SpaceError
from digits_core.terminal import open_console
from results.record.folder import BEST_FILE, read_run_file
from results.record.run import RunRecord
from results.record.schema import FAILED
from results.verdicts.comparison import confirmations, whole_board
from results.verdicts.equal_models import left_out_words
from results.verdicts.words import ERROR, check_words, confirmation_words, length_words, twin_words
from results.views.front import front_words
from results.views.leaderboard import leaderboard_table
from results.views.outlook import outlook_words
from results.views.terminal_table import print_leaderboard
from results.views.winner import Advice, advise, verdict_words, winner_words, write_best
from search.cli.forecast import stored_forecast
from search.cli.settings import SearchSettings, count_settings
from search.machine.cost import hours_words
from search.policy.outlook import SETTLED
from search.policy.plan import Plan


class Printed(NamedTuple):
    """What the end of a search comes to.

    Attributes:
        code: the exit code: 0, or 1 without a score.
        verdict: whether the lead of the winner is real and what to do next, in a sentence; None without a score.
    """

    code: int
    verdict: str | None


def print_end(
    settings: SearchSettings, plan: Plan, folder: Path, record: RunRecord, ending: str | None, console: Console
) -> Printed:
    """Print the leaderboard, the winner in words and the next commands; a quiet console gets the winner in a line.

    Args:
        settings: the settings of the search.
        plan: the same, resolved.
        folder: the run folder.
        record: the record of the run.
        ending: why the run ended early: `interrupted`, `time budget` or None.
        console: where to print.

    Returns:
        The exit code and the recommendation.
    """
    loud = open_console() if console.quiet else console
    if ending == "interrupted":
        say_resume(loud, "interrupted", settings)
    board = leaderboard_table(record, folder).to_pandas()
    print_leaderboard(board, settings.metric, console)
    notes = [
        *front_words(record),
        *length_words(record),
        *confirmation_words(record, folder),
        *twin_words(record),
        *left_out_words(record),
    ]
    for line in [*forecast_words(read_run_file(folder), record), *notes]:
        console.print(line, soft_wrap=True)
    for line in check_words(record):
        wrong = line.startswith(ERROR)
        (loud if wrong else console).print(line, style="bold red" if wrong else None, soft_wrap=True)
    winner, verdict = record.winner(), None
    if winner is None:
        if not record.trials:
            loud.print("no trial was started")
        elif any(trial.stop_reason for trial in record.trials.values() if trial.status in FAILED):
            loud.print("no trial has a score; see the reasons above")
        else:
            loud.print("no trial has a score: none finished its first epoch")
    else:
        verdict = _print_winner(settings, plan, folder, record, board, console, whole=ending != "interrupted")
    if ending == "interrupted":
        return Printed(0 if winner is not None else 1, verdict)
    unfinished = sum(trial.status == "interrupted" for trial in record.trials.values())
    if ending == "time budget":
        say_resume(
            loud, f"the time budget was used up; {unfinished} trials are not finished", settings, "--time-budget ..."
        )
    confirmed = len(confirmations(record, folder))
    if confirmed < settings.confirm:
        why = "the run ended early" if ending else "no more of them trained to their end"
        loud.print(f"confirmed {confirmed} of the {settings.confirm} requested configurations: {why}")
    trained = sum(trial.role == "search" and trial.status != "screened" for trial in record.trials.values())
    ahead = outlook_words(record)
    if ahead is not None and record.outlook is not None:
        settled = plan.until_settled and ending is None and record.outlook["chance"] <= SETTLED
        console.print(("settled: " if settled else "outlook: ") + ahead, soft_wrap=True)
        if settled:
            return Printed(0 if winner is not None else 1, verdict)
    if ending is None and trained < plan.trials:
        loud.print(fewer_words(plan, trained, sum(t.role == "search" for t in record.trials.values())))
    return Printed(0 if winner is not None else 1, verdict)


def forecast_words(about: dict[str, Any], record: RunRecord) -> list[str]:
    """A line with the forecast of a search and what it trained; none for runs without a forecast.

    Args:
        about: the content of run.json.
        record: the record of the run.
    """
    known = stored_forecast(about)
    trials = [trial for trial in record.trials.values() if trial.role != "retrain"]
    trained = sum(len(trial.epochs) for trial in trials)
    if known is None or not trained:
        return []
    epochs, seconds = known
    begins = [trial.started_at for trial in trials if trial.started_at is not None]
    ends = [trial.finished_at for trial in trials if trial.finished_at is not None]
    if seconds is None or not begins or not ends or record.num_drivers > 1:  # pauses between starts are no training
        return [f"forecast {epochs} epochs, trained {trained}"]
    took = (max(ends) - min(begins)).total_seconds()
    return [f"forecast {epochs} epochs in {hours_words(seconds)}, trained {trained} in {hours_words(took)}"]


def _print_winner(
    settings: SearchSettings,
    plan: Plan,
    folder: Path,
    record: RunRecord,
    board: pd.DataFrame,
    console: Console,
    *,
    whole: bool,
) -> str | None:
    """Print the winner, its verdicts and the next commands; write best.toml.

    Args:
        settings: the settings of the search.
        plan: the same, resolved.
        folder: the run folder.
        record: the record of the run.
        board: its leaderboard.
        console: where to print.
        whole: whether the search was not interrupted; otherwise nothing is recommended yet, except to resume.

    Returns:
        The recommendation.
    """
    winner = record.winner()
    assert winner is not None
    write_best(folder, record)
    [row] = board[board["trial_id"] == winner.trial_id].to_dict("records")
    verdicts = whole_board(record, folder, record.metric)
    leads = winner_words(record, plan.probe_config(), row, name="winner" if whole else "best so far")
    for line in [*leads, *verdict_words(record, verdicts)]:
        console.print(line, soft_wrap=True)
    advice = advise(record, verdicts) if whole else None
    if advice is not None:
        console.print(f"        {advice.words}", style="bold", soft_wrap=True)
    if console.quiet:
        open_console().print(f"{leads[1]}; run folder {folder}", soft_wrap=True)
    for line in [*folder_lines(folder), *next_lines(next_commands(settings, plan, folder, advice))]:
        console.print(line, soft_wrap=True)
    return None if advice is None else advice.words


def folder_lines(folder: Path) -> list[str]:
    """The run folder and its files."""
    return [
        "",
        f"run folder  {folder}",
        f"            leaderboard.parquet, epochs.parquet, {BEST_FILE} (the best configuration), events.jsonl, "
        "thresholds/, matches/",
    ]


def next_lines(commands: Sequence[str]) -> list[str]:
    """The commands to try next, one a line."""
    return [f"{'' if place else 'next':12}{command}" for place, command in enumerate(commands)]


def next_commands(settings: SearchSettings, plan: Plan, folder: Path, advice: Advice | None) -> list[str]:
    """Commands to try next, the recommended one first.

    Args:
        settings: the settings of the search.
        plan: the same, resolved.
        folder: the run folder.
        advice: what to do with the result; None after an interruption.
    """
    program, named = this_program(), quote(str(folder))
    look = [
        f"{program} board {named}",
        f"{program} compare {named}{' --by table' if plan.space.tables else ''}",
        f"{program} report {named} --open",
    ]
    if advice is None:
        return [resume_command(settings), *look]
    export = f"{program} export {named} -o leaderboard.csv"
    search = f"{program} run {next_search(settings)} --config {quote(str(folder / BEST_FILE))}"
    if advice.alone:
        return [look[-1], f"{program} evaluate {named}", export, search]
    first = [] if advice.flags is None else [f"{resume_command(settings)} {advice.flags}"]
    if advice.keeps_default:  # nothing shows yet that the winner is better, so nothing builds on it
        return [*first, *look, export]
    use = f"{program} retrain {named} --replicates 3"
    return [*first, *look, use, export, search]


def fewer_words(plan: Plan, trained: int, tried: int) -> str:
    """Why fewer configurations were trained than requested.

    Args:
        plan: the plan of the search.
        trained: number of trained configurations.
        tried: the same, including those screened out before training.
    """
    try:
        used_up = count_settings(plan.space, plan.base) <= tried
    except SpaceError:
        used_up = False
    if used_up:
        return f"the space has only {tried} different configurations; {trained} of {plan.trials} were trained"
    return f"{trained} of {plan.trials} configurations were trained: the sampler repeated configurations tried before"


def next_search(settings: SearchSettings) -> str:
    """The flags of a search that varies other parameters of the winner: another space, the same data."""
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


def say_resume(console: Console, why: str, settings: SearchSettings, *more: str) -> None:
    """Print why a search ended early and, in a separate line to copy, the command that resumes it."""
    console.print(f"{why}; resume with", soft_wrap=True)
    console.print(" ".join([f"            {resume_command(settings)}", *more]), soft_wrap=True)


def resume_command(settings: SearchSettings) -> str:
    """The command that resumes a run."""
    out = "" if settings.out == "runs" else f" --out {quote(settings.out)}"
    return f"{this_program()} resume {settings.name}{out}"


def this_program() -> str:
    """The command that starts this program: `digit-search` if that is what a shell finds, else its path.

    Where only the modules are there, without the installed command: `python -m search.command`.
    """
    own = Path(sys.executable).with_name(PROGRAM)
    if shutil.which(PROGRAM) == str(own):
        return PROGRAM
    return quote(_from_here(own)) if own.is_file() else f"{this_python()} -m search.command"


def this_python() -> str:
    """The command of this Python interpreter: `python` if that is what a shell finds, else its path."""
    found = shutil.which("python")
    if found is not None and Path(found) == Path(sys.executable):
        return "python"
    return quote(_from_here(Path(sys.executable)))


def _from_here(path: Path) -> str:
    """A path, relative if it is in the current folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
