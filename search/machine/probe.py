"""What torch finds on this machine, checked in a separate process.

The driver does not import torch: it starts seconds sooner, while this process checks, and needs less memory.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from digits_core.config.train_config import ModelConfig, TrainConfig
from digits_core.errors import ConfigError, DeviceError, DownloadError, UsageError, UserError, WeightsError
from digits_core.labels import NUM_CLASSES


@dataclass(frozen=True, slots=True)
class Findings:
    """The hardware to train on, and what cannot work.

    Attributes:
        num_cores: CPU cores that this process may use.
        num_gpus: GPUs that the GPU driver lists, also those that torch cannot use.
        torch_fault: why torch cannot be used at all, in a sentence; None if it can.
        gpu_fault: why torch cannot use the GPUs; None if it can, or there are none.
        model_fault: why the model of a configuration cannot be built; None if all can.
        weights_fault: why the initial weights of a configuration cannot be loaded here; None if all can.
        download_fault: why the initial weights of a configuration cannot be downloaded here; None if all can.
        left_out: which initial weights of the first configuration do not fit its model and are not loaded, in words;
            None if all fit.
    """

    num_cores: int
    num_gpus: int
    torch_fault: str | None
    gpu_fault: str | None
    model_fault: str | None = None
    weights_fault: str | None = None
    download_fault: str | None = None
    left_out: str | None = None

    def resources(self) -> dict[str, float]:
        """Cores and GPUs under Ray's names."""
        return {"CPU": float(self.num_cores), "GPU": float(self.num_gpus)}

    def check(self, gpus_per_trial: float | None) -> None:
        """Raise an error if the search cannot work on this machine.

        Raises:
            UsageError: torch and torchvision are incompatible, or one is missing.
            DeviceError: the search needs the GPUs, but torch cannot use them.
            ConfigError: a model cannot be built.
            WeightsError: initial weights cannot be loaded.
        """
        if self.torch_fault is not None:
            raise UsageError(self.torch_fault)
        if self.gpu_fault is not None and gpus_per_trial != 0:
            raise DeviceError(self.gpu_fault)
        self.check_models()
        for fault in (self.weights_fault, self.download_fault):
            if fault is not None:
                raise WeightsError(fault)

    def check_models(self) -> None:
        """Raise an error if the search cannot work on any machine.

        Raises:
            ConfigError: a model cannot be built.
        """
        if self.model_fault is not None:
            raise ConfigError(self.model_fault)


def look(settings: Mapping[str, TrainConfig], num_classes: int = NUM_CLASSES) -> Findings:
    """Try torch and torchvision in this process, and check that the model of every configuration can be built.

    Args:
        settings: configurations by the names of their baselines; all trials start from the first one.
        num_classes: classes of the models, including the background.
    """
    cores = usable_cores()
    try:
        import torch
        import torchvision.ops

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except ImportError as error:
        fault = f"torch or torchvision cannot be imported ({error}); install both as the README says"
        return Findings(cores, 0, fault, None)
    except (RuntimeError, NotImplementedError) as error:
        fault = (
            f"torch and torchvision are not compatible ({str(error).splitlines()[0]}); install both from the "
            "package registry: a CPU-only torch does not work with the registry's torchvision"
        )
        return Findings(cores, 0, fault, None)
    num_gpus = torch.cuda.device_count()
    gpu_fault = None
    if num_gpus:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            gpu_fault = (
                f"this machine has {num_gpus} GPU(s), but torch {torch.__version__} cannot use them: "
                f"{str(error).splitlines()[0]}; update the driver, install a torch built for it, or use the CPU "
                "(--gpus-per-trial 0, for a retraining --gpus 0)"
            )
    return replace(_look_at_models(settings, num_classes), num_cores=cores, num_gpus=num_gpus, gpu_fault=gpu_fault)


def _look_at_models(settings: Mapping[str, TrainConfig], num_classes: int) -> Findings:
    """Find what would fail in every trial of a configuration, before the first trial starts."""
    from digits_core.model.build import check_model

    left_out = weights_fault = download_fault = None
    checked: set[ModelConfig] = set()
    for name, config in settings.items():
        if config.model in checked:
            continue
        words = f"baseline '{name}' cannot be built: " if checked else ""
        try:
            loaded = check_model(config, num_classes=num_classes)
            left_out = left_out if checked else loaded.words
        except DownloadError as error:
            download_fault = download_fault or f"{words}{error}"
        except WeightsError as error:
            weights_fault = weights_fault or f"{words}{error}"
        except UserError as error:
            return Findings(0, 0, None, None, model_fault=f"{words}{error}")
        checked.add(config.model)
    return Findings(0, 0, None, None, weights_fault=weights_fault, download_fault=download_fault, left_out=left_out)


def usable_cores() -> int:
    """The CPU cores that this process may use, by its affinity and the CPU quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def child_environment() -> dict[str, str]:
    """The environment for a child process: it can import these packages from any working directory."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


class Probe:
    """A check that runs in another process."""

    def __init__(self, settings: Mapping[str, TrainConfig]) -> None:
        """Start to check the machine and the models of configurations, given by the names of their baselines."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "search.machine.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        )
        self._settings = {name: config.to_flat() for name, config in settings.items()}

    def findings(self, num_classes: int = NUM_CLASSES) -> Findings:
        """Wait for the result, with models of `num_classes` classes.

        Raises:
            UsageError: the process died, for example because a library of torch cannot be loaded.
        """
        out, errors = self._process.communicate(json.dumps([num_classes, self._settings]))
        if self._process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {self._process.returncode}"]
            raise UsageError(f"torch cannot be used here: {lines[-1]}")
        return Findings(**json.loads(out.splitlines()[-1]))


if __name__ == "__main__":
    with contextlib.suppress(Exception):  # `look` says what is wrong
        import digits_core.model.build  # noqa: F401  # takes seconds, in which the driver prepares its question
    classes, flats = json.load(sys.stdin)
    print(json.dumps(asdict(look({name: TrainConfig.from_flat(flat) for name, flat in flats.items()}, classes))))
