"""How often a verdict is false: many trainings of one configuration, compared three against three at random.

    python benchmarks/calibration.py --out FOLDER [--trainings 120] [--jobs 2]

Trains configuration A with `--trainings` seeds, and B and C with a third as many: B has a quarter, C three quarters of
the training images per epoch; drawn data, tiny backbone. Each training is stored in FOLDER, so that the script can be
restarted. Then it draws random comparisons and counts the verdicts. The method: docs/statistics.md.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy import stats

from digits_core.config.train_config import TrainConfig
from digits_core.data.cache import open_data
from digits_core.data.source import DataSource
from digits_core.evaluation.bootstrap import bootstrap_scores, resample_weights
from digits_core.evaluation.metrics import Truth
from results.statistics import LEVEL, Difference, model_difference, pooled_variance, setting_difference
from results.tables.matches import RESAMPLES

IMAGES = {"a": 96, "b": 24, "c": 72}
EPOCHS = 2
PER_SIDE = 3
SCORES = ("map", "number_accuracy")
VALID = DataSource().drawn_valid
"""Images that every training is scored on."""
MANY = 10**9
"""A number of images so large that they cause no variance."""


def train_once(name: str, number: int, folder: str) -> str:
    """Run one short training and store its scores and bootstrap in `folder`."""
    import torch

    from digits_core.training.train import train

    target = Path(folder) / f"{name}{number:04d}.npz"
    if target.exists():
        return target.name
    torch.set_num_threads(1)
    seed = number + 1_000_000 * list(IMAGES).index(name)
    parameters = {"model.fresh_rpn": True, "data.images_per_epoch": IMAGES[name], "optim.epochs": EPOCHS}
    config = TrainConfig.from_flat({**parameters, "runtime.seed": seed})
    data = open_data(DataSource())
    last = []
    train(config, data, last.append, device="cpu")
    valid = last[-1].valid
    truth = Truth.from_table(data.valid.table)
    weights = resample_weights(len(data.valid), RESAMPLES)
    resampled = bootstrap_scores(valid.task1, valid.task2, truth, config.detect, weights)
    half = target.with_suffix(".half.npz")
    np.savez(
        half,
        **{f"{score}_resampled": resampled[score] for score in SCORES},
        **{score: getattr(valid.scores, score) for score in SCORES},
    )
    half.replace(target)
    return target.name


def load(folder: Path, name: str, score: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of all trainings of a configuration, and their bootstraps [trainings, resamples]."""
    files = [np.load(path) for path in sorted(folder.glob(f"{name}[0-9]*.npz")) if ".half" not in path.name]
    return np.array([float(file[score]) for file in files]), np.stack([file[f"{score}_resampled"] for file in files])


Trainings = tuple[np.ndarray, np.ndarray]


def compare(first: Trainings, second: Trainings, others: list[Trainings]) -> Difference:
    """The verdict of digit-search on two configurations; `others` are further replicated configurations."""
    variance, freedom = pooled_variance([first[0], second[0], *(one[0] for one in others)])
    return setting_difference(first[0], second[0], first[1], second[1], VALID, variance, freedom)


def seeds_alone(first: Trainings, second: Trainings, others: list[Trainings]) -> Difference:
    """The same without the image part: a t-test on the scores."""
    nothing = np.zeros((1, 2))
    variance, freedom = pooled_variance([first[0], second[0]])
    return setting_difference(first[0], second[0], nothing, nothing, MANY, variance, freedom)


def one_each(first: Trainings, second: Trainings, others: list[Trainings]) -> Difference:
    """The wrong method: two single trainings, compared as models, interpreted as configurations."""
    return model_difference(first[0][0], second[0][0], first[1][0], second[1][0], VALID)


def pick(trainings: Trainings, rows: np.ndarray) -> Trainings:
    return trainings[0][rows], trainings[1][rows]


