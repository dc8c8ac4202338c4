"""The forecast of a search against what is trained, on scores of trainings on drawn data."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from history import History

from conftest import report
from digits_core.config.train_config import TrainConfig
from results.record.folder import read_run_file
from results.record.run import RunRecord
from search.cli.forecast import Done, done_of, forecast, stored_forecast, workload
from search.cli.run_folder import open_folder
from search.cli.settings import SearchSettings, make_plan
from search.cli.values import data_source
from search.defaults import GRACE_EPOCHS, REDUCTION_FACTOR
from search.driver import forecast_of
from search.dry_run import cost_lines
from search.machine import cost
from search.machine.cost import Speed
from search.machine.subprocesses import Training
from search.monitor.summary import forecast_words
from search.policy.decisions import Policy, how_it_ended
from search.policy.plan import Plan
from search.policy.replicates import Idle
from spaces.catalogue import SPACES

BANK = Path(__file__).parents[3] / "benchmarks" / "bank.parquet"


@pytest.fixture(scope="module")
def curves():
    """The score of every epoch of trainings on drawn data, a list for each."""
    found = {}
    for row in pq.read_table(BANK, columns=["trial_id", "epoch", "val_map"]).to_pylist():
        found.setdefault(row["trial_id"], []).append((row["epoch"], row["val_map"]))
    return [[value for _, value in sorted(one)] for one in found.values()]


def searched(plan, curves, slots=2):
    """The record of a search by the real policy, whose trials have the scores of the given curves."""
    run = {"epochs": plan.base.optim.epochs, "asha": [GRACE_EPOCHS, REDUCTION_FACTOR]}
    history, policy = History(**run), Policy(plan)
    scores, running = {}, []
    while True:
        action = policy.next_action(history.record, running)
        while len(running) < slots and not isinstance(action, Idle):
            name = action.trial_id
            if name not in history.record.trials:
                history.add(name, action.role, action.proposed)
                scores[name] = curves[len(scores)]
            running.append(name)
            action = policy.next_action(history.record, running)
        if not running:
            return history.record
        for name in list(running):
            epoch = len(history.record.trials[name].epochs) + 1
            value = scores[name][epoch - 1]
            cut = policy.judge(history.record, name, epoch, value)
            history.tell("report", trial_id=name, **report(epoch, value), **({"cut": cut} if cut else {}))
            if cut or epoch == plan.base.optim.epochs:
                end = how_it_ended(history.record.trials[name])
                history.tell("end", trial_id=name, status="stopped" if cut else "finished", reason=end.reason)
                running.remove(name)


@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
@pytest.mark.parametrize(("trials", "epochs", "more"), [
    (12, 4, {}), (15, 8, {}), (12, 8, {"replicates": 3, "replicate_top": 2}), (24, 8, {}),
])  # fmt: skip
def test_the_forecast_is_near_what_is_trained(curves, tiny_data, scheduler, trials, epochs, more):
    settings = SearchSettings(
        space="lr_schedules", sampler="random", scheduler=scheduler, trials=trials, epochs=epochs, **more
    )
    plan = make_plan(settings)
    expected = forecast(workload(settings, plan, tiny_data, 2, Done()), Done(), None)["epochs"]
    for seed in range(2):
        record = searched(plan, random.Random(seed).sample(curves, len(curves)))
        trained = sum(len(one.epochs) for one in record.trials.values())
        assert expected / 1.5 <= trained <= expected * 1.5, (seed, trained, expected)


def test_what_is_trained_already_is_not_forecast_again(curves, tiny_data):
    settings = SearchSettings(space="lr_schedules", sampler="random", scheduler="none", trials=4, epochs=3)
    plan = make_plan(settings)
    record = searched(plan, curves)
    done = done_of(record, plan)
    assert (done.trials, done.epochs) == (4, 12)
    assert forecast(workload(settings, plan, tiny_data, 2, done), done, None)["epochs"] == 12
    longer = make_plan(SearchSettings(space="lr_schedules", sampler="random", scheduler="none", trials=6, epochs=5))
    done = done_of(record, longer)
    assert forecast(workload(settings, longer, tiny_data, 2, done), done, None)["epochs"] == 4 * 5 + 2 * 5


def test_seconds_are_forecast_from_what_a_dry_run_has_measured(tiny_folder, tiny_data, monkeypatch):
    settings = SearchSettings(space="lr_schedules", data=data_source(str(tiny_folder)), trials=4, epochs=2)
    plan, machine = make_plan(settings), {"CPU": 2.0, "GPU": 0.0}
    assert forecast_of(settings, plan, tiny_data, machine, None) == {"epochs": 8, "seconds": None}
    speed = Speed(train_per_second=8, eval_per_second=4, peak_memory_bytes=1, num_parameters=1)

    class Measured:
        def __init__(self, module, training, *, threads):
            pass

        def result(self):
            return {"train_per_second": 8, "eval_per_second": 4, "peak_memory_bytes": 1, "num_parameters": 1}

    monkeypatch.setattr(cost, "Child", Measured)
    training = Training(plan.probe_config(), settings.data, tiny_data.fingerprint, "cpu")
    assert cost.measure(training, threads=1) == speed
    assert forecast_of(settings, plan, tiny_data, machine, None) == {"epochs": 8, "seconds": 8.0}  # 2 s an epoch
    assert forecast_of(settings, plan, tiny_data, {}, None)["seconds"] is None  # a cluster
    for content in ("{}", "nonsense", '{"train_per_second": 0}'):
        cost._speed_file(training, 1).write_text(content)
        assert cost.measured(training, threads=1) is None


def test_the_forecast_is_kept_in_run_json_and_told_at_the_end(tmp_path, tiny_folder, tiny_data):
    settings = SearchSettings(
        space="lr_schedules", data=data_source(str(tiny_folder)), out=str(tmp_path), name="r", trials=4, epochs=2
    )
    plan = make_plan(settings)
    open_folder(
        settings, plan, tiny_data, tmp_path / "r", lock=None, command=None,
        forecast=lambda record: {"epochs": 8, "seconds": None if record is None else 1.0},
    ).close()  # fmt: skip
    about = read_run_file(tmp_path / "r")
    assert stored_forecast(about) == (8, None)
    history = History()
    assert forecast_words(about, history.record) == []  # nothing was trained
    policy = Policy(Plan(SPACES["lr_schedules"], TrainConfig(), 1, sampler="random"))
    history.add("t0000", "search", policy.next_action(history.record).proposed)
    history.tell("start", trial_id="t0000")
    history.tell("report", trial_id="t0000", **report(1, 0.5))
    history.tell("end", trial_id="t0000", status="finished", reason=None)
    assert forecast_words(about, history.record) == ["forecast 8 epochs, trained 1"]
    timed = {"forecast": {"epochs": 8, "seconds": 300}}
    assert forecast_words(timed, history.record) == ["forecast 8 epochs in 5 min, trained 1 in 1 s"]


@pytest.mark.parametrize(
    "about", [{}, {"forecast": None}, {"forecast": []}, {"forecast": {"epochs": "8"}}, {"forecast": {"epochs": -1}}]
)
def test_a_run_without_a_forecast_is_read(about):
    assert stored_forecast(about) is None
    assert forecast_words(about, RunRecord("old")) == []


def test_a_damaged_number_of_seconds_is_left_out():
    for seconds in ("1", -1, float("nan"), True, 1e300, None):
        assert stored_forecast(json.loads(json.dumps({"forecast": {"epochs": 8, "seconds": seconds}}))) == (8, None)


@pytest.mark.parametrize(
    ("budget_s", "said"),
    [(None, None), (6, "time budget: 6 s, enough for about 6 of these epochs"), (900, "more than these epochs need")],
)
def test_a_dry_run_counts_the_time_budget(tiny_folder, tiny_data, budget_s, said):
    settings = SearchSettings(
        space="lr_schedules", data=data_source(str(tiny_folder)), scheduler="none", trials=4, epochs=2,
        time_budget_s=budget_s,
    )  # fmt: skip
    speed = Speed(train_per_second=8, eval_per_second=4, peak_memory_bytes=1, num_parameters=1)  # 2 s an epoch
    work = workload(settings, make_plan(settings), tiny_data, 2, Done())
    first, *more, last = cost_lines(work, cost.cost_of(speed, work))
    assert first == "forecast: about 8 epochs"
    assert last.startswith(f"would take: about {min(8, budget_s or 8)} s of training after the start")
    assert len(more) == (said is not None)
    assert said is None or said in more[0]
