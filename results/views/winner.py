"""The winner of a run: a summary in words, its verdicts, and best.toml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from digits_core.config.train_config import TrainConfig
from results.record.folder import BEST_FILE
from results.record.run import RunRecord
from results.tables.parquet import write_text
from results.verdicts.verdict import Verdict
from results.verdicts.words import seed_words
from results.views.further import REPLICATES, more_words, resume_for
from results.views.leaderboard import SHOWN
from results.views.parameters import changed_by, value_words
from results.views.terminal_table import score_cells


def winner_words(record: RunRecord, base: TrainConfig, row: Mapping[Any, Any], *, name: str = "winner") -> list[str]:
    """Lines about the winner and the parameters that differ from the default; best.toml has the exact values.

    Args:
        record: the run's; it has a winner.
        base: the default configuration.
        row: the row of the winner on the leaderboard.
        name: what the winner is called: `best so far` in a search that is not finished.
    """
    winner = record.winner()
    best = None if winner is None else winner.best(record.metric)
    if winner is None or best is None:
        return []
    numbers = best["val_number_accuracy"]
    baseline = f" ({winner.baseline})" if winner.baseline else ""
    mean, seeds = row["seeds_mean"], row["num_seeds"]
    several = "" if mean is None or seeds is None or mean != mean else f", mean of {seeds:.0f} replicates {mean:.3f}"
    score, interval = score_cells(row, record.metric)
    lines = [
        "",
        f"{name}: {winner.trial_id}{baseline}, best at epoch {best['epoch']} of {winner.num_epochs}: "
        f"{SHOWN[record.metric]} {score}{' ' + interval if interval else ''}{several}, mAP@.5 {best['val_map_50']:.2f}"
        + ("" if numbers is None else f", {numbers:.0%} of the numbers read correctly"),
    ]
    changed = changed_by(winner, base.to_flat())
    for one in changed:
        if one.idle is None:
            lines.append(f"        {one.name} = {value_words(one.value)}   (default {value_words(one.default)})")
    idle = [f"{one.name} = {value_words(one.value)} ({one.idle})" for one in changed if one.idle is not None]
    if idle:
        lines.append(f"        without effect: {', '.join(idle)}")
    for task, column, unit in (("task1", "task1_map", "mAP"), ("task2", "task2_number_accuracy", "of the numbers")):
        if column in winner.optima:
            optima = winner.optima
            kind = "across classes" if optima[f"{task}_class_agnostic"] else "within classes"
            gain = f"{optima[column]:.3f} mAP" if unit == "mAP" else f"{optima[column]:.1%} {unit}"
            lines.append(
                f"        Task {task[-1]} at its best thresholds: nms {optima[f'{task}_nms']:g} {kind}, score "
                f"{optima[f'{task}_score']:g} -> {gain} (selected on these validation images)"
            )
    return lines


def verdict_words(record: RunRecord, verdicts: Sequence[Verdict]) -> list[str]:
    """Lines about the winner against the default and the others; `verdicts` as from `whole_board`."""
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
        lines.append(f"        {len(tied)} of {len(judged)} others are statistically tied with it")
    seeds = seed_words(record, judged)
    return lines if seeds is None else [*lines, f"        {seeds}"]


class Advice(NamedTuple):
    """What to do with the result of a search.

    Attributes:
        words: the same in a sentence or two, with what more would show.
        alone: whether the run has only this configuration, so that nothing can be compared.
        keeps_default: whether the default is to be kept: there is no evidence yet that the winner is better.
        flags: the flags of the resume that it proposes first; None if it proposes none.
    """

    words: str
    alone: bool = False
    keeps_default: bool = False
    flags: str | None = None


def recommend(record: RunRecord, verdicts: Sequence[Verdict]) -> str | None:
    """The words of `advise`; None without a winner."""
    advice = advise(record, verdicts)
    return None if advice is None else advice.words


def advise(record: RunRecord, verdicts: Sequence[Verdict]) -> Advice | None:
    """What to do with the result of a search, and what more would show; None without a winner.

    Args:
        record: the run's.
        verdicts: as from `whole_board`.
    """
    winner = record.winner()
    default = next((trial for trial in record.settings() if trial.baseline == "default"), None)
    if winner is None:
        return None
    if default is None and len(record.settings()) == 1:
        return Advice(f"Use {winner.trial_id}: the run has no other configuration.", alone=True)
    if default is None:
        return Advice(f"Use {winner.trial_id}; the run has no default to compare it with.")
    if winner is default:
        return Advice("Keep the default: no other configuration has a better score.", keeps_default=True)
    against = next((one for one in verdicts if one.second == default.trial_id and one.told_apart is not None), None)
    if against is None:
        return Advice(f"{winner.trial_id} leads, but it is not compared with the default yet.")
    if against.told_apart and against.level == "settings":
        return Advice(f"Use {winner.trial_id}: its configuration is better than the default.")
    resume = resume_for(record, winner, default, REPLICATES)
    more = f"resume the run with {resume.flags}" + (f" ({resume.cost})" if resume.cost else "")
    if against.told_apart:
        use = f"Use the model of {winner.trial_id}: it is better than the default's model."
        return Advice(f"{use} To know whether its configuration is better, {more}.", flags=resume.flags)
    no_evidence = f"there is no evidence that {winner.trial_id} is better"
    further = f" {more_words(record, winner, default, against)}".rstrip()
    if against.level == "settings":
        return Advice(f"Keep the default: {no_evidence}, with replicates of both.{further}", keeps_default=True)
    return Advice(f"Keep the default, or {more}: {no_evidence}.{further}", keeps_default=True, flags=resume.flags)


def write_best(folder: Path, record: RunRecord) -> None:
    """Write the configuration of the winner with the best thresholds of its sweep to best.toml."""
    winner = record.winner()
    assert winner is not None
    best = TrainConfig.from_flat(winner.config)
    if winner.optima:
        best = TrainConfig.from_flat(swept_thresholds(winner.optima), best)
    write_text(folder / BEST_FILE, best.to_toml())


def swept_thresholds(optima: dict[str, Any]) -> dict[str, object]:
    """Parameters of `detect` with the best thresholds of a sweep."""
    return {
        f"detect.{task}.{name}": optima[f"{task}_{name}"]
        for task in ("task1", "task2")
        for name in ("nms", "score", "class_agnostic", "max_detections")
        if f"{task}_{name}" in optima
    }
