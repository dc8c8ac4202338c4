"""Verdicts in sentences."""

from collections.abc import Sequence
from pathlib import Path

from results.record.run import RunRecord
from results.verdicts.comparison import Verdict, confirmations
from results.verdicts.equal_models import differing_parameters, find_twins

MOST_NAMED = 5
"""Trials that a sentence names; the rest are counted."""


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """One line per comparison, aligned."""
    pairs = [f"{one.first} against {one.second}" for one in verdicts]
    width = max(map(len, pairs), default=0)
    return [f"  {pair:{width}}  {one.words}" for pair, one in zip(pairs, verdicts, strict=True)]


def confirmation_words(record: RunRecord, folder: Path) -> list[str]:
    """Whether the best settings of a search still beat the default on images that took no part in it, as lines.

    No lines when nothing was confirmed.
    """
    lines = []
    for one in confirmations(record, folder):
        difference, claimed = one.verdict.difference, one.claimed
        seen = (
            "whose first training was cut short" if claimed is None else f"the scores that chose it said {claimed:+.3f}"
        )
        said = f"  {one.trial.trial_id} against the default: "
        if difference is None:
            lines.append(f"{said}{one.verdict.words}")
            continue
        said += seen
        reach = f"{difference.estimate:+.3f} [{difference.low:.3f}, {difference.high:.3f}]"
        verdict = "the two cannot be told apart" + ("" if claimed is None or claimed <= 0 else ", so not confirmed")
        if one.verdict.told_apart:
            verdict = "it still beats the default" if difference.estimate > 0 else "the default is better"
        said += f"; {one.seeds} fresh seeds on images set apart say {reach}: {verdict}"
        if claimed is not None and claimed > 0:
            flattered = claimed - difference.estimate
            if flattered > difference.high - difference.estimate:
                said += f"; choosing had flattered it by {flattered:.3f}"
            elif flattered >= 0.0005:
                said += f"; {flattered:.3f} less than it seemed, which may be luck"
        lines.append(said)
    return [f"confirmation ({record.metric} on images that took no part in the search):", *lines] if lines else []


def twin_words(record: RunRecord) -> list[str]:
    """A warning for each setting whose parameters did nothing; those that share twin and parameters in one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for trial_id, other in find_twins(record).items():
        first, second = record.trials[other], record.trials[trial_id]
        if (first.config_hash, second.config_hash) not in seen:  # their further seeds say it again
            seen.add((first.config_hash, second.config_hash))
            groups.setdefault((other, ", ".join(differing_parameters(first, second))), []).append(trial_id)
    return [
        f"warning: {', '.join(names)} trained to the same weights as {other}: {parameters} did nothing here"
        for (other, parameters), names in groups.items()
    ]


def length_words(record: RunRecord) -> list[str]:
    """Which settings are not compared with the others because the run now trains for longer, as lines."""
    short, place = record.short(), "ranked after the others and " if record.behind() else ""
    groups: dict[int, list[str]] = {}
    for lead in record.settings():
        if lead.trial_id in short and record.value(lead) is not None:
            groups.setdefault(int(lead.config["optim.epochs"]), []).append(lead.trial_id)
    lines = []
    for epochs, names in sorted(groups.items(), reverse=True):
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append(
            f"{', '.join(sorted(names)[:MOST_NAMED])}{more}: planned for {epochs} epoch{'s' * (epochs != 1)}, the run "
            f"now trains for {record.epochs_now()}; {place}not compared with {'them' if place else 'longer ones'}"
        )
    return lines
