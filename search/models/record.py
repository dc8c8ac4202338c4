"""A retraining's place in its run: the model folder, and the row beside its trial."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import DigitData, images_per_epoch
from digits_core.model.anchors import setting_digest
from results.record.folder import MODELS, RETRAIN
from results.record.log import EventWriter
from results.record.schema import EPOCH_NUMBERS
from results.tables.matches import matches_path, write_matches
from results.views.leaderboard import write_views
from search.cli.settings import SearchSettings
from search.models.folder import measure, write_model
from search.models.train_loop import MODEL_FOLDER

if TYPE_CHECKING:
    from search.models.plan import Plan


def ends_after(plan: "Plan") -> str:
    """Why a training that nothing looks at ends when it does, in a sentence."""
    if plan.trained_on == "train":
        return ""
    if plan.until is None:
        return f"It ended after the {plan.config['optim.epochs']} epochs that were asked for."
    return f"It ended after {plan.until} epochs, the best epoch of its trial."


def keep_retraining(
    folder: Path, name: str, plan: "Plan", epochs: list[dict[str, Any]], settings: SearchSettings, data: DigitData
) -> None:
    """Measure a retrained model, write its folder, and its row into the run.

    Args:
        folder: the run's.
        name: of the retraining.
        plan: what was trained.
        epochs: every epoch's numbers, in order.
        settings: the run's, for where its data came from.
        data: the run's.
    """
    from digits_core.submission.inference import load_detector
    from digits_core.training.device import choose_device

    state = folder / RETRAIN / name
    config, joined = TrainConfig.from_flat(plan.config), plan.trained_on == "train+valid"
    asked = config.data.images_per_epoch
    improved = [one for one in epochs if one["improved"]]
    best = improved[-1] if improved else epochs[-1]
    claim = None
    if not joined:
        detector = load_detector(state / MODEL_FOLDER, choose_device("auto" if plan.gpus else "cpu"))
        claim = measure(detector, data)
        config = TrainConfig.from_flat(
            {k: v for k, v in TrainConfig(detect=claim.detect).to_flat().items() if k.startswith("detect.")}, config
        )
    metrics = {
        "run": folder.name,
        "parent": plan.parent,
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
        "num_train": len(data.joined().train) if joined else len(data.train),
        "images_per_epoch": images_per_epoch(len((data.joined() if joined else data).train), asked),
        "num_valid": 0 if joined else len(data.valid),
        "scores": {} if claim is None else {f"val_{key}": list(value) for key, value in claim.scores.items()},
    }
    write_model(folder / MODELS / name, state / MODEL_FOLDER, config, metrics)
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
        for one in epochs:
            events.write(
                "report",
                trial_id=name,
                epoch=one["epoch"],
                early_stopped=one["early_stopped"],
                device=one["device"],
                model=one["model"],
                optima={} if claim is None else claim.optima,
                **{key: one.get(key) for key in EPOCH_NUMBERS},
            )
        scores = {} if claim is None else {f"val_{key}": value for key, (value, _, _) in claim.scores.items()}
        events.write("claim", trial_id=name, epoch=best["epoch"], **scores)
        events.write("kept", trial_id=name, path=f"{MODELS}/{name}")
        events.write("end", trial_id=name, status="finished", reason=f"retrained from {plan.parent}")
    finally:
        events.close()
    write_views(folder, events.record)
