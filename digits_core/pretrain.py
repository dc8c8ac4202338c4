"""python -m digits_core.pretrain: trains the shipped `drawn` weights again, or weights for another model.

Draws house numbers (other images than the built-in training and validation images), trains the detector on them from
random weights, and writes a checkpoint folder in half precision. With `--set` it trains any model, for example initial
weights for a resnet on a machine that cannot download them.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from digits_core.command import CommandParser, at_least, run_command, say
from digits_core.errors import UsageError

SETTINGS: dict[str, float | int | str] = {
    "model.weights": "none",
    "optim.schedule": "onecycle",
    "optim.lr": 3e-3,
    "optim.onecycle_peak": 0.2,
    "optim.batch_size": 8,
    "runtime.eval_batch_size": 32,
}


_EPILOG = """
examples:
  digit-search pretrain -o weights/tiny
  digit-search pretrain -o weights/resnet50 --set model.backbone=resnet50 --set model.live_batch_norm=true
"""


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    parser = CommandParser(prog="python -m digits_core.pretrain", description=__doc__, epilog=_EPILOG)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument("--images", type=at_least(1), default=16000, help="drawn training images (default 16000)")
    parser.add_argument(
        "--images-per-epoch", type=at_least(1), default=4000, help="training images between evaluations (default 4000)"
    )
    parser.add_argument("--epochs", type=at_least(1), default=30, help="epochs (default 30)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="another model or schedule, like model.backbone=resnet50; can be repeated",
    )
    parser.add_argument("--threads", type=at_least(0), default=0, help="CPU threads; 0 uses torch's default")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = build_parser().parse_args(argv)
    return run_command("digits_core.pretrain", lambda: _pretrain(args))


def _pretrain(args: argparse.Namespace) -> int:
    import torch

    from digits_core.config.reading import parse_assignment
    from digits_core.config.train_config import TrainConfig
    from digits_core.data.cache import open_data
    from digits_core.data.drawn import PRETRAIN_SEED
    from digits_core.data.source import DRAWN, DataSource
    from digits_core.model.build import build_model
    from digits_core.model.checkpoint import load_config, load_model, save_model
    from digits_core.training.reports import EpochReport
    from digits_core.training.train import Checkpoints, train

    if args.threads:
        torch.set_num_threads(args.threads)
    config = TrainConfig.from_flat(
        SETTINGS
        | {"optim.epochs": args.epochs, "data.images_per_epoch": args.images_per_epoch}
        | dict(parse_assignment(text) for text in args.set)
    )
    if args.out.exists():
        raise UsageError(f"-o {args.out}: exists; give a new folder")
    source = DataSource(folder=DRAWN, drawn_train=args.images, drawn_valid=400, drawn_seed=PRETRAIN_SEED)
    data = open_data(source)
    with tempfile.TemporaryDirectory() as scratch:
        last = Path(scratch) / "last"

        def report(epoch: EpochReport) -> None:
            metrics = epoch.metrics
            say(
                f"epoch {metrics.epoch}/{args.epochs}  loss {metrics.train_loss:.3f}  val_map {metrics.val_map:.3f}"
                f"  numbers {metrics.val_number_accuracy:.3f}  {metrics.images_per_second:.0f} images/s"
            )
            if epoch.checkpoint is not None:
                shutil.rmtree(last, ignore_errors=True)
                epoch.checkpoint.rename(last)

        train(config, data, report, checkpoints=Checkpoints(Path(scratch) / "work"))
        model, _ = build_model(load_config(last))
        load_model(last, model)
        save_model(args.out, model, config, half=True)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    say(f"wrote {args.out} ({size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
