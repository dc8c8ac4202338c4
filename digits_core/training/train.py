"""train(config, data, report): the core training function; it does not use Ray."""

import contextlib
import dataclasses
import math
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from digits_core.config.train_config import Stage, TrainConfig
from digits_core.data.augment import Augmentation, Processing
from digits_core.data.batches import Batch, epoch_batches, load_batch, size_factor
from digits_core.data.cache import DigitData, Split, steps_per_epoch
from digits_core.devices import must_not_wait
from digits_core.errors import DivergedError
from digits_core.evaluation.detect import SCORE_FLOOR
from digits_core.evaluation.evaluate import Evaluation, evaluate
from digits_core.evaluation.metrics import Scores
from digits_core.files import BEST_FOLDER
from digits_core.model.build import build_model, read_back
from digits_core.model.checkpoint import load_training, save_model, save_training
from digits_core.model.checkpoint_state import TrainingState, load_state
from digits_core.model.detector import BatchDetector
from digits_core.seeds import derived_seed
from digits_core.training.average import Average
from digits_core.training.device import choose_device, choose_dtype, device_name, peak_memory
from digits_core.training.optim import build_optimizer, set_lr
from digits_core.training.parallel import ALONE, World
from digits_core.training.reports import LOSSES, EpochMetrics, EpochProgress, EpochReport, Report
from digits_core.training.schedule import lr_at

CHECKED_STEPS = 20
"""Steps on a GPU between two checks that the losses are finite: a check makes the CPU wait for the GPU."""

NO_SCORES = Scores(None, None, None, None, None)


