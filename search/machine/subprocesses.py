"""A few training steps of one setting in a process of their own, to be measured: `python -m MODULE`."""

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


class Child:
    """Such a process: it reads what it is asked from its first line, and its last line of output is JSON."""

    def __init__(
        self, module: str, config: TrainConfig, source: DataSource, fingerprint: str, *, threads: int, device: str
    ) -> None:
        """Start it.

        Args:
            module: what it runs.
            config: a setting of the search.
            source: its data.
            fingerprint: of the data.
            threads: CPU threads.
            device: `auto` or `cpu`.
        """
        asked = {
            "config": config.to_flat(),
            "data": dataclasses.asdict(source),
            "fingerprint": fingerprint,
            "threads": threads,
            "device": device,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment() | {"OMP_NUM_THREADS": str(threads)},
        )
        self.tell(json.dumps(asked))

    def tell(self, line: str) -> None:
        """Write it a line; one that has died is noticed by `result`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def line(self) -> str:
        """Wait for its next line; nothing where it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def result(self) -> dict[str, Any]:
        """Wait for its end, and what it found.

        Raises:
            UsageError: the training failed.
        """
        out, errors = self._process.communicate()
        if self._process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {self._process.returncode}"]
            raise UsageError(f"a few training steps of the first setting failed: {lines[-1]}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def read_asked() -> tuple[TrainConfig, DigitData, str]:
    """In the process itself: its setting, data and device; torch takes as many threads as were asked for."""
    import torch

    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(int(asked["threads"]))
    data = open_data(DataSource(**asked["data"]), fingerprint=asked["fingerprint"])
    return TrainConfig.from_flat(asked["config"]), data, str(asked["device"])
