"""What a search says when it ends: the leaderboard, the winner in words, the commands to go on with."""

import shutil
import sys
from pathlib import Path
from shlex import quote

from rich.console import Console

from digits_core.cache import DRAWN, DataSource
from digits_core.config import TrainConfig
from digits_core.data import LAYOUT
from results.leaderboard import print_board
from results.record import RunRecord
from results.store import BEST_FILE, leaderboard_table, write_text
from search.settings import Plan, SearchSettings


def print_end(
    settings: SearchSettings, plan: Plan, folder: Path, record: RunRecord, ending: str | None, console: Console
) -> int:
    """Print the leaderboard, the winner in words and what to do next."""
    python = this_python()
    print_board(leaderboard_table(record).to_pandas(), settings.metric, console)
    winner = record.winner()
    if winner is None:
        console.print("no trial has a score; see the reasons above" if record.trials else "no trial was started")
    else:
        best = TrainConfig.from_flat(winner.config)
        if winner.optima:
            best = TrainConfig.from_flat(_swept_thresholds(winner.optima), best)
        write_text(folder / BEST_FILE, best.to_toml())
        for line in winner_words(record, plan.base):
            console.print(line, markup=False, soft_wrap=True)
        files = f"leaderboard.parquet, epochs.parquet, {BEST_FILE} (the winner's settings), events.jsonl"
        console.print(
            f"""
run folder  {folder}
            {files}{", thresholds/" if plan.sweep else ""}
go on with  {python} -m results.leaderboard {quote(str(folder))}
            {python} -m results.export {quote(str(folder))} --format csv -o leaderboard.csv
            {python} -m search.run {_next_search(settings)} --config {quote(str(folder / BEST_FILE))}""",
            markup=False,
            soft_wrap=True,
        )
    if ending == "interrupted":
        console.print(f"interrupted; go on with\n            {resume_command(settings)}", markup=False, soft_wrap=True)
        return 130
    if ending is None and len(record.trials) < plan.trials:
        console.print(
            f"the space holds no more than {len(record.trials)} different settings of the {plan.trials} asked for"
        )
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


def winner_words(record: RunRecord, base: TrainConfig) -> list[str]:
    """The winner and how it differs from the default, in a few lines."""
    winner = record.winner()
    best = None if winner is None else winner.best(record.metric)
    if winner is None or best is None:
        return []
    numbers = best["val_number_accuracy"]
    name = f" ({winner.baseline})" if winner.baseline else ""
    lines = [
        "",
        f"winner: {winner.trial_id}{name}, best at epoch {best['epoch']} of {winner.num_epochs}: "
        f"mAP {best['val_map']:.2f}, mAP@.5 {best['val_map_50']:.2f}"
        + ("" if numbers is None else f", {numbers:.0%} of the numbers read right"),
    ]
    default = base.to_flat()
    for knob, value in winner.config.items():
        if value != default[knob]:
            lines.append(f"        {knob} = {value}   (default {default[knob]})")
    if winner.optima:
        optima = winner.optima
        lines.append(
            f"        thresholds: Task 1 nms {optima['task1_nms']:g} score {optima['task1_score']:g} -> mAP "
            f"{optima['task1_map']:.2f}; Task 2 nms {optima['task2_nms']:g} score {optima['task2_score']:g} -> "
            f"{optima['task2_number_accuracy']:.0%} of the numbers (both chosen on these validation images)"
        )
    lines.append("        one training each: differences of a few hundredths may be luck")
    return lines


def _swept_thresholds(optima: dict[str, float]) -> dict[str, object]:
    return {
        f"detect.{task}.{name}": optima[f"{task}_{name}"]
        for task in ("task1", "task2")
        for name in ("nms", "score")
        if f"{task}_{name}" in optima
    }
