"""A few training steps in a separate process, for a measurement: `python -m MODULE`."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from typing import Any

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData, open_data
from digits_core.data.source import DataSource
from digits_core.errors import UsageError
from search.machine.probe import child_environment


@dataclasses.dataclass(frozen=True, slots=True)
class Training:
    """What a measurement trains.

    Attributes:
        config: a configuration of the search.
        source: the data.
        fingerprint: fingerprint of the data.
        device: `auto` or `cpu`.
    """

    config: TrainConfig
    source: DataSource
    fingerprint: str
    device: str = "auto"


class Child:
    """A measuring process: the first line of its input says what to train, the last line of its output is JSON."""

    def __init__(self, module: str, training: Training, *, threads: int) -> None:
        """Start the process.

        Args:
            module: the module that it runs.
            training: what it trains.
            threads: CPU threads.
        """
        request = {
            "config": training.config.to_flat(),
            "data": dataclasses.asdict(training.source),
            "fingerprint": training.fingerprint,
            "threads": threads,
            "device": training.device,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment() | {"OMP_NUM_THREADS": str(threads)},
        )
        self.write_line(json.dumps(request))

    def write_line(self, line: str) -> None:
        """Write a line to its input; if the process has died, `result` raises the error."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def read_line(self) -> str:
        """Wait for the next line of its output; empty if the process has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self) -> dict[str, Any]:
        """Wait for the end of the process; returns the JSON of its last line.

        Raises:
            UsageError: the training failed.
        """
        out, errors = self._process.communicate()
        if self._process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {self._process.returncode}"]
            raise UsageError(f"a few training steps of the first configuration failed: {lines[-1]}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def kill(self) -> None:
        """Kill the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def read_request() -> tuple[TrainConfig, DigitData, str]:
    """Called in the measuring process: reads config, data and device, and sets torch's number of threads."""
    import torch

    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(int(request["threads"]))
    data = open_data(DataSource(**request["data"]), fingerprint=request["fingerprint"])
    return TrainConfig.from_flat(request["config"]), data, str(request["device"])
