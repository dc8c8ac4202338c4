"""Time of decoding and of both tasks, compared with the model, in the prediction of a folder.

    python benchmarks/prediction.py MODEL IMAGES [--batch-size 32] [--repeats 7]

In one process: the model alone on decoded images in the same batches, and `predict_images` from files to numbers.
The ratio of the medians is printed.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from digits_core.data.augment import Sample
from digits_core.data.batches import pack
from digits_core.data.source import decode_image
from digits_core.evaluation.detect import batches_by_shape
from digits_core.submission.files import numbered_images
from digits_core.submission.inference import detect_with, load_detector, predict_images
from digits_core.training.device import choose_device


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    detector = load_detector(args.model, choose_device(args.device))
    files = numbered_images(args.images)
    pixels = [one for one, _ in map(decode_image, files.values()) if one is not None]
    shapes = np.array([(one.shape[1], one.shape[0]) for one in pixels], dtype=np.int32)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = [Sample(one, *nothing) for one in pixels]
    batches = list(batches_by_shape(shapes, args.batch_size))

    def alone() -> float:
        started = time.perf_counter()
        for rows in batches:
            detect_with(detector, pack([samples[row] for row in rows], detector.device))
        return time.perf_counter() - started

    alone()
    rounds = [
        (alone(), predict_images(detector, files, batch_size=args.batch_size).seconds) for _ in range(args.repeats)
    ]
    model, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(
        f"{len(samples)} images: the model alone {len(samples) / model:.0f} a second, from files to numbers "
        f"{len(samples) / whole:.0f}: {model / whole:.0%} of it (medians of {args.repeats}, each after the other)"
    )


if __name__ == "__main__":
    main()
