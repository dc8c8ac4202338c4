"""Which parameters of a training have no effect, because others switch them off."""

from collections.abc import Iterator

from digits_core.config.train_config import LR_BATCH, ModelConfig, OptimConfig, TrainConfig


def without_effect(config: TrainConfig, *, until: int | None = None) -> dict[str, str]:
    """The parameters without effect on a training, each with the reason.

    With `optim.stages`, a parameter has no effect if it has none in every stage that was trained.

    Args:
        config: of the whole training.
        until: the last trained epoch; None is the last one of the configuration.
    """
    last = config.optim.epochs if until is None else until
    trained = [stage for stage in config.stages if stage.span.first <= max(last, 1)]
    found = [dict(_optim(stage.config.optim, min(last, stage.span.last) - stage.span.first + 1)) for stage in trained]
    idle = {name: reason for name, reason in found[-1].items() if all(name in one for one in found)}
    return dict(_model(config.model)) | idle


def _model(model: ModelConfig) -> Iterator[tuple[str, str]]:
    if model.fresh_rpn and model.weights == "none":
        yield "model.fresh_rpn", "without initial weights every part is random"
    if model.backbone == "tiny":
        yield "model.trainable_layers", "only for a resnet"
    if model.backbone in ("tiny", "resnet50_v2"):
        yield "model.live_batch_norm", f"{model.backbone} always trains it"
    if model.box_loss != "smooth_l1":
        yield "model.box_loss_beta", "only for box_loss=smooth_l1"
    if model.fixed_size is not None:
        yield from ((f"model.{name}", "fixed_size is set") for name in ("min_size", "max_size"))


def _optim(optim: OptimConfig, epochs: int) -> Iterator[tuple[str, str]]:
    """The parameters of a stage that was trained for so many epochs."""
    if optim.optimizer != "sgd":
        yield "optim.momentum", "only for optimizer=sgd"
    owners = {"step_epochs": "step", "step_gamma": "step", "eta_min": "cosine", "t_max": "cosine"}
    for name, schedule in {**owners, "onecycle_peak": "onecycle"}.items():
        if optim.schedule != schedule:
            yield f"optim.{name}", f"only for schedule={schedule}"
    if optim.schedule == "step" and optim.step_epochs >= epochs:
        late = "the first step comes after the last epoch"
        yield from ((f"optim.{name}", late) for name in ("step_epochs", "step_gamma"))
    if optim.schedule == "step" and optim.step_gamma == 1:
        yield "optim.step_epochs", "step_gamma is 1"
    if not optim.warmup_epochs:
        yield "optim.warmup_epochs", "no warm-up"
    if optim.batch_size == LR_BATCH:
        yield "optim.lr_scaling", f"batch_size is {LR_BATCH}"
