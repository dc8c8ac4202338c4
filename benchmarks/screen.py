"""Spearman's rank correlation of anchor coverage and score over the configurations of finished runs.

    python benchmarks/screen.py RUN [RUN ...] [--metric val_map]

Every leaderboard has the coverage, which is measured before training. Use runs with varying anchors and complete
trainings (--scheduler none --sampler random), with at least 20 configurations.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from results.views.leaderboard import read_leaderboard

COLUMNS = ("anchor_recall_50", "anchor_recall_70", "anchor_mean_iou")
RESAMPLES = 5000


def interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap over settings."""
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(first), (RESAMPLES, len(first)))
    values = [spearmanr(first[some], second[some]).statistic for some in rows]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--metric", default="val_map")
    args = parser.parse_args()
    for folder in args.runs:
        board = read_leaderboard(folder)
        board = board[(board["role"] == "search") & (board["status"] == "finished")]
        score = board[args.metric].to_numpy(dtype=float)
        print(f"{folder}: {len(board)} settings, {args.metric} {score.min():.3f} to {score.max():.3f}")
        for column in COLUMNS:
            coverage = board[column].to_numpy(dtype=float)
            found = spearmanr(coverage, score).statistic
            low, high = interval(coverage, score)
            reach = f"{coverage.min():.2f} to {coverage.max():.2f}"
            print(f"  {column:17} {reach}   Spearman {found:+.2f} [{low:+.2f}, {high:+.2f}]")
        for margin in (0.05, 0.1, 0.15, 0.2):
            best = board[board["baseline"].notna()]["anchor_mean_iou"].astype(float).max()
            out = board[(board["anchor_mean_iou"].astype(float) < best - margin) & board["baseline"].isna()]
            if len(out):
                ranks = (-score).argsort().argsort() + 1
                places = sorted(ranks[np.isin(board["trial_id"].to_numpy(), out["trial_id"].to_numpy())].tolist())
                print(f"  mean IoU over {margin:g} under the best baseline: {len(out)} settings, at places {places}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
