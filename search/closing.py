"""What a search says when it ends: the leaderboard, the winner in words, the commands to go on with."""

import shutil
import sys
from pathlib import Path
from shlex import quote

from rich.console import Console

from digits_core.data import LAYOUT
from digits_core.source import DRAWN, DataSource
from results.compare import confirmation_words, twin_words
from results.guard import left_out_words
from results.leaderboard import print_board
from results.record import RunRecord
from results.schema import FAILED
from results.store import BEST_FILE, leaderboard_table
from results.terminal import open_console
from results.verdicts import confirmations, whole_board
from results.winner import verdict_words, winner_words, write_best
from search.settings import Plan, SearchSettings


def print_end(
    settings: SearchSettings, plan: Plan, folder: Path, record: RunRecord, ending: str | None, console: Console
) -> int:
    """Print the leaderboard, the winner in words and what to do next; a quiet console gets the winner in a line."""
    python = this_python()
    loud = open_console() if console.quiet else console
    board = leaderboard_table(record, folder).to_pandas()
    print_board(board, settings.metric, console)
    for line in [*confirmation_words(record, folder), *twin_words(record), *left_out_words(record)]:
        console.print(line, markup=False, soft_wrap=True)
    winner = record.winner()
    if winner is None:
        if not record.trials:
            loud.print("no trial was started")
        elif any(trial.stop_reason for trial in record.trials.values() if trial.status in FAILED):
            loud.print("no trial has a score; see the reasons above")
        else:
            loud.print("no trial has a score: none came to the end of its first epoch")
    else:
        write_best(folder, record)
        [row] = board[board["trial_id"] == winner.trial_id].to_dict("records")
        for line in [
            *winner_words(record, plan.probe_config(), row),
            *verdict_words(record, whole_board(record, folder, record.metric)),
        ]:
            console.print(line, markup=False, soft_wrap=True)
        if console.quiet:
            leads = winner_words(record, plan.probe_config(), row)[1]
            loud.print(f"{leads}; run folder {folder}", markup=False, soft_wrap=True)
        files = f"leaderboard.parquet, epochs.parquet, {BEST_FILE} (the winner's settings), events.jsonl"
        console.print(
            f"""
run folder  {folder}
            {files}, thresholds/, matches/
go on with  {python} -m results.leaderboard {quote(str(folder))}
            {python} -m results.compare {quote(str(folder))}{" --by table" if plan.space.tables else ""}
            {python} -m results.report {quote(str(folder))} --open
            {python} -m search.retrain {quote(str(folder))} --replicates 3
            {python} -m results.export {quote(str(folder))} --format csv -o leaderboard.csv
            {python} -m search.run {_next_search(settings)} --config {quote(str(folder / BEST_FILE))}""",
            markup=False,
            soft_wrap=True,
        )
    if ending == "interrupted":
        loud.print(f"interrupted; go on with\n            {resume_command(settings)}", markup=False, soft_wrap=True)
        return 130
    under_way = sum(trial.status == "interrupted" for trial in record.trials.values())
    if ending == "time budget":
        loud.print(
            f"the time budget was used up with {under_way} trainings under way; go on with\n"
            f"            {resume_command(settings)} --time-budget ...",
            markup=False,
            soft_wrap=True,
        )
    confirmed = len(confirmations(record, folder))
    if confirmed < settings.confirm:
        why = "the run ended before" if ending else "no more of them trained to their end"
        loud.print(f"confirmed {confirmed} of the {settings.confirm} settings asked for: {why}")
    trained = sum(trial.role == "search" and trial.status != "screened" for trial in record.trials.values())
    if ending is None and trained < plan.trials:
        loud.print(f"the space holds no more than {trained} different settings of the {plan.trials} asked for")
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
