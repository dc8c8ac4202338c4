"""Why a trial failed, and the change to its config for a restart."""

import pytest

from digits_core.config.train_config import TrainConfig
from results.record.run import RunRecord
from results.record.trial import TrialRecord
from search.policy.faults import Fault, change_to_retry, classify

TRACEBACK = """Failure # 1 (occurred at 2026-01-01_00-00-00)
ray::ImplicitFunc.train() (pid=19436, repr=run_trial)
  File "train.py", line 242, in train_step
    raise DivergedError(f"step: {named}")
"""

DEATH = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
	class_name: ImplicitFunc
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker
unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The process is
killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRACEBACK + "digits_core.errors.DivergedError: step 3: nan", ("diverged", "step 3: nan")),
        (TRACEBACK + "torch.OutOfMemoryError: CUDA out of memory.", ("out_of_memory", "CUDA out of memory.")),
        (TRACEBACK + "MemoryError: no room", ("out_of_memory", "no room")),
        (
            TRACEBACK
            + "RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory",
            ("out_of_memory", "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        ),
        ("ray.exceptions.OutOfMemoryError: Task was killed", ("out_of_memory", "Task was killed")),
        (TRACEBACK + "search.tune.trainable.RefusedError: no weights", ("failed", "no weights")),
        (TRACEBACK + "search.tune.trainable.RefusedError: node died in its name", ("failed", "node died in its name")),
        (TRACEBACK + "ValueError: five\nnote", ("failed", "ValueError: five")),
        (TRACEBACK + "OSError: [Errno 28] No space left on device", ("disk_full", "the disk was full")),
        (DEATH, ("worker_died", "its process died")),
        (
            "The actor d81a is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed",
            ("worker_died", "its process died"),
        ),
        (
            "OSError: When testing for existence of bucket 'x': AWS Error UNKNOWN (HTTP status 500)",
            ("storage", "its checkpoint could not be read from or written to the storage"),
        ),
        ("ray.exceptions.ActorDiedError: " + DEATH, ("worker_died", "its process died")),
        ("The actor died because its node has died. Node Id: 1", ("node_lost", "its node was lost")),
        ("", ("failed", "unknown error")),
    ],
)
def test_errors_of_trials_become_a_kind_and_one_line(text, expected):
    assert classify(text) == expected


def trial(*faults, **parameters):
    config = TrainConfig.from_flat(parameters)
    found = TrialRecord("t0000", "s", None, config.to_flat(), "x", 0, {})
    found.faults = [{"fault": kind, "reason": reason, "epoch": 1} for kind, reason in faults]
    return found


DIED, OOM, FULL = ("worker_died", "its process died"), ("out_of_memory", "no room"), ("disk_full", "full")


@pytest.mark.parametrize(
    ("before", "fault", "expected"),
    [
        ([], DIED, {}),
        ([DIED], DIED, {}),
        ([DIED, DIED], DIED, None),
        ([DIED, DIED], OOM, None),
        ([FULL] * 9, DIED, {}),
        ([DIED, DIED], FULL, {}),  # no fault of the trial
        ([], ("failed", "ValueError: five"), None),  # it would give the same again
        ([], ("diverged", "step 3: nan"), {}),
        ([("diverged", "step 3: nan")], ("diverged", "step 3: nan"), None),
        ([("diverged", "step 3: nan")], ("diverged", "step 9: nan"), {}),
        ([], OOM, {"runtime.micro_batch": 4}),
        ([DIED], OOM, {"runtime.micro_batch": 4}),
        ([OOM], OOM, None),  # once more, not again and again
        ([OOM], DIED, {}),
    ],
)
def test_what_a_trial_is_started_again_with(before, fault, expected):
    assert change_to_retry(trial(*before), Fault(*fault), 2) == expected


def test_half_of_a_batch_is_of_what_goes_through_at_once():
    assert change_to_retry(trial(**{"runtime.micro_batch": 5}), Fault(*OOM), 2) == {"runtime.micro_batch": 3}
    assert change_to_retry(trial(**{"optim.batch_size": 1}), Fault(*OOM), 2) is None
    assert change_to_retry(trial(), Fault(*OOM), 0) is None
    waiting = trial(*[FULL] * 19)
    waiting.epochs = {1: {}}
    assert change_to_retry(waiting, Fault(*FULL), 0) == {}
    waiting.faults.append(waiting.faults[0])
    assert change_to_retry(waiting, Fault(*FULL), 0) is None  # nobody sees to it
    staged = trial(**{"optim.epochs": 2, "optim.stages": "1 optim.batch_size=32; 1 optim.batch_size=4"})
    assert change_to_retry(staged, Fault(*OOM), 2) == {"runtime.micro_batch": 16}


def test_a_fault_is_in_the_record_with_what_it_changed():
    record = RunRecord("r")
    record.trials["t0000"] = trial()
    time = "2026-01-01T00:00:00+00:00"
    event = {"n": 1, "time": time, "kind": "fault", "trial_id": "t0000", "fault": "out_of_memory", "reason": "no room"}
    record.apply(event | {"epoch": 2, "change": {"runtime.micro_batch": 4}})
    found = record.trials["t0000"]
    assert found.status == "interrupted"
    assert found.config["runtime.micro_batch"] == 4
    assert found.faults == [{"fault": "out_of_memory", "reason": "no room", "epoch": 2}]
