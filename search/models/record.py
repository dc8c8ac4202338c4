"""Records a retraining in its run: the model folder, and a row in the leaderboard."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData, images_per_epoch
from digits_core.model.anchors import setting_digest
from results.record.folder import MODELS, RETRAIN, read_record_of
from results.record.log import EventWriter
from results.record.run import RunRecord
from results.record.schema import EPOCH_NUMBERS
from results.tables.matches import matches_path, write_matches
from results.views.leaderboard import varying_parameters, write_views
from search.cli.settings import SearchSettings
from search.models.check import record_check
from search.models.folder import Claim, measure, write_model
from search.models.train_loop import MODEL_FOLDER

if TYPE_CHECKING:
    from search.models.plan import Plan


def ends_after(plan: "Plan") -> str:
    """Why a training without validation ended when it did, in a sentence."""
    if plan.trained_on == "train":
        return ""
    if plan.until is None:
        return f"It ended after the requested {plan.config['optim.epochs']} epochs."
    return f"It ended after {plan.until} epochs, the best epoch of its trial."


def _metrics(
    record: RunRecord,
    plan: "Plan",
    epochs: list[dict[str, Any]],
    claim: Claim | None,
    settings: SearchSettings,
    data: DigitData,
) -> dict[str, Any]:
    """The content of metrics.json."""
    config = TrainConfig.from_flat(plan.config)
    train = data.train if claim is not None else data.joined().train
    best = best_epoch(epochs)
    return {
        "run": record.run,
        "parent": plan.parent,
        "searched": varying_parameters(list(record.trials.values())),
        "seed": config.runtime.seed,
        "trained_on": plan.trained_on,
        "epochs": len(epochs),
        "ends_after": ends_after(plan),
        "best_epoch": best["epoch"],
        "workers": plan.workers,
        "device": best["device"],
        "data": settings.data.folder,
        "fingerprint": data.fingerprint,
        "categories": data.categories.words,
        "num_train": len(train),
        "images_per_epoch": images_per_epoch(len(train), config.data.images_per_epoch),
        "num_valid": 0 if claim is None else len(data.valid),
        "scores": {} if claim is None else {f"val_{key}": list(value) for key, value in claim.scores.items()},
    }


def best_epoch(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of the epoch whose model is kept: the last one that improved, without validation the last one."""
    return next((one for one in reversed(epochs) if one["improved"]), epochs[-1])


def keep_retraining(
    folder: Path, name: str, plan: "Plan", epochs: list[dict[str, Any]], settings: SearchSettings, data: DigitData
) -> None:
    """Measure a retrained model, write its model folder, and record it in the run.

    Args:
        folder: the run folder.
        name: the name of the retraining.
        plan: what was trained.
        epochs: the numbers of every epoch, in order.
        settings: the settings of the run.
        data: the data of the run.
    """
    from digits_core.submission.inference import load_detector
    from digits_core.training.device import choose_device

    model = folder / RETRAIN / name / MODEL_FOLDER
    config, claim = TrainConfig.from_flat(plan.config), None
    if plan.trained_on == "train":
        claim = measure(load_detector(model, choose_device("auto" if plan.gpus else "cpu")), data)
        config = replace(config, detect=claim.detect)
    best = best_epoch(epochs)
    write_model(
        folder / MODELS / name, model, config, _metrics(read_record_of(folder), plan, epochs, claim, settings, data)
    )
    if claim is not None and claim.matches is not None:
        path = matches_path(folder, name, "val")
        path.parent.mkdir(exist_ok=True)
        write_matches(path, replace(claim.matches, epoch=best["epoch"]), config.detect)
    events = EventWriter(folder, folder.name)
    try:
        events.write(
            "trial",
            trial_id=name,
            space=settings.space,
            role="retrain",
            parent=plan.parent,
            trained_on=plan.trained_on,
            baseline=None,
            config=config.to_flat(),
            config_hash=setting_digest(config),
            seed=config.runtime.seed,
            params={},
        )
        _write_reports(events, name, epochs, {} if claim is None else claim.optima)
        scores = {} if claim is None else {f"val_{key}": value for key, (value, _, _) in claim.scores.items()}
        events.write("claim", trial_id=name, epoch=best["epoch"], **scores)
        if claim is not None and claim.matches is not None:
            record_check(events, name, best["epoch"], claim.matches, config)
        events.write("kept", trial_id=name, path=f"{MODELS}/{name}")
        events.write("end", trial_id=name, status="finished", reason=f"retrained from {plan.parent}")
    finally:
        events.close()
    write_views(folder, events.record)


def _write_reports(events: EventWriter, name: str, epochs: list[dict[str, Any]], optima: dict[str, Any]) -> None:
    """Record the numbers of every epoch of a retraining."""
    for one in epochs:
        events.write(
            "report",
            trial_id=name,
            epoch=one["epoch"],
            early_stopped=one["early_stopped"],
            device=one["device"],
            model=one["model"],
            optima=optima,
            **{key: one.get(key) for key in EPOCH_NUMBERS},
        )
