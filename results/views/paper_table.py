"""The few columns of a leaderboard or of epochs that a paper shows."""

from collections.abc import Sequence

import pandas as pd

from results.views.leaderboard import SHOWN, parameter_columns
from results.views.terminal_table import score_cells

INTERVAL = "95 %"
"""Heading of the column with the interval of the score to the left."""


def leaderboard_for_paper(board: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Trial, role, metric with interval, number accuracy, epochs, status, parameters that vary, baseline.

    The role has a column if there are replicates or retrainings; retrainings come last.

    Args:
        board: as from `read_leaderboards`.
        metrics: the metrics of its runs.
    """
    retrained = board["role"] == "retrain"
    board = pd.concat([board[~retrained], board[retrained]])
    paper = pd.DataFrame(index=board.index)
    if board["run"].nunique() > 1:
        paper["run"] = board["run"]
    paper["trial"] = board["trial_id"]
    if board["role"].nunique() > 1:
        paper["role"] = board["role"]
    for metric in metrics:
        paper[metric] = board[metric]
        heading = INTERVAL if len(metrics) == 1 else f"{metric}, {INTERVAL}"
        paper[heading] = [score_cells(row, metric)[1] or None for row in board.to_dict("records")]
    if "val_number_accuracy" not in metrics:
        paper["val_number_accuracy"] = board["val_number_accuracy"]
    searched = board[board["role"] != "retrain"]
    parameters = [name for name in parameter_columns(board) if searched[name].astype(str).nunique() > 1]
    for name in ("epochs", "status", *parameters, "baseline"):
        paper[name] = board[name]
    return paper.dropna(axis="columns", how="all")


def epochs_for_paper(epochs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Trial, epoch, learning rate, losses and the scores that were measured.

    Args:
        epochs: the epochs of one or more runs.
        metrics: the metrics of these runs; they come first.
    """
    scores = dict.fromkeys([*metrics, *SHOWN])
    names = ["trial_id", "epoch", *scores, "train_loss", "val_loss", "lr"]
    runs = ["run"] if epochs["run"].nunique() > 1 else []
    return epochs[[*runs, *names]].dropna(axis="columns", how="all").rename(columns={"trial_id": "trial"})