@dataclass(slots=True)
class Run:
    """One training in progress.

    Attributes:
        config: of the whole training.
        stage: the part of the training that the optimiser belongs to.
        facts: what the built model really contains (`model.read_back`), and which initial weights were left out.
        train_sample: the training images that are scored after each epoch; None if there are none.
        world: the processes that train together.
        forward: the model as training steps call it.
        average: the moving average of the weights; None if no stage has one.
        unchecked: the losses of the steps since the last check that they are finite.
    """

    config: TrainConfig
    data: DigitData
    model: BatchDetector
    optimizer: torch.optim.Optimizer
    device: torch.device
    dtype: torch.dtype
    state: TrainingState
    stage: Stage
    facts: dict[str, object]
    train_sample: Split | None
    world: World
    forward: torch.nn.Module
    average: Average | None = None
    unchecked: dict[int, Tensor] = field(default_factory=dict)

    @property
    def scored(self) -> BatchDetector:
        """The model that is scored and kept: the average if the stage has one."""
        return self.model if self.average is None or not self.stage.config.optim.ema else self.average.model

    @property
    def steps_before(self) -> int:
        """Optimiser steps of the stages before this one."""
        before = (stage for stage in self.config.stages if stage.span.last < self.stage.span.first)
        return sum(stage.span.epochs * self.steps_per_epoch(stage) for stage in before)

    def steps_per_epoch(self, stage: Stage) -> int:
        """Optimiser steps of one epoch of a stage."""
        asked = self.config.data.images_per_epoch
        return steps_per_epoch(len(self.data.train), asked, stage.config.optim.batch_size)

    def enter(self, epoch: int) -> None:
        """If an epoch is the first of a stage, start that stage with a new optimiser and no best score."""
        stage = self.config.stage_at(epoch)
        if stage.span == self.stage.span:
            return
        self.stage = stage
        self.optimizer = build_optimizer(self.model.parameters(), stage.config.optim)
        if self.average is not None:
            self.average.restart(self.model)
        self.state = dataclasses.replace(self.state, best_epoch=0, best_value=None)

    def record_score(self, epoch: int, value: float | None) -> bool:
        """Record the score of a finished epoch; returns whether it is the best so far of this stage."""
        best = self.state.best_value
        improved = value is not None and (best is None or value > best)
        self.state = dataclasses.replace(self.state, epoch=epoch)
        if improved:
            self.state = dataclasses.replace(self.state, best_epoch=epoch, best_value=value)
        return improved

    @property
    def out_of_patience(self) -> bool:
        """Whether `optim.early_stop_epochs` ends the training after the last scored epoch.

        Only the last stage can end the training, and only epochs of that stage count.
        """
        optim, epoch = self.config.optim, self.state.epoch
        in_last_stage = self.stage.span.last == optim.epochs
        waited = epoch - max(self.state.best_epoch, self.stage.span.first - 1)
        patience = optim.early_stop_epochs
        return bool(patience) and in_last_stage and waited >= patience and epoch < optim.epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """How the epochs of a training are scored, which one is the best, and which one is the last.

    Attributes:
        metric: the score that decides which epoch is the best: `val_map`, `val_number_accuracy` or another.
        score_floor: only raw detections above it are kept; a lower threshold of the configuration lowers it.
        confirm: score the best epochs on `data.confirm` too.
        validate: score each epoch on the validation images; without it, every epoch counts as the best so far.
        until: the last epoch to train; the learning-rate schedule does not change. None trains all epochs.
    """

    metric: str = "val_map"
    score_floor: float = SCORE_FLOOR
    confirm: bool = False
    validate: bool = True
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a training writes and reads checkpoints.

    Attributes:
        workdir: gets one new checkpoint folder per epoch; None writes none.
        resume_from: a checkpoint folder of the same configuration to resume from.
    """

    workdir: Path | None = None
    resume_from: Path | None = None


def train(
    config: TrainConfig,
    data: DigitData,
    report: Report,
    *,
    selection: Selection = Selection(),
    checkpoints: Checkpoints = Checkpoints(),
    device: str = "auto",
    world: World = ALONE,
) -> None:
    """Train one configuration and report every epoch.

    A training that stops after epoch k and resumes from its checkpoint gives the same result as one without the stop;
    on one CPU thread it is identical bit for bit, because all random numbers of an epoch depend only on the seed and
    the number of the epoch.

    Args:
        config: every parameter.
        data: from `open_data`.
        report: called once per epoch; may raise an exception to stop the training.
        selection: how epochs are scored, and the last one.
        checkpoints: where checkpoints are written, and the one to resume from.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        world: the processes that train together; the first of them evaluates, saves and reports.

    Raises:
        DivergedError: a loss was not finite.
        DataError: the configuration cannot train on this data.
        DeviceError: the device does not exist or cannot be used.
        WeightsError: the initial weights or `resume_from` cannot be loaded.
    """
    run = open_run(config, data, resume_from=checkpoints.resume_from, device=device, world=world)
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    last_epoch = min(selection.until or config.optim.epochs, config.optim.epochs)
    for epoch in range(run.state.epoch + 1, last_epoch + 1):
        started = time.perf_counter()
        run.enter(epoch)
        losses, num_images = train_one_epoch(run, epoch)
        ends_early = False
        if world.leads:
            trained = _Trained(losses, num_images, started, time.perf_counter())
            done = _finish_epoch(run, epoch, trained, selection, checkpoints)
            report(done)
            ends_early = done.metrics.early_stopped
        else:
            run.state = dataclasses.replace(run.state, epoch=epoch)
            world.wait()
        if world.agree(ends_early):
            return


@dataclass(frozen=True, slots=True)
class _Trained:
    """What `train_one_epoch` returned, and when it started and ended (`time.perf_counter`)."""

    losses: dict[str, float]
    num_images: int
    started: float
    ended: float


def _finish_epoch(
    run: Run, epoch: int, trained: _Trained, selection: Selection, checkpoints: Checkpoints
) -> EpochReport:
    """Score an epoch, write its checkpoint and make its report.

    Raises:
        DivergedError: the validation loss is not finite.
    """
    floor = selection.score_floor
    valid = _evaluate(run, run.data.valid, floor) if selection.validate else None
    if valid is not None and not math.isfinite(valid.loss):
        raise DivergedError(f"epoch {epoch}: the validation loss is not finite")
    scores = NO_SCORES if valid is None else valid.scores
    improved = run.record_score(epoch, scores.named(selection.metric) if selection.validate else float(epoch))
    confirmed = None
    if selection.confirm and improved and run.data.confirm is not None:
        confirmed = _evaluate(run, run.data.confirm, floor)
    seen = NO_SCORES if run.train_sample is None else _evaluate(run, run.train_sample, floor).scores
    evaluated = time.perf_counter()
    checkpoint = (
        None if checkpoints.workdir is None else _save(run, checkpoints.workdir, improved, checkpoints.resume_from)
    )
    train_seconds = trained.ended - trained.started
    metrics = EpochMetrics(
        epoch=epoch,
        train_loss=sum(trained.losses.values()),
        **trained.losses,
        lr=run.optimizer.param_groups[0]["lr"],
        train_map=seen.map,
        train_map_50=seen.map_50,
        val_loss=None if valid is None else valid.loss,
        val_map=scores.map,
        val_map_50=scores.map_50,
        val_map_75=scores.map_75,
        val_digit_accuracy=scores.digit_accuracy,
        val_number_accuracy=scores.number_accuracy,
        images_per_second=trained.num_images / train_seconds,
        peak_memory_bytes=peak_memory(run.device),
        epoch_seconds=time.perf_counter() - trained.started,
        train_seconds=train_seconds,
        eval_seconds=evaluated - trained.ended,
        early_stopped=run.out_of_patience,
    )
    return EpochReport(metrics, improved, checkpoint, valid, confirmed, run.facts, device_name(run.device))


def open_run(
    config: TrainConfig,
    data: DigitData,
    *,
    resume_from: Path | None = None,
    device: str = "auto",
    world: World = ALONE,
) -> Run:
    """Build the model and the optimiser, or load them from a checkpoint.

    Raises:
        UserError: as `train`.
    """
    data.check(config)
    chosen = choose_device(device)
    torch.manual_seed(derived_seed("weights", config.runtime.seed))
    model, loaded = build_model(config, num_classes=data.categories.num_classes)
    model.to(chosen).train()
    state = TrainingState(epoch=0, step=0, best_epoch=0, best_value=None)
    stage = config.stage_at(1 if resume_from is None else load_state(resume_from).epoch)
    optimizer = build_optimizer(model.parameters(), stage.config.optim)
    average = Average(model) if any(one.config.optim.ema for one in config.stages) else None
    if resume_from is not None:
        state = load_training(resume_from, model, optimizer, None if average is None else average.model)
    return Run(
        config=config,
        data=data,
        model=model,
        optimizer=optimizer,
        device=chosen,
        dtype=choose_dtype(config.runtime.precision, chosen),
        state=state,
        stage=stage,
        facts=read_back(model) | {"left_out": list(loaded.left_out)},
        train_sample=_train_sample(config, data.train),
        world=world,
        forward=world.wrap(model, chosen),
        average=average,
    )


def _train_sample(config: TrainConfig, split: Split) -> Split | None:
    """The training images that are scored after each epoch: the same for every configuration and seed."""
    count = min(config.runtime.train_sample, len(split))
    if not count:
        return None
    chosen = np.random.default_rng(derived_seed("train sample")).permutation(len(split))[:count]
    return split.some(np.sort(chosen), "train")


def train_one_epoch(run: Run, epoch: int) -> tuple[dict[str, float], int]:
    """Train one epoch.

    Returns:
        The four losses, mean over the epoch's images, and the number of images.
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
    batches = epoch_batches(run.data.train, seed=seed, epoch=epoch, batch_size=optim.batch_size, asked=asked)
    for number, indices in enumerate(batches, start=1):
        mine = run.world.share(indices)
        if len(indices) >= run.world.size:  # a last batch with fewer images than processes is skipped
            factor = size_factor(run.stage.config.augment.multi_scale, seed, epoch, number)
            batch = load_batch(run.data.train, mine, run.device, change, factor)
            set_lr(run.optimizer, lr_at(optim, run.state.step - steps_before, steps))
            weight = run.world.weight(len(mine), len(indices))
            sums += train_step(run, batch, weight) * len(mine)
            if run.average is not None and optim.ema:
                run.average.update(run.model, optim.ema, run.state.step - steps_before)
            num_images += len(indices)
        run.state = dataclasses.replace(run.state, step=run.state.step + 1)
        if run.world.leads:
            run.world.progress(EpochProgress(epoch, number / len(batches)))
    check_losses(run)
    means = (run.world.total(sums) / max(num_images, 1)).tolist()
    return dict(zip(LOSSES, means, strict=True)), num_images


