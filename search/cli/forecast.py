"""How much a search will train: forecast at its start, kept in run.json."""

from typing import Any, NamedTuple

from digits_core.data.cache import DigitData, images_per_epoch
from results.record.run import RunRecord
from results.record.schema import ENDED
from search.cli.settings import SearchSettings
from search.machine.cost import Speed, Workload, cost_of
from search.machine.subprocesses import Training
from search.policy.plan import Plan
from search.policy.replicates import most_further


class Done(NamedTuple):
    """What a run has trained already.

    Attributes:
        trials: configurations whose training has ended.
        further: replicates and confirmations whose training has ended.
        epochs: epochs of the ended trainings.
        longer: epochs by which the finished ones are extended.
    """

    trials: int = 0
    further: int = 0
    epochs: int = 0
    longer: int = 0


def done_of(record: RunRecord, plan: Plan) -> Done:
    """What a run has trained already, before it is resumed with a plan."""
    ended = [one for one in record.trials.values() if one.status in ENDED and one.role != "retrain"]
    whole, varied = plan.base.optim.epochs, "optim.epochs" in plan.space.fields()
    shorter = [] if varied else [one for one in ended if one.status == "finished" and one.role != "confirm"]
    return Done(
        sum(one.role == "search" and one.status != "screened" for one in ended),
        sum(one.role != "search" for one in ended),
        sum(len(one.epochs) for one in ended),
        sum(max(whole - int(one.config["optim.epochs"]), 0) for one in shorter),
    )


def workload(settings: SearchSettings, plan: Plan, data: DigitData, slots: int, done: Done) -> Workload:
    """How much a search still trains, in so many slots."""
    return Workload(
        trials=max(plan.trials - done.trials, 0),
        further=max(most_further(plan, plan.trials) - done.further, 0),
        epochs=plan.base.optim.epochs,
        images=images_per_epoch(len(data.train), plan.base.data.images_per_epoch),
        valid_images=len(data.valid),
        slots=slots,
        keep=settings.keep,
        scheduler=settings.scheduler,
        longer=done.longer,
        budget_s=settings.time_budget_s,
    )


def measured_training(settings: SearchSettings, plan: Plan, data: DigitData, *, gpu: bool) -> Training:
    """The training whose speed the forecast of a search is made from."""
    return Training(plan.probe_config(), settings.data, data.fingerprint, "auto" if gpu else "cpu")


def forecast(work: Workload, done: Done, speed: Speed | None) -> dict[str, Any]:
    """The entry of the forecast in run.json.

    Args:
        work: what is still to train.
        done: what the run has trained already.
        speed: the measured speed of a slot; None gives no seconds, and the time budget is not counted.
    """
    cost = None if speed is None else cost_of(speed, work)
    return {
        "epochs": round(done.epochs + (work.expected_epochs if cost is None else cost.epochs)),
        "seconds": None if cost is None else round(cost.seconds, 1),
    }


def stored_forecast(about: dict[str, Any]) -> tuple[int, float | None] | None:
    """Epochs and seconds of the forecast in run.json; None in runs without one."""
    known = about.get("forecast")
    if not isinstance(known, dict):
        return None
    epochs, seconds = known.get("epochs"), known.get("seconds")
    if type(epochs) is not int or not 0 <= epochs < 2**53:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 2**53:
        return epochs, None
    return epochs, float(seconds)