def draws(
    a: Trainings, b: Trainings | None, rule: Callable[..., Difference], count: int, others: int
) -> Iterator[tuple[np.ndarray, Difference]]:
    """Random comparisons: the trainings of A that each uses, and what the rule says."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        rows = generator.permutation(len(a[0]))[: PER_SIDE * (2 + others)]
        sides = rows.reshape(-1, PER_SIDE)
        second = pick(a, sides[1]) if b is None else pick(b, generator.permutation(len(b[0]))[:PER_SIDE])
        yield rows, rule(pick(a, sides[0]), second, [pick(a, one) for one in sides[2:]])


def rate(verdicts: list[tuple[np.ndarray, bool]], trainings: int) -> tuple[float, float]:
    """The share of true values, and a one-sided 95 % upper bound that accounts for shared trainings.

    Source:
        Arvesen 1969, Jackknifing U-statistics: leave out one training, and every draw that it is in.
    """
    hits = np.array([hit for _, hit in verdicts], dtype=float)
    inside = np.zeros((len(verdicts), trainings), dtype=bool)
    for row, (used, _) in enumerate(verdicts):
        inside[row, used] = True
    without = np.array([hits[~inside[:, one]].mean() for one in range(trainings)])
    error = np.sqrt((trainings - 1) / trainings * ((without - without.mean()) ** 2).sum())
    return float(hits.mean()), float(hits.mean() + stats.norm.ppf(LEVEL) * error)


def disjoint_bound(a: Trainings, rule: Callable[..., Difference]) -> tuple[int, int, float]:
    """False verdicts among comparisons that share no training, and the exact upper bound of their rate."""
    rows = np.random.default_rng(1).permutation(len(a[0]))
    sides = [rows[at : at + PER_SIDE] for at in range(0, len(rows) - PER_SIDE + 1, PER_SIDE)]
    pairs = list(zip(sides[::2], sides[1::2], strict=False))
    false = sum(rule(pick(a, one), pick(a, two), []).p < 1 - LEVEL for one, two in pairs)
    bound = 1.0 if false == len(pairs) else float(stats.beta.ppf(LEVEL, false + 1, len(pairs) - false))
    return false, len(pairs), bound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--trainings", type=int, default=120, help="trainings of A; a third as many of B and C (default 120)"
    )
    parser.add_argument("--draws", type=int, default=20_000, help="random comparisons (default 20,000)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings in parallel, one core each (default 2)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    open_data(DataSource())  # decoded once, before the processes start
    counts = {"a": args.trainings, "b": args.trainings // 3, "c": args.trainings // 3}
    jobs = [(name, number) for name, count in counts.items() for number in range(count)]
    with ProcessPoolExecutor(args.jobs) as pool:
        names, numbers = zip(*jobs, strict=True)
        for done, name in enumerate(pool.map(train_once, names, numbers, itertools.repeat(str(args.out))), start=1):
            if done % 20 == 0 or done == len(jobs):
                print(f"trained {done} of {len(jobs)} ({name})", file=sys.stderr, flush=True)
    rules = [
        ("verdict, two settings replicated", compare, 0),
        ("verdict, two more replicated settings in the run", compare, 2),
        ("t-test of the seeds alone", seeds_alone, 0),
        ("one training each, read as settings", one_each, 0),
    ]
    table = []
    for score in SCORES:
        a, b, c = (load(args.out, name, score) for name in IMAGES)
        print(f"\n{score}, {len(a[0])} trainings of A, {len(b[0])} of B and of C")
        for name, one in (("A", a), ("B", b), ("C", c)):
            print(f"  {name}: mean {one[0].mean():.3f}, standard deviation over seeds {one[0].std(ddof=1):.4f}")
        print(f"{'':50} {'false on A/A':>13} {'upper bound':>12} {'disjoint':>16} {'A over B':>9} {'A over C':>9}")
        for name, rule, others in rules:
            same = [(used, one.p < 1 - LEVEL) for used, one in draws(a, None, rule, args.draws, others)]
            power = [
                np.mean(
                    [one.p < 1 - LEVEL and one.estimate > 0 for _, one in draws(a, two, rule, args.draws // 10, others)]
                )
                for two in (b, c)
            ]
            false, bound = rate(same, len(a[0]))
            apart = ""
            if not others:
                few, of, exact = disjoint_bound(a, rule)
                apart = f"{few} of {of} (<{exact:.0%})"
            print(f"{name:50} {false:13.2%} {bound:12.2%} {apart:>16} {power[0]:9.0%} {power[1]:9.0%}")
            row = {"score": score, "rule": name, "false": false, "bound": bound, "power": [float(p) for p in power]}
            table.append(row)
    (args.out / "calibration.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
