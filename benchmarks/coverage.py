"""Simulates how often intervals contain the true score, and how often equal models differ significantly.

    python benchmarks/coverage.py [--repetitions 2000] [--pool 12000]

Scores with a known true value are resampled and tested by the functions of digit-search and by the plain bootstrap.
For AP the true value is that of the shipped model on `--pool` drawn images, from which samples are drawn.
Prints the tables of docs/statistics.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from digits_core.evaluation.bootstrap import bootstrap_ap, resample_weights
from digits_core.evaluation.metrics import MatchTable, Truth, average_precision, rank_within
from results.statistics import (
    LEVEL,
    image_error,
    image_p_values,
    interval,
    mean_interval,
    pooled_variance,
    setting_difference,
)
from results.tables.matches import RESAMPLES

Values = NDArray[np.float64]
Ends = tuple[float, float]

IMAGES = (30, 100, 500, 3000)
SHARES = (0.5, 0.8, 0.9, 0.95, 0.97, 0.99)
AP_IMAGES = (30, 100, 500)
DIGITS = ((1, 2, 3, 4), (0.25, 0.45, 0.25, 0.05))
"""Numbers of digits per image and their probabilities."""
ALIKE_WITHIN = 0.3
"""Correlation of the digits of one image."""
ALIKE_BETWEEN = (0.0, 0.5, 0.9)
"""Correlations of two models on the same image."""
SEED_SPREADS = (0.0, 0.01, 0.03)
"""Standard deviations over seeds."""


def percentiles(point: float, resampled: Values) -> Ends:
    """The plain bootstrap's: its middle 95 %, moved so that its mean lies on the score."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + point - resampled.mean()
    return min(max(low, 0.0), point), max(min(high, 1.0), point)


def bias_corrected(point: float, resampled: Values, without: Values) -> Ends:
    """BCa's: percentiles corrected for bias and acceleration.

    Args:
        point: the score.
        resampled: float64 [resamples].
        without: float64 [num_images], the score without each image.

    Source:
        Efron 1987, Better bootstrap confidence intervals.
    """
    lower = (resampled < point).mean() + (resampled == point).mean() / 2
    bias = ndtri(np.clip(lower, 1 / len(resampled), 1 - 1 / len(resampled)))
    pull = without.mean() - without
    acceleration = (pull**3).sum() / (6 * max((pull**2).sum(), 1e-30) ** 1.5)
    ends = bias + ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(resampled, ndtr(bias + ends / (1 - acceleration * ends)))
    return float(low), float(high)


def holds(ends: Ends, truth: float) -> bool:
    return ends[0] - 1e-12 <= truth <= ends[1] + 1e-12


def numbers_of(images: int, share: float, count: int, generator: np.random.Generator) -> tuple[Values, Values]:
    """Right images of `count` repetitions, and ones, float64 [images, count] each."""
    return (generator.random((images, count)) < share) * 1.0, np.ones((images, count))


def digits_of(images: int, share: float, count: int, generator: np.random.Generator) -> tuple[Values, Values]:
    """Right digits and digits of each image; the digits of one image are read alike (a beta distribution)."""
    digits = generator.choice(DIGITS[0], p=DIGITS[1], size=(images, count))
    spread = 1 / ALIKE_WITHIN - 1
    chance = generator.beta(share * spread, (1 - share) * spread, (images, count))
    return generator.binomial(digits, chance) * 1.0, digits * 1.0


Draw = Callable[[int, float, int, np.random.Generator], tuple[Values, Values]]


def share_coverage(draw: Draw, images: int, share: float, count: int, *, whole: bool) -> tuple[float, float]:
    """How often the intervals of the plain bootstrap and of digit-search contain the true share.

    Args:
        draw: what is right, and of how many, in each image.
        images: of a split.
        share: the truth.
        count: repetitions.
        whole: whether it is a share of images.
    """
    right, of = draw(images, share, count, np.random.default_rng([images, round(share * 1000)]))
    weights = resample_weights(images, RESAMPLES).astype(np.float32)
    points = right.sum(axis=0) / of.sum(axis=0)
    resampled = ((weights @ right.astype(np.float32)) / (weights @ of.astype(np.float32))).astype(np.float64)
    hits = [
        (
            holds(percentiles(point, resampled[:, one]), share),
            holds(interval(float(point), resampled[:, one], images, share=whole), share),
        )
        for one, point in enumerate(points)
    ]
    plain, ours = np.mean(hits, axis=0)
    return float(plain), float(ours)