def train_step(run: Run, batch: Batch, weight: float = 1.0) -> Tensor:
    """One optimiser step; `weight` is the weight of these images among those of all processes (`World.weight`).

    At most `runtime.micro_batch` images go through the model at once; gradients are averaged over the micro-batches.

    Returns:
        The four losses in the order of `LOSSES`, mean over the images, float32 [4], on the run's device.

    Raises:
        DivergedError: the loss of this step is not finite; on a GPU, of one of the last `CHECKED_STEPS` steps.
    """
    parts = batch.split(math.ceil(len(batch) / (run.config.runtime.micro_batch or len(batch))))
    means = torch.zeros(len(LOSSES), device=run.device)
    run.optimizer.zero_grad(set_to_none=True)
    for part in parts:
        share = len(part) / len(batch)
        with run.world.no_sync(run.forward) if part is not parts[-1] else contextlib.nullcontext():
            with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
                loss_dict = run.forward(part)
            losses = torch.stack([loss_dict[name].float() for name in LOSSES])
            (losses.sum() * (weight * share)).backward()  # type: ignore[no-untyped-call]
        means += losses.detach() * share
    run.unchecked[run.state.step] = means
    if len(run.unchecked) >= (CHECKED_STEPS if must_not_wait(run.device) else 1):
        check_losses(run)
    if run.stage.config.optim.max_grad_norm:
        clip_grad_norm_(run.model.parameters(), run.stage.config.optim.max_grad_norm)
    run.optimizer.step()
    return means


