"""What torch finds on this machine, asked in a process of its own.

The driver needs no torch: so it starts seconds sooner, while this process looks, and stays small.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from digits_core.config.train_config import ModelConfig, TrainConfig
from digits_core.errors import ConfigError, DeviceError, UsageError, UserError, WeightsError
from digits_core.labels import NUM_CLASSES


@dataclass(frozen=True, slots=True)
class Findings:
    """What there is to train on.

    Attributes:
        num_cores: cores this process may use.
        num_gpus: GPUs that the driver names, whether torch can use them or not.
        torch_fault: why torch cannot be used at all, in a sentence; None when it can.
        gpu_fault: why torch cannot use the GPUs; None when it can, or there are none.
        model_fault: why the model of a setting cannot be built; None when all can.
        weights_fault: why the initial weights of a setting cannot be had here; None when all can.
        left_out: what the initial weights of the first setting hold and it has no place for, in words; None where all
            was taken.
    """

    num_cores: int
    num_gpus: int
    torch_fault: str | None
    gpu_fault: str | None
    model_fault: str | None = None
    weights_fault: str | None = None
    left_out: str | None = None

    def resources(self) -> dict[str, float]:
        """As Ray counts them."""
        return {"CPU": float(self.num_cores), "GPU": float(self.num_gpus)}

    def check(self, gpus_per_trial: float | None) -> None:
        """Refuse what cannot work.

        Raises:
            UsageError: torch and torchvision do not belong together, or one is missing.
            DeviceError: GPUs are there and wanted, but torch cannot use them.
            ConfigError: a model cannot be built.
            WeightsError: initial weights cannot be loaded.
        """
        if self.torch_fault is not None:
            raise UsageError(self.torch_fault)
        if self.gpu_fault is not None and gpus_per_trial != 0:
            raise DeviceError(self.gpu_fault)
        self.check_models()
        if self.weights_fault is not None:
            raise WeightsError(self.weights_fault)

    def check_models(self) -> None:
        """Refuse what can work nowhere.

        Raises:
            ConfigError: a model cannot be built.
        """
        if self.model_fault is not None:
            raise ConfigError(self.model_fault)


def look(settings: Mapping[str, TrainConfig], num_classes: int = NUM_CLASSES) -> Findings:
    """Import torch and torchvision in this process, try them, and see that the model of every setting can be built.

    Args:
        settings: by the names of their baselines; the first is the one that all trials start from.
        num_classes: of the models, the background among them.
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
            f"torch and torchvision do not fit each other ({str(error).splitlines()[0]}); install both from the "
            "package registry: a CPU-only torch beside the registry's torchvision does not work"
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
                f"{str(error).splitlines()[0]}; update the driver, install a torch built for it, or take the CPU "
                "(--gpus-per-trial 0, for a retraining --gpus 0)"
            )
    return replace(_look_at_models(settings, num_classes), num_cores=cores, num_gpus=num_gpus, gpu_fault=gpu_fault)


def _look_at_models(settings: Mapping[str, TrainConfig], num_classes: int) -> Findings:
    """What would fail in every trial of a setting: better once, before the first."""
    from digits_core.model.build import check_model

    left_out = weights_fault = None
    checked: set[ModelConfig] = set()
    for name, config in settings.items():
        if config.model in checked:
            continue
        words = f"baseline '{name}' cannot be built: " if checked else ""
        try:
            loaded = check_model(config, num_classes=num_classes)
            left_out = left_out if checked else loaded.words
        except WeightsError as error:
            weights_fault = weights_fault or f"{words}{error}"
        except UserError as error:
            return Findings(0, 0, None, None, model_fault=f"{words}{error}")
        checked.add(config.model)
    return Findings(0, 0, None, None, weights_fault=weights_fault, left_out=left_out)


def usable_cores() -> int:
    """Cores that this process may use: by affinity, and by the CPU quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def child_environment() -> dict[str, str]:
    """For a process of our own that imports these packages, wherever it was started."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


class Probe:
    """A look that is under way in another process."""

    def __init__(self, settings: Mapping[str, TrainConfig]) -> None:
        """Start looking, at the machine and at the models of settings by the names of their baselines."""
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
        """Wait for what was found, with models of so many classes.

        Raises:
            UsageError: the process died, as it does when a library of torch cannot be loaded.
        """
        out, errors = self._process.communicate(json.dumps([num_classes, self._settings]))
        if self._process.returncode:
            lines = errors.strip().splitlines() or [f"exit code {self._process.returncode}"]
            raise UsageError(f"torch cannot be used here: {lines[-1]}")
        return Findings(**json.loads(out.splitlines()[-1]))


if __name__ == "__main__":
    classes, told = json.load(sys.stdin)
    print(json.dumps(asdict(look({name: TrainConfig.from_flat(flat) for name, flat in told.items()}, classes))))
