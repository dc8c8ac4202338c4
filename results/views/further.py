"""What further trainings or images would show about a difference, and how long the trainings would take."""

import math
from dataclasses import dataclass

from results.record.run import RunRecord
from results.record.trial import TrialRecord
from results.verdicts.effort import rounded_images
from results.verdicts.verdict import Verdict
from results.views.slots import timeline

REPLICATES = 3
"""Trainings per configuration that a recommendation proposes: a verdict on configurations needs as many."""


@dataclass(frozen=True, slots=True)
class Resume:
    """A resume that trains configurations again.

    Attributes:
        replicates, top: the values of --replicates and --replicate-top.
        trainings: how many trainings it starts.
        seconds: their time on the slots of the run; 0 if no training time is known.
        slots: the most slots that the run used at the same time.
    """

    replicates: int
    top: int
    trainings: int
    seconds: float
    slots: int

    @property
    def flags(self) -> str:
        """The flags of the resume."""
        return f"--replicates {self.replicates} --replicate-top {self.top}"

    @property
    def cost(self) -> str:
        """The trainings and their time, as words; empty if no training time is known."""
        if not self.seconds:
            return ""
        several = "s" * (self.trainings != 1)
        slots = f"{self.slots} slot{'s' * (self.slots != 1)}"
        return f"{self.trainings} training{several}, {_time_words(self.seconds)} on {slots}"


def resume_for(record: RunRecord, first: TrialRecord, second: TrialRecord, replicates: int) -> Resume:
    """The resume after which both configurations are trained `replicates` times, the first training included.

    A resume replicates the configurations with the best first trainings, so all above the lower of the two are trained
    again, too. A training of a configuration takes as long as those that it has.

    Args:
        record: the run's.
        first: the first training of one configuration.
        second: the first training of the other.
        replicates: trainings of each in total.
    """
    leads = record.whole_first_trainings()
    places = [place for place, lead in enumerate(leads, 1) if lead.trial_id in (first.trial_id, second.trial_id)]
    top = max([*places, REPLICATES])
    times = [
        _seconds_each(record, lead)
        for lead in leads[:top]
        for _ in range(replicates - 1 - _num_replicates(record, lead))
    ]
    slots = max(timeline(record)[0], 1)
    rounds = max(sum(times) / slots, max(times, default=0.0))
    return Resume(replicates, top, len(times), rounds, slots)


def _num_replicates(record: RunRecord, lead: TrialRecord) -> int:
    """Replicates of a configuration, whatever became of them: a resume does not repeat them."""
    digest = lead.config_hash
    return sum(trial.role == "replicate" and trial.config_hash == digest for trial in record.trials.values())


def _seconds_each(record: RunRecord, lead: TrialRecord) -> float:
    """Mean time of the finished trainings of a configuration, in a slot from start to end."""
    times = [
        max(trial.slot_seconds, _worked_seconds(trial))
        for trial in record.trials.values()
        if trial.config_hash == lead.config_hash and trial.status == "finished" and trial.role != "retrain"
    ]
    return sum(times) / len(times) if times else 0.0


def _worked_seconds(trial: TrialRecord) -> float:
    spent = [one.get(name) for one in trial.epochs.values() for name in ("train_seconds", "eval_seconds")]
    return float(sum(value for value in spent if value is not None))


def more_words(record: RunRecord, winner: TrialRecord, default: TrialRecord, against: Verdict) -> str:
    """What more replicates or images would show about the winner and the default, in a sentence; empty if nothing.

    Args:
        record: the run's.
        winner: the first training of the best configuration.
        default: that of the default.
        against: the verdict on the two; not significant.
    """
    if against.difference is None or not against.difference.estimate:
        return ""
    if not against.ways:
        return "No sensible number of replicates or images would show a difference this small."
    size = "would show a difference of this size" + (" between the two models" if against.level == "models" else "")
    said = []
    for way in against.ways:
        images = f"{rounded_images(way.images)} more validation images" if way.images else ""
        if not way.replicates:
            said.append((f"about {images}", ""))
            continue
        trained = 1 + min(_num_replicates(record, one) for one in (winner, default))
        resume = resume_for(record, winner, default, trained + way.replicates)
        several = "s" * (way.replicates != 1)
        together = f" together with about {images}" if images else ""
        cost = f": {resume.cost}" if resume.cost else ""
        said.append(
            (
                f"about {way.replicates} more replicate{several} of {winner.trial_id} and the default{together}",
                f" (resume the run with {resume.flags}{cost})",
            )
        )
    (first, how), *others = said
    return f"{first[0].upper()}{first[1:]} {size}{how}" + "".join(f"; or {one}{more}" for one, more in others) + "."


def _time_words(seconds: float) -> str:
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} minute{'s' * (minutes != 1)}"
    hours = seconds / 3600
    return f"about {hours:.1f} hours" if hours < 10 else f"about {math.ceil(hours)} hours"