def check_losses(run: Run) -> None:
    """Check the losses of all steps since the last check.

    Raises:
        DivergedError: one is not finite; the message contains the first such step and its losses.
    """
    steps, losses = list(run.unchecked), list(run.unchecked.values())
    run.unchecked.clear()
    if not losses or torch.stack(losses).isfinite().all():
        return
    first = next(row for row, one in enumerate(losses) if not one.isfinite().all())
    step, values = steps[first], losses[first].tolist()
    named = ", ".join(f"{name}={value:.3g}" for name, value in zip(LOSSES, values, strict=True))
    raise DivergedError(f"step {step}: the loss is not finite: {named}")


def _evaluate(run: Run, split: Split, floor: float) -> Evaluation:
    return evaluate(
        run.scored,
        split,
        run.config.detect,
        floor,
        change=Processing(run.config.augment),
        batch_size=run.config.runtime.eval_batch_size,
        dtype=run.dtype,
    )


def _save(run: Run, workdir: Path, improved: bool, resume_from: Path | None) -> Path:
    """Write a checkpoint that also contains the best epoch's model, so that only the last checkpoint is needed."""
    folder, best = workdir / f"epoch_{run.state.epoch:04d}", workdir / BEST_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    categories = run.data.categories
    save_model(folder, run.model, run.config, categories=categories)
    save_training(folder, run.model, run.optimizer, run.state, None if run.average is None else run.average.model)
    if improved:
        shutil.rmtree(best, ignore_errors=True)
        save_model(best, run.scored, run.config, categories=categories)
    elif not best.exists() and resume_from is not None and (resume_from / BEST_FOLDER).is_dir():
        shutil.copytree(resume_from / BEST_FOLDER, best)
    if best.exists():
        shutil.copytree(best, folder / BEST_FOLDER, copy_function=os.link)
    return folder
