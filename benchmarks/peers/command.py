"""The flags that the peers share."""

import argparse
from pathlib import Path


def flags(description: str) -> argparse.Namespace:
    """Data, sizes and where the trace goes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="COCO folder")
    parser.add_argument("--trials", type=int, required=True, help="settings, at most")
    parser.add_argument("--epochs", type=int, required=True, help="of a whole training")
    parser.add_argument("--budget", type=int, required=True, help="epochs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, required=True, help="file of one line an epoch")
    args = parser.parse_args()
    args.data, args.trace = args.data.resolve(), args.trace.resolve()
    return args
