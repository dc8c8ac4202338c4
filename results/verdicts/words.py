"""Verdicts in sentences."""

from collections.abc import Sequence
from pathlib import Path

from results.record.run import RunRecord
from results.record.schema import SWEPT
from results.verdicts.comparison import confirmations
from results.verdicts.equal_models import differing_parameters, find_twins
from results.verdicts.verdict import Verdict

MOST_NAMED = 5
"""Most trials that a sentence names; the others are counted."""


def verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    """One line per comparison, aligned."""
    pairs = [f"{one.first} against {one.second}" for one in verdicts]
    width = max(map(len, pairs), default=0)
    return [f"  {pair:{width}}  {one.words}" for pair, one in zip(pairs, verdicts, strict=True)]


def seed_words(record: RunRecord, verdicts: Sequence[Verdict]) -> str | None:
    """Which verdicts hold only for trained models, because configurations have too few replicates; None if none does.

    Args:
        record: the run's, or that of several runs as one.
        verdicts: the verdicts on its trials, or on groups of them.
    """
    judged = [one for one in verdicts if one.told_apart is not None]
    models = [one for one in judged if one.level == "models"]
    names = dict.fromkeys(name for one in models for name in (one.first, one.second))
    seeds = record.fresh_seeds()
    single = [name for name in names if (trial := record.trials.get(name)) is None or trial.config_hash not in seeds]
    if not models or (len(models) < len(judged) and not single):
        return None
    if all((trial := record.trials.get(name)) is not None and trial.stop_reason == SWEPT for name in names):
        return "All rows are one trained model: this compares ways to use it, not trainings."
    if len(models) == len(judged):
        repeated = any(trial.role == "replicate" for trial in record.trials.values())
        few = "Too few replicates" if repeated else "Only one training"
        return f"{few} per configuration so far: this compares models. Add seeds with --replicates 3."
    more = f" and {len(single) - MOST_NAMED} more" if len(single) > MOST_NAMED else ""
    have = "has" if len(single) == 1 else "have"
    return (
        f"{', '.join(single[:MOST_NAMED])}{more} {have} only one training: those lines compare models. Add seeds with "
        "--replicates 3."
    )


def confirmation_words(record: RunRecord, folder: Path) -> list[str]:
    """Whether the best configurations are better than the default on the confirmation images.

    Returns:
        Lines; empty if the run has no confirmation.
    """
    lines = []
    for one in confirmations(record, folder):
        difference, claimed = one.verdict.difference, one.claimed
        seen = "first training incomplete" if claimed is None else f"{claimed:+.3f} in the search"
        said = f"  {one.trial.trial_id} against the default: "
        if difference is None:
            lines.append(f"{said}{one.verdict.words}")
            continue
        said += seen
        reach = f"{difference.estimate:+.3f} [{difference.low:.3f}, {difference.high:.3f}]"
        verdict = "no significant difference" + ("" if claimed is None or claimed <= 0 else ", not confirmed")
        if one.verdict.told_apart:
            verdict = "confirmed, it is better" if difference.estimate > 0 else "the default is better"
        said += f"; {reach} with {one.seeds} replicates on the confirmation images: {verdict}"
        if claimed is not None and claimed > 0:
            flattered = claimed - difference.estimate
            if flattered > difference.high - difference.estimate:
                said += f"; selection raised its score in the search by {flattered:.3f}"
            elif flattered >= 0.0005:
                said += f"; {flattered:.3f} less than in the search, which may be chance"
        lines.append(said)
    return [f"confirmation ({record.metric} on images that the search did not use):", *lines] if lines else []


def twin_words(record: RunRecord) -> list[str]:
    """Warnings about parameters without effect: configurations that trained to the same weights as another one."""
    groups: dict[tuple[str, str], list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for trial_id, other in find_twins(record).items():
        first, second = record.trials[other], record.trials[trial_id]
        if (first.config_hash, second.config_hash) not in seen:  # replicates would repeat the warning
            seen.add((first.config_hash, second.config_hash))
            groups.setdefault((other, ", ".join(differing_parameters(first, second))), []).append(trial_id)
    return [
        f"warning: {', '.join(names)} trained to the same weights as {other}: {parameters} had no effect here"
        for (other, parameters), names in groups.items()
    ]


def length_words(record: RunRecord) -> list[str]:
    """Which configurations are not compared because they have fewer epochs than the run trains for now."""
    short, place = record.short(), "ranked last and " if record.behind() else ""
    groups: dict[int, list[str]] = {}
    for lead in record.settings():
        if lead.trial_id in short and record.value(lead) is not None:
            groups.setdefault(int(lead.config["optim.epochs"]), []).append(lead.trial_id)
    lines = []
    for epochs, names in sorted(groups.items(), reverse=True):
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append(
            f"{', '.join(sorted(names)[:MOST_NAMED])}{more}: planned for {epochs} epoch{'s' * (epochs != 1)}, the run "
            f"now trains for {record.epochs_now()}; {place}not compared with longer trainings"
        )
    return lines


ERROR = "error: "
"""Begins a line that is shown in red."""

CHECK_TOLERANCE = 1e-4
"""Largest difference between our mAP and that of another program for the same detections."""


def agrees(ours: float | None, theirs: float) -> bool:
    """Whether our mAP agrees with that of another program; None is not compared."""
    return ours is None or abs(ours - theirs) <= CHECK_TOLERANCE


def check_words(record: RunRecord) -> list[str]:
    """What another program says of the mAP of the best trial and of the retrained ones; a difference is an error."""
    trials = [record.winner(), *(trial for trial in record.trials.values() if trial.role == "retrain")]
    lines = []
    for trial in trials:
        scored = None if trial is None else trial.claim or trial.best(record.metric)
        if trial is None or scored is None or trial.checked is None or trial.checked.epoch != scored["epoch"]:
            continue
        ours, checked = scored.get("val_map"), trial.checked
        if agrees(ours, checked.map):
            lines.append(f"mAP of {trial.trial_id} checked by {checked.by}: {checked.map:.4f}")
        else:
            lines.append(
                f"{ERROR}the mAP of {trial.trial_id} is {ours:.4f} here and {checked.map:.4f} by {checked.by}; do not "
                "use this result, and report a bug"
            )
    return lines
