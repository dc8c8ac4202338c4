"""The script that Syne Tune starts for each trial."""

from argparse import ArgumentParser
from pathlib import Path

import torch
from detector import Trace, Training, anchor_setting
from syne_tune import Reporter


def main() -> None:
    """Train one setting and report every epoch."""
    parser = ArgumentParser()
    for name, kind in (("base", float), ("growth", float), ("epochs", int), ("seed", int), ("data", Path)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--trial_id", default="0")
    args, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    report, trace = Reporter(), Trace(args.trace)
    setting = anchor_setting(args.base, args.growth)
    name = f"{args.base:.6f},{args.growth:.6f}"
    training = Training(setting, args.data, args.epochs, args.seed)
    for epoch, value in enumerate(training.epochs(), start=1):
        trace.add(name, epoch, value, training)
        report(epoch=epoch, val_map=value)


if __name__ == "__main__":
    main()