def false_verdicts(images: int, share: float, alike: float, count: int) -> tuple[float, float]:
    """How often two equally good models differ significantly: by the plain bootstrap and by digit-search.

    Args:
        images: of a split.
        share: of images that each model reads.
        alike: correlation of the two on an image.
        count: repetitions.
    """
    generator = np.random.default_rng([images, round(share * 1000), round(alike * 10)])
    both = share**2 + alike * share * (1 - share)
    kind = generator.choice(4, p=[both, share - both, share - both, 1 - 2 * share + both], size=(images, count))
    differ = (kind == 1) * 1.0 - (kind == 2)
    resampled = resample_weights(images, RESAMPLES).astype(np.float32) @ differ.astype(np.float32) / images
    sizes, spreads = np.abs(differ.mean(axis=0)), resampled.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain = np.where(spreads > 1e-9, 2 * ndtr(-sizes / spreads), np.where(sizes > 0, 0.0, 1.0))
    errors = np.array([image_error(one, images) for one in resampled.T.astype(np.float64)])
    ours = image_p_values(sizes, errors, images)
    return float((plain < 1 - LEVEL).mean()), float((ours < 1 - LEVEL).mean())


def two_seeds(images: int, share: float, spread: float, count: int) -> tuple[float, float]:
    """Two equal configurations with two seeds each: coverage of the mean's interval, and rate of significance.

    Args:
        images: of a split.
        share: of images that a training reads, on average.
        spread: its standard deviation over seeds; shares over 1 are 1.
        count: repetitions.
    """
    generator = np.random.default_rng([images, round(share * 1000), round(spread * 1000)])
    weights = resample_weights(images, RESAMPLES).astype(np.float64) / images
    chances = np.clip(generator.normal(share, spread, (count, 4)), 0, 1)
    truth = float(np.clip(generator.normal(share, spread, 1_000_000), 0, 1).mean())
    hard = generator.random((count, images, 1)) * 0.5  # an image is as hard for all trainings, by half
    held = told = 0
    for one in range(count):
        ease = hard[one] + generator.random((images, 4)) * 0.5
        right = ease < _triangle_quantile(chances[one])
        values, resampled = right.mean(axis=0), (weights @ right).T
        variance, freedom = pooled_variance([values[:2].tolist(), values[2:].tolist()])
        held += holds(mean_interval(values[:2].tolist(), resampled[:2], images, variance, freedom), truth)
        difference = setting_difference(
            values[:2].tolist(), values[2:].tolist(), resampled[:2], resampled[2:], images, variance, freedom
        )
        told += difference.p < 1 - LEVEL
    return held / count, told / count


def _triangle_quantile(chance: Values) -> Values:
    """The quantile function of the mean of two uniform numbers in [0, 1]."""
    return np.where(chance < 0.5, np.sqrt(chance / 2), 1 - np.sqrt((1 - chance) / 2))


