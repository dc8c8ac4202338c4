"""The choice of an ensemble in words, as tables and as values for JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from results.statistics import Difference
from results.views.evaluation import SCORES, table_of
from results.views.leaderboard import SHOWN
from search.models.ensemble import Choice, difference, is_real, mean_point
from search.models.pool import Pool, Scored, reduced
from search.monitor.summary import this_program

HALVES = ("first", "second")

ALONE, FUSED_ALONE = "the best single model", "the best single model with its own boxes fused"


@dataclass(frozen=True, slots=True)
class EnsembleVerdict:
    """Whether the chosen ensembles are better than a single model, as the mean over both halves.

    Attributes:
        name: one of SCORE_NAMES.
        against: the single model, in words.
        ensemble, single: the mean scores.
        found: their difference.
        noun: what the models together are called.
    """

    name: str
    against: str
    ensemble: float
    single: float
    found: Difference
    noun: str = "ensemble"

    @property
    def words(self) -> str:
        """A sentence."""
        verdict = "no significant difference"
        if is_real(self.found):
            verdict = f"the {self.noun} is better" if self.found.estimate > 0 else "the single model is better"
        return (
            f"{SCORES[self.name]}: {self.noun} {self.ensemble:.3f}, {self.against} {self.single:.3f}; "
            f"{_interval(self.found)}: {verdict}"
        )

    def document(self) -> dict[str, Any]:
        """It as values for JSON."""
        return {
            "score": self.name,
            "against": self.against,
            "ensemble": self.ensemble,
            "single": self.single,
            **_difference_values(self.found),
            "words": self.words,
        }


def scores_shown(pool: Pool) -> list[str]:
    """The score of the run's metric, and one of the other task, where they can be measured."""
    own = pool.metric.removeprefix("val_")
    other = "number_accuracy" if own.startswith("map") else "map"
    return [name for name in (own, other) if name != "number_accuracy" or pool.valid.table.categories.are_digits]


def verdicts_of(pool: Pool, choices: Sequence[Choice]) -> list[EnsembleVerdict]:
    """The verdicts on each score: against the best single model, and against it with its own boxes fused.

    A fusion also merges the boxes of one model, so the second comparison shows what the other models add.
    """
    if not any(_is_ensemble(one) for one in choices):
        return []
    found = []
    for name in scores_shown(pool):
        for against in (ALONE, FUSED_ALONE) if pool.fuses else (ALONE,):
            singles = [one.alone if against == ALONE or one.fused_alone is None else one.fused_alone for one in choices]
            bests = [one.best for one in choices]
            pairs = [(one.half, best, single) for one, best, single in zip(choices, bests, singles, strict=True)]
            means = mean_point(bests, name), mean_point(singles, name)
            found.append(EnsembleVerdict(name, against, *means, difference(pool, pairs, name), pool.noun))
    return found


def print_choices(console: Console, pool: Pool, choices: Sequence[Choice], verdicts: Sequence[EnsembleVerdict]) -> None:
    """Print a table for each half, and the verdicts on both."""
    names = scores_shown(pool)
    for one in choices:
        here, there = HALVES[one.half], HALVES[1 - one.half]
        sizes = [len(pool.halves[one.half]), len(pool.halves[1 - one.half])]
        short = [SHOWN.get(f"val_{name}", SCORES[name]) for name in names]
        columns = ["models", "choosing", *short, f"gain in {short[0]}"]
        title = f"Chosen on the {here} half ({sizes[0]} images), scored on the {there} half ({sizes[1]} images)"
        console.print(table_of(title, columns, _rows(pool, one, names)))
    console.print(
        "mean of both halves:" if verdicts else "both halves choose a single model, so there is no comparison"
    )
    for verdict in verdicts:
        console.print(f"  {verdict.words}", soft_wrap=True)


def _rows(pool: Pool, choice: Choice, names: Sequence[str]) -> list[list[str]]:
    rows, shown = [], set()
    for step, scored in zip(choice.path, choice.sizes, strict=True):
        if reduced(step.counts) in shown:  # copies of all its models change nothing
            continue
        shown.add(reduced(step.counts))
        name = models_words(pool.names(step.counts)) + (" (chosen)" if step is choice.chosen else "")
        gain = _gain(pool, choice, scored, names[0]) if len(shown) > 1 else ""
        rows.append([name, f"{step.score:.3f}", *_points(scored, names), gain])
    fused = choice.fused_alone
    if fused is None:
        return rows
    first = models_words(pool.names(fused.counts)) + ", own boxes fused"
    rows.insert(1, [first, "", *_points(fused, names), _gain(pool, choice, fused, names[0])])
    return rows


