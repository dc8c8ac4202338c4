"""Checkpoints: folders with safetensors and JSON files; loading one runs no code from it.

A folder contains `model.safetensors`, `config.json` and `classes.json`; if training can resume from it, also
`training.safetensors` (optimiser state) and `state.json` (epoch, best score).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from digits_core.config.train_config import TrainConfig
from digits_core.errors import WeightsError, printable
from digits_core.files import CLASSES_FILE, CONFIG_FILE, MODEL_FILE, STATE_FILE, TRAINING_FILE, read_text
from digits_core.labels import DIGITS, Categories
from digits_core.model.checkpoint_state import TrainingState, load_state


def save_model(
    folder: Path, model: nn.Module, config: TrainConfig, *, categories: Categories = DIGITS, half: bool = False
) -> None:
    """Write weights and configuration into `folder`, which is created if necessary.

    Args:
        folder: a new folder; nothing may read it before this function returns.
        model: any module; its state is copied to the CPU.
        config: stored with the weights.
        categories: the classes of the model's labels, stored too.
        half: store floating-point tensors as float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / MODEL_FILE)
    (folder / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
    classes = {"ids": categories.ids, "names": categories.names}
    (folder / CLASSES_FILE).write_text(json.dumps(classes), encoding="utf-8")


AVERAGE = "average"
"""Prefix of the tensors of a moving average in the file of the optimiser."""


def save_training(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    average: nn.Module | None = None,
) -> None:
    """Write the optimiser, the moving average of the weights if there is one, and the training state."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    averaged = {} if average is None else average.state_dict()
    tensors: dict[str, Tensor] = {
        f"{AVERAGE}:{name}": value.detach().cpu().contiguous() for name, value in averaged.items()
    }
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{names[id(parameter)]}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(tensors, folder / TRAINING_FILE)
    values = {name: getattr(state, name) for name in ("epoch", "step", "best_epoch", "best_value")}
    (folder / STATE_FILE).write_text(json.dumps(values), encoding="utf-8")


def load_tensors(folder: Path, file: str = MODEL_FILE) -> dict[str, Tensor]:
    """The tensors of a checkpoint folder.

    Raises:
        WeightsError: no such file, or not a safetensors file.
    """
    path = folder / file
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; {no_checkpoint(folder)}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from None


def load_config(folder: Path) -> TrainConfig:
    """The configuration in a checkpoint folder.

    Raises:
        WeightsError: no such file.
        ConfigError: the configuration is not valid.
    """
    path = folder / CONFIG_FILE
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError):
        raise WeightsError(no_checkpoint(folder)) from None
    return TrainConfig.from_json(text, str(path))


def no_checkpoint(folder: Path) -> str:
    """A sentence that says why a folder is not a checkpoint."""
    name = printable(str(folder))
    if not folder.is_dir():
        return f"{name}: no such folder; digit-search retrain trains the model of a deleted checkpoint again"
    inside = sorted(one.parent for depth in ("*", "*/*") for one in folder.glob(f"{depth}/{MODEL_FILE}"))
    more = f"; it contains these checkpoints: {', '.join(printable(str(one)) for one in inside[:3])}" if inside else ""
    return f"{name}: is not a checkpoint, which is a folder with {MODEL_FILE} and {CONFIG_FILE}{more}"


def load_categories(folder: Path) -> Categories:
    """The classes of a checkpoint's labels; the digits if the checkpoint does not contain classes.

    Raises:
        WeightsError: the file is damaged.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return DIGITS
    try:
        tree = json.loads(read_text(path))
        return Categories(tuple(int(number) for number in tree["ids"]), tuple(str(name) for name in tree["names"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from None


def load_model(folder: Path, model: nn.Module) -> None:
    """Load a checkpoint into a model with exactly the same tensors.

    Raises:
        WeightsError: the checkpoint is missing, damaged or of another shape.
    """
    tensors = load_tensors(folder)
    own = model.state_dict()
    cast = {name: tensor.to(own[name].dtype) if name in own else tensor for name, tensor in tensors.items()}
    try:
        model.load_state_dict(cast)
    except RuntimeError as error:
        raise WeightsError(
            f"{folder / MODEL_FILE} does not fit its configuration: {str(error).splitlines()[-1].strip()}"
        ) from None


def load_training(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> TrainingState:
    """Load weights, optimiser state and the moving average, and return the training state.

    Raises:
        WeightsError: the checkpoint is missing, damaged or of another shape.
    """
    load_model(folder, model)
    parameters = dict(model.named_parameters())
    tensors = load_tensors(folder, TRAINING_FILE)
    averaged = {key.removeprefix(f"{AVERAGE}:"): tensors.pop(key) for key in list(tensors) if key.startswith(AVERAGE)}
    if average is not None:
        try:
            average.load_state_dict(averaged)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise WeightsError(f"{folder / TRAINING_FILE} has no average that fits its model: {reason}") from None
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition(":")
        if name not in parameters:
            raise WeightsError(f"{folder / TRAINING_FILE} does not fit its model: unknown parameter {name}")
        parameter = parameters[name]
        if tensor.ndim and tensor.shape != parameter.shape:
            raise WeightsError(f"{folder / TRAINING_FILE} does not fit its model: {key} has another shape")
        # The fused optimisers need all state on one device, in the memory layout of the parameter.
        moved = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor) if tensor.ndim else tensor
        optimizer.state[parameter][slot] = moved.to(parameter.device)
    return load_state(folder)