def drawn_from(table: MatchTable, truth: Truth, images: NDArray[np.int64]) -> tuple[MatchTable, Truth]:
    """A subset of the images as a split."""

    def rows(image: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts = np.searchsorted(image, np.arange(truth.num_images + 1))
        counts = np.diff(starts)[images]
        first = np.repeat(starts[images] - np.cumsum(counts) + counts, counts)
        return first + np.arange(counts.sum()), np.repeat(np.arange(len(images)), counts)

    found, image = rows(table.image)
    some = table.select(found)
    columns = {name: getattr(some, name) for name in MatchTable.__slots__}
    labels, whose = rows(truth.image)
    mine = MatchTable(**{**columns, "image": image, "rank": rank_within(image)})
    return mine, Truth(len(images), whose, truth.labels[labels], truth.numbers)


def ap_coverage(table: MatchTable, truth: Truth, images: int, count: int) -> Iterator[tuple[str, float, list[float]]]:
    """For each AP its name, the truth, and how often percentiles, BCa and our interval hold it, and its mean bias.

    Args:
        table: detections on a large split, whose AP is the truth.
        truth: what is annotated on it.
        images: drawn from it at a time.
        count: repetitions.
    """
    kinds: dict[str, Callable[[Values], Values]] = {
        "mAP": lambda ap: ap.mean(axis=-1),
        "AP at IoU .50": lambda ap: ap[..., 0],
        "AP at IoU .75": lambda ap: ap[..., 5],
    }
    whole = average_precision(table, truth)
    generator = np.random.default_rng(images)
    weights = resample_weights(images, RESAMPLES)
    without = (1 - np.eye(images)).astype(np.int16)
    seen: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(count):
        some = drawn_from(table, truth, generator.choice(truth.num_images, images, replace=False))
        ap, resampled, left_out = average_precision(*some), bootstrap_ap(*some, weights), bootstrap_ap(*some, without)
        if whole is None or ap is None or resampled is None or left_out is None:
            continue
        for kind, pick in kinds.items():
            point, right = float(pick(ap)), float(pick(whole))
            ends = [
                percentiles(point, pick(resampled)),
                bias_corrected(point, pick(resampled), pick(left_out)),
                interval(point, pick(resampled), images),
            ]
            seen[kind].append([*(float(holds(one, right)) for one in ends), point - right])
    for kind, pick in kinds.items():
        if whole is not None:
            yield kind, float(pick(whole)), np.mean(seen[kind], axis=0).tolist()


def pool(images: int) -> tuple[MatchTable, Truth]:
    """What the shipped model detects on drawn images, at Task 1's setting."""
    import torch

    from digits_core.data.cache import open_data
    from digits_core.data.source import DataSource
    from digits_core.evaluation.evaluate import evaluate
    from digits_core.model.build import DRAWN_WEIGHTS, build_model
    from digits_core.model.checkpoint import load_config, load_model

    config = load_config(DRAWN_WEIGHTS)
    model, _ = build_model(config)
    load_model(DRAWN_WEIGHTS, model)
    split = open_data(DataSource(drawn_train=1, drawn_valid=images)).valid
    task = config.detect.task1
    found = evaluate(model, split, config.detect, task.score, batch_size=32, dtype=torch.float32)
    return found.task1.above(task.score, task.max_detections), Truth.from_table(split.table)


def row(*cells: object) -> str:
    texts = (f"{cell:.3f}".lstrip("0") if isinstance(cell, float) and abs(cell) < 1 else str(cell) for cell in cells)
    return f"| {' | '.join(texts)} |"


def head(*cells: object) -> None:
    print(row(*cells))
    print(row(*["---"] * len(cells)), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="simulations per cell (default 2000)")
    parser.add_argument("--pool", type=int, default=12_000, help="images from which AP samples are drawn; 0 skips AP")
    args = parser.parse_args(argv)
    kinds: tuple[tuple[str, Draw, bool], ...] = (("number", numbers_of, True), ("digit", digits_of, False))
    for name, draw, whole in kinds:
        print(f"\ncoverage of the 95 % interval of {name} accuracy: plain bootstrap → ours\n")
        head("images", *SHARES)
        for images in IMAGES:
            cells = [share_coverage(draw, images, share, args.repetitions, whole=whole) for share in SHARES]
            print(row(images, *(f"{plain:.3f} → {ours:.3f}" for plain, ours in cells)), flush=True)
    print(
        "\nequal models, significant differences in number accuracy, highest of three correlations: bootstrap → ours\n"
    )
    head("images", *SHARES)
    for images in (1, 4, 10, *IMAGES):
        rates = [
            [false_verdicts(images, share, alike, 5 * args.repetitions) for alike in ALIKE_BETWEEN] for share in SHARES
        ]
        print(row(images, *("{:.3f} → {:.3f}".format(*np.max(cell, axis=0)) for cell in rates)), flush=True)
    print("\ntwo equal configurations with two seeds each, number accuracy: coverage of a mean / significant\n")
    head("images", "share", *(f"seeds ± {spread}" for spread in SEED_SPREADS))
    for images in IMAGES[:3]:
        for share in (0.9, 0.97):
            cells = [two_seeds(images, share, spread, max(args.repetitions // 2, 1)) for spread in SEED_SPREADS]
            print(row(images, share, *(f"{held:.3f} / {told:.3f}" for held, told in cells)), flush=True)
    if args.pool:
        print(f"reading {args.pool} drawn images", file=sys.stderr, flush=True)
        table, truth = pool(args.pool)
        print("\ncoverage of the 95 % interval of AP\n")
        head("images", "score", "truth", "mean bias", "percentiles", "BCa", "ours")
        for images in AP_IMAGES:
            for kind, right, (plain, corrected, ours, bias) in ap_coverage(
                table, truth, images, max(args.repetitions // 4, 1)
            ):
                print(row(images, kind, right, f"{bias:+.3f}", plain, corrected, ours), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
