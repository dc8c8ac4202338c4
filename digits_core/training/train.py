"""train(config, data, report): the core training function, free of Ray."""

import contextlib
import dataclasses
import gc
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torchvision.models.detection import FasterRCNN

from digits_core.config.train_config import Stage, TrainConfig
from digits_core.data.augment import Augmentation, Processing
from digits_core.data.batches import epoch_batches, load_batch, steps_per_epoch
from digits_core.data.cache import DigitData, Split
from digits_core.errors import DeviceError, DivergedError, printable, reason_of
from digits_core.evaluation.detect import SCORE_FLOOR
from digits_core.evaluation.evaluate import Evaluation, evaluate
from digits_core.evaluation.metrics import Scores
from digits_core.files import BEST_FOLDER
from digits_core.model.build import Loaded, build_model, read_back
from digits_core.model.checkpoint import load_training, save_model, save_training
from digits_core.model.checkpoint_state import TrainingState, load_state
from digits_core.seeds import derived_seed
from digits_core.training.optim import build_optimizer, lr_at, set_lr
from digits_core.training.parallel import ALONE, World

NO_SCORES = Scores(None, None, None, None, None)

FREEING_S = 20.0
"""The longest wait for the memory of a process that died."""

LOSSES = ("loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochMetrics:
    """What one epoch gave: one row of epochs.parquet.

    Attributes:
        epoch: from 1.
        train_loss: mean over the epoch's images of the four losses' sum.
        loss_classifier, loss_box_reg, loss_objectness, loss_rpn_box_reg: the four, likewise.
        lr: learning rate of the epoch's last step.
        train_map, train_map_50: COCO AP on `runtime.train_sample` training images, not augmented; None without any.
        val_loss: the four losses' sum on valid, mean over its images.
        val_map, val_map_50, val_map_75: COCO AP on valid at `detect.task1`; None when not measurable.
        val_digit_accuracy: valid digits read right at `detect.task2`, over all digits and stray detections.
        val_number_accuracy: share of validation images whose number is read right at `detect.task2`.
        images_per_second: training images over training seconds.
        peak_memory_bytes: largest so far: of the GPU in this training; on a CPU of the process, which may have
            trained others before.
        epoch_seconds: training, evaluation and saving; train_seconds and eval_seconds are parts of it.
        early_stopped: `optim.early_stop_epochs` ended the training here.
    """

    epoch: int
    train_loss: float
    loss_classifier: float
    loss_box_reg: float
    loss_objectness: float
    loss_rpn_box_reg: float
    lr: float
    train_map: float | None
    train_map_50: float | None
    val_loss: float | None
    val_map: float | None
    val_map_50: float | None
    val_map_75: float | None
    val_digit_accuracy: float | None
    val_number_accuracy: float | None
    images_per_second: float
    peak_memory_bytes: int | None
    epoch_seconds: float
    train_seconds: float
    eval_seconds: float
    early_stopped: bool


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch as `train` reports it.

    Attributes:
        metrics: the numbers.
        improved: whether the metric is the best so far, of this stage.
        checkpoint: a folder to go on from, with the best epoch's model in `best/`; its owner may move it.
            None when none was asked for.
        valid: the model on valid: raw detections and match tables; None where nothing is validated.
        confirm: the model on the part set apart to confirm; None when not asked for, or not the best so far.
        model: what the built model really has (`model.read_back`).
        device: the name of the GPU, or `cpu`.
    """

    metrics: EpochMetrics
    improved: bool
    checkpoint: Path | None
    valid: Evaluation | None
    confirm: Evaluation | None
    model: dict[str, object]
    device: str


Report = Callable[[EpochReport], None]


@dataclass(slots=True)
class Run:
    """The moving parts of one training.

    Attributes:
        config: the whole training's.
        stage: its part that the optimiser belongs to.
        loaded: what its initial weights were.
        world: the processes that train it together.
        forward: the model as training steps call it.
    """

    config: TrainConfig
    data: DigitData
    model: FasterRCNN
    optimizer: torch.optim.Optimizer
    device: torch.device
    dtype: torch.dtype
    state: TrainingState
    stage: Stage
    loaded: Loaded
    world: World
    forward: torch.nn.Module

    @property
    def steps_before(self) -> int:
        """Optimiser steps of the stages before this one."""
        before = (stage for stage in self.config.stages if stage.span.last < self.stage.span.first)
        return sum(stage.span.epochs * self.steps_per_epoch(stage) for stage in before)

    def steps_per_epoch(self, stage: Stage) -> int:
        """Optimiser steps of one epoch of a stage."""
        asked = self.config.data.images_per_epoch
        return steps_per_epoch(len(self.data.train), asked, stage.config.optim.batch_size)

    def enter(self, epoch: int) -> bool:
        """Begin the stage of an epoch with an optimiser of its own; whether it is another one than before."""
        stage = stage_of(self.config, epoch)
        if stage.span == self.stage.span:
            return False
        self.stage = stage
        self.optimizer = build_optimizer(self.model.parameters(), stage.config.optim)
        return True


def train(
    config: TrainConfig,
    data: DigitData,
    report: Report,
    *,
    metric: str = "val_map",
    score_floor: float = SCORE_FLOOR,
    confirm: bool = False,
    workdir: Path | None = None,
    resume_from: Path | None = None,
    device: str = "auto",
    world: World = ALONE,
    wait: Callable[[], None] = lambda: None,
    validate: bool = True,
    until: int | None = None,
) -> None:
    """Train one config and report every epoch.

    Stopping after epoch k and going on from its checkpoint equals running through; on one CPU thread
    bit for bit: every random draw of an epoch follows from the seed and the epoch's number.

    Args:
        config: every parameter.
        data: from `open_data`.
        report: called once per epoch; may raise to stop.
        metric: the score that says which epoch is best: `val_map`, `val_number_accuracy` or another.
        score_floor: raw detections are cut at it, or at a lower threshold of the config.
        confirm: score the best epochs on `data.confirm` too.
        workdir: where checkpoints are written, one new folder per epoch; None writes none.
        resume_from: a checkpoint folder of this config to go on from.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        world: the processes that train together; the first of them evaluates, saves and reports.
        wait: called once per epoch in the others.
        validate: whether valid is scored; else every epoch counts as better than the one before.
        until: the epoch to end after, its schedule unshortened; None trains all.

    Raises:
        DivergedError: a loss was not finite.
        DataError: the config cannot train on this data.
        DeviceError: the device is not there.
        WeightsError: initial weights or `resume_from` cannot be loaded.
    """
    run = open_run(config, data, resume_from=resume_from, device=device, world=world)
    facts = read_back(run.model) | {"left_out": list(run.loaded.left_out)}
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    sample = _train_sample(run)
    for epoch in range(run.state.epoch + 1, min(until or config.optim.epochs, config.optim.epochs) + 1):
        started = time.perf_counter()
        if run.enter(epoch):  # what a stage before reached is not this one's
            run.state = dataclasses.replace(run.state, best_epoch=0, best_value=None)
        losses, num_images = train_one_epoch(run, epoch)
        trained = time.perf_counter()
        if not world.leads:
            run.state = dataclasses.replace(run.state, epoch=epoch)
            wait()
            if world.agree(False):
                return
            continue
        valid = _evaluate(run, data.valid, score_floor) if validate else None
        if valid is not None and valid.loss is not None and not math.isfinite(valid.loss):
            raise DivergedError(f"epoch {epoch}: on valid the loss is not finite")
        scores = NO_SCORES if valid is None else valid.scores
        value = scores.named(metric) if validate else float(epoch)
        improved = value is not None and (run.state.best_value is None or value > run.state.best_value)
        run.state = dataclasses.replace(
            run.state,
            epoch=epoch,
            best_epoch=epoch if improved else run.state.best_epoch,
            best_value=value if improved else run.state.best_value,
        )
        confirmed = None
        if confirm and improved and data.confirm is not None:
            confirmed = _evaluate(run, data.confirm, score_floor)
        seen = None if sample is None else _evaluate(run, sample, score_floor).scores
        evaluated = time.perf_counter()
        checkpoint = None if workdir is None else _save(run, workdir, improved, resume_from)
        patience = config.optim.early_stop_epochs
        # Only the last stage may end the training, and not for what the stages before gained.
        last = run.stage.span.last == config.optim.epochs
        waited = epoch - max(run.state.best_epoch, run.stage.span.first - 1)
        early = bool(patience) and last and waited >= patience and epoch < config.optim.epochs
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=sum(losses.values()),
            **losses,
            lr=run.optimizer.param_groups[0]["lr"],
            train_map=None if seen is None else seen.map,
            train_map_50=None if seen is None else seen.map_50,
            val_loss=None if valid is None else valid.loss,
            val_map=scores.map,
            val_map_50=scores.map_50,
            val_map_75=scores.map_75,
            val_digit_accuracy=scores.digit_accuracy,
            val_number_accuracy=scores.number_accuracy,
            images_per_second=num_images / (trained - started),
            peak_memory_bytes=_peak_memory(run.device),
            epoch_seconds=time.perf_counter() - started,
            train_seconds=trained - started,
            eval_seconds=evaluated - trained,
            early_stopped=early,
        )
        report(EpochReport(metrics, improved, checkpoint, valid, confirmed, facts, _device_name(run.device)))
        if world.agree(early):
            return


def open_run(
    config: TrainConfig,
    data: DigitData,
    *,
    resume_from: Path | None = None,
    device: str = "auto",
    world: World = ALONE,
) -> Run:
    """Build the model and optimiser, or bring them back from a checkpoint."""
    data.check(config)
    chosen = choose_device(device)
    torch.manual_seed(derived_seed("weights", config.runtime.seed))
    model, loaded = build_model(config, num_classes=data.categories.num_classes)
    model.to(chosen).train()
    state = TrainingState(epoch=0, step=0, best_epoch=0, best_value=None)
    stage = stage_of(config, 1 if resume_from is None else load_state(resume_from).epoch)
    optimizer = build_optimizer(model.parameters(), stage.config.optim)
    if resume_from is not None:
        state = load_training(resume_from, model, optimizer)
    dtype = choose_dtype(config.runtime.precision, chosen)
    forward = world.wrap(model, chosen)
    return Run(config, data, model, optimizer, chosen, dtype, state, stage, loaded, world, forward)


def stage_of(config: TrainConfig, epoch: int) -> Stage:
    """The stage of a training that an epoch belongs to."""
    return next(stage for stage in config.stages if epoch <= stage.span.last)


def _train_sample(run: Run) -> Split | None:
    """The training images that are scored each epoch: the same ones for every config and seed."""
    asked, split = min(run.config.runtime.train_sample, len(run.data.train)), run.data.train
    if not asked:
        return None
    chosen = np.random.default_rng(derived_seed("train sample")).permutation(len(split))[:asked]
    return split.some(np.sort(chosen), "train")


def train_one_epoch(run: Run, epoch: int) -> tuple[dict[str, float], int]:
    """Train through the batches of one epoch.

    Returns:
        The four losses, mean over the epoch's images, and how many images there were.
    """
    optim = run.stage.config.optim
    seed = run.config.runtime.seed
    steps, steps_before = run.steps_per_epoch(run.stage), run.steps_before
    seeds = (seed, epoch) if run.world.leads else (seed, epoch, run.world.rank)
    torch.manual_seed(derived_seed("epoch", *seeds))
    sums = torch.zeros(len(LOSSES), device=run.device)
    num_images = 0
    change = Augmentation(run.stage.config.augment, seed, epoch)
    asked = run.config.data.images_per_epoch
    for indices in epoch_batches(run.data.train, seed=seed, epoch=epoch, batch_size=optim.batch_size, asked=asked):
        mine = run.world.share(indices)
        if len(indices) >= run.world.size:  # a last batch that does not go round trains nobody
            images, targets = load_batch(run.data.train, mine, run.device, change)
            set_lr(run.optimizer, lr_at(optim, run.state.step - steps_before, steps))
            weight = run.world.weight(len(mine), len(indices))
            sums += train_step(run, images, targets, weight) * len(mine)
            num_images += len(indices)
        run.state = dataclasses.replace(run.state, step=run.state.step + 1)
    means = (run.world.total(sums) / max(num_images, 1)).tolist()
    return dict(zip(LOSSES, means, strict=True)), num_images


def train_step(run: Run, images: list[Tensor], targets: list[dict[str, Tensor]], weight: float = 1.0) -> Tensor:
    """One optimiser step; `weight` is what these images count among those of all processes.

    No more than `runtime.micro_batch` images go through the model at once; gradients are averaged over the parts.

    Returns:
        The four losses in the order of `LOSSES`, mean over the images, float32 [4], on the run's device.

    Raises:
        DivergedError: the loss is not finite; names the step and the losses.
    """
    count = math.ceil(len(images) / (run.config.runtime.micro_batch or len(images)))
    means = torch.zeros(len(LOSSES), device=run.device)
    run.optimizer.zero_grad(set_to_none=True)
    for number, rows in enumerate(np.array_split(np.arange(len(images)), count), start=1):
        share = len(rows) / len(images)
        with run.world.apart(run.forward) if number < count else contextlib.nullcontext():
            with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
                loss_dict = run.forward([images[row] for row in rows], [targets[row] for row in rows])
            losses = torch.stack([loss_dict[name].float() for name in LOSSES])
            total = losses.sum()
            if not torch.isfinite(total):
                named = ", ".join(f"{name}={value:.3g}" for name, value in zip(LOSSES, losses.tolist(), strict=True))
                raise DivergedError(f"step {run.state.step}: the loss is not finite: {named}")
            (total * (weight * share)).backward()  # type: ignore[no-untyped-call]
        means += losses.detach() * share
    if run.stage.config.optim.max_grad_norm:
        clip_grad_norm_(run.model.parameters(), run.stage.config.optim.max_grad_norm)
    run.optimizer.step()
    return means


def _evaluate(run: Run, split: Split, floor: float) -> Evaluation:
    return evaluate(
        run.model,
        split,
        run.config.detect,
        floor,
        change=Processing(run.config.augment),
        batch_size=run.config.runtime.eval_batch_size,
        device=run.device,
        dtype=run.dtype,
    )


def choose_device(device: str) -> torch.device:
    """The device of `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        DeviceError: a GPU is asked for and none can be used; says whether the driver is too old.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen: torch.device | None
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N, got '{printable(device)}'")
    if chosen.type == "cuda":
        try:
            torch.zeros(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(f"device {device} cannot be used: {reason_of(error)}") from None
    return chosen


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic of forward passes: bfloat16 where asked, or where `auto` finds a device that has it natively."""
    native = computes_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.bfloat16 if native else torch.float32


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware, which then is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # older versions of torch do not tell
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def _save(run: Run, workdir: Path, improved: bool, resume_from: Path | None) -> Path:
    """Write a checkpoint that carries the best epoch's model along, so that the last one is enough."""
    folder, best = workdir / f"epoch_{run.state.epoch:04d}", workdir / BEST_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    categories = run.data.categories
    save_model(folder, run.model, run.config, categories=categories)
    save_training(folder, run.model, run.optimizer, run.state)
    if improved:
        shutil.rmtree(best, ignore_errors=True)
        save_model(best, run.model, run.config, categories=categories)
    elif not best.exists() and resume_from is not None and (resume_from / BEST_FOLDER).is_dir():
        shutil.copytree(resume_from / BEST_FOLDER, best)
    if best.exists():
        shutil.copytree(best, folder / BEST_FOLDER, copy_function=os.link)
    return folder


def free_memory(device: str) -> None:
    """Give back what a training before left in this process, and on a GPU wait while one that died gives back its own.

    A process that was killed leaves its memory to the driver, which takes a moment; nothing is waited for that stays.
    """
    gc.collect()
    if device == "cpu" or not torch.cuda.is_available():
        return
    torch.cuda.empty_cache()
    end, before = time.monotonic() + FREEING_S, -1
    while time.monotonic() < end:
        free, _ = torch.cuda.mem_get_info()
        if free <= before:
            return
        before = free
        time.sleep(0.1)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_memory(device: torch.device) -> int | None:
    """Largest so far: of the GPU, or of this process; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