def _points(scored: Scored, names: Sequence[str]) -> list[str]:
    return [f"{scored.points[name]:.3f}" for name in names]


def _gain(pool: Pool, choice: Choice, scored: Scored, name: str) -> str:
    return _interval(difference(pool, [(choice.half, scored, choice.alone)], name))


def models_words(counts: dict[str, int]) -> str:
    """`t0003 (2), t0001`: the models of an ensemble, and how often each counts."""
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())


def print_written(
    console: Console, pool: Pool, target: Path, metrics: dict[str, Any], verdicts: Sequence[EnsembleVerdict]
) -> None:
    """Print what was written, what it costs, whether it is worth that, and the next command."""
    members = {one["trial"]: one["count"] for one in metrics["members"]}
    scores = ", ".join(
        f"{SCORES[name]} {value:.3f} [{low:.3f}, {high:.3f}]"
        for name in scores_shown(pool)
        for value, low, high in [metrics["scores"][f"val_{name}"]]
    )
    if not pool.fuses:
        console.print(f"wrote {target}: the mean of {models_words(members)}, chosen on all validation images")
        console.print(f"  {scores} on the same images, which is too optimistic", soft_wrap=True)
        if not any(one.found.estimate > 0 and is_real(one.found) for one in verdicts):
            console.print("  it is not better for sure, but it costs no more than a single model", soft_wrap=True)
        console.print(f"next: {this_program()} predict {quote(str(target))} IMAGES -o predictions", soft_wrap=True)
        return
    cost = metrics["cost"]
    two, one = cost["ensemble"], cost["single"]
    console.print(f"wrote {target}: {models_words(members)}, chosen on all validation images", soft_wrap=True)
    console.print(f"  {scores} on the same images, which is too optimistic", soft_wrap=True)
    console.print(
        f"  cost: {two['milliseconds']:.1f} ms an image, {one['trial']} alone {one['milliseconds']:.1f} ms (one image "
        f"at a time on {cost['device']}); {two['megabytes']:.1f} MB instead of {one['megabytes']:.1f} MB",
        soft_wrap=True,
    )
    if not any(one.found.estimate > 0 and is_real(one.found) for one in verdicts if one.against == ALONE):
        console.print(f"  it is not better for sure, so {one['trial']} alone is the cheaper choice", soft_wrap=True)
    console.print(f"next: {this_program()} predict {quote(str(target))} IMAGES -o predictions", soft_wrap=True)


def document_of(
    pool: Pool, choices: Sequence[Choice], verdicts: Sequence[EnsembleVerdict], notes: Sequence[str]
) -> dict[str, Any]:
    """Everything as values for JSON."""
    return {
        "models": [one.name for one in pool.models],
        "notes": list(notes),
        "metric": pool.metric,
        "iou": pool.fusion.iou,
        "halves": [_choice_values(pool, one) for one in choices],
        "verdicts": [one.document() for one in verdicts],
    }


def _choice_values(pool: Pool, choice: Choice) -> dict[str, Any]:
    name = pool.metric.removeprefix("val_")
    return {
        "chosen_on": HALVES[choice.half],
        "images": [len(pool.halves[choice.half]), len(pool.halves[1 - choice.half])],
        "chosen": pool.names(choice.chosen.counts),
        "sizes": [
            {
                "models": pool.names(step.counts),
                "where_chosen": step.score,
                "scores": scored.points,
                "against_single": _difference_values(difference(pool, [(choice.half, scored, choice.alone)], name)),
            }
            for step, scored in zip(choice.path, choice.sizes, strict=True)
        ],
        "single_fused": None if choice.fused_alone is None else choice.fused_alone.points,
    }


def _is_ensemble(choice: Choice) -> bool:
    return sum(map(bool, choice.chosen.counts)) > 1


def _interval(found: Difference) -> str:
    return f"{found.estimate:+.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference_values(found: Difference) -> dict[str, float]:
    return {"difference": found.estimate, "low": found.low, "high": found.high, "p": found.p}
