"""Figures about detection: scores over thresholds, anchors and box sizes."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from digits_core.config.train_config import TrainConfig
from digits_core.errors import RunError, UsageError, did_you_mean, printable
from digits_core.model.anchors import anchors_of, resized_sizes
from results.figures.nothing import NothingToDrawError
from results.figures.style import BEST, FAINT, PLAIN, SCALE, finish, log_ticks, plain
from results.record.folder import THRESHOLDS
from results.record.trial import TrialRecord
from results.tables.parquet import WITHOUT, check_epoch, epoch_of, read_arrow
from results.tables.samples import BOXES_FILE, read_boxes
from results.views.curves import configuration_colors
from results.views.opened_run import OpenedRun, open_run

MOST_BOXES = 1500
"""Most boxes drawn as points."""

TASKS = {
    1: ("val_map", "mAP", "Task 1"),
    2: ("val_number_accuracy", "number accuracy", "Task 2"),
}
"""For each task: the column of its score, the name of the score, the name of the task."""


def chosen_trial(opened: OpenedRun, trial: str | None) -> TrialRecord:
    """A trial by name, or the winner.

    Raises:
        RunError: there is no such trial, or none with a score.
    """
    if trial is not None and trial not in opened.record.trials:
        names = opened.record.trials
        raise RunError(f"run '{opened.name}' has no trial {printable(trial)}{did_you_mean(trial, names)}")
    found = opened.record.winner() if trial is None else opened.record.trials[trial]
    if found is None:
        raise RunError(f"run '{opened.name}' has no trial with a score yet")
    return found


def plot_thresholds(run: str | Path | OpenedRun, *, task: int = 1, trial: str | None = None) -> go.Figure:
    """The score of a task over NMS and score thresholds, for both kinds of NMS.

    Args:
        run: a run folder.
        task: 1 (mAP) or 2 (numbers).
        trial: the trial; None means the winner.

    Raises:
        RunError: it is not a run, has no such trial, the trial has no sweep, or the sweep's file is damaged.
        UsageError: there is no such task.
    """
    if task not in TASKS:
        raise UsageError(f"task {printable(str(task))}: must be 1 (mAP) or 2 (numbers)")
    opened = open_run(run)
    chosen = chosen_trial(opened, trial)
    path = opened.folder / THRESHOLDS / f"{chosen.trial_id}.parquet"
    if not path.is_file():
        late = f"the map of {chosen.trial_id} is written at the end of its training"
        never = f"trial {chosen.trial_id} has no threshold sweep"
        raise NothingToDrawError(opened, late if chosen.status == "running" else never)
    column, label, name = TASKS[task]
    table = read_arrow(path, WITHOUT)
    check_epoch(path, epoch_of(table), chosen.best_epoch(opened.record.metric))
    swept = table.to_pandas(types_mapper=pd.ArrowDtype)
    if column not in swept or swept[column].isna().all():
        raise NothingToDrawError(
            opened, f"the sweep of {chosen.trial_id} has no {label}; the categories may not be digits"
        )
    common = swept["max_detections"].mode().iloc[0]
    swept = swept[(swept["max_detections"] == common) & swept[column].notna()]
    kinds = [(False, "NMS within classes"), (True, "NMS across classes")]
    figure = make_subplots(rows=2, cols=1, subplot_titles=[words for _, words in kinds], vertical_spacing=0.2)
    best = swept.loc[swept[column].astype(float).idxmax()].to_dict()
    if f"task{task}_nms" in chosen.optima:  # of equal scores, the one in the record
        best |= {name: chosen.optima[f"task{task}_{name}"] for name in ("nms", "score", "class_agnostic")}
    low, high = float(swept[column].min()), float(swept[column].max())
    for place, (agnostic, _) in enumerate(kinds, start=1):
        grid = swept[swept["class_agnostic"] == agnostic].pivot_table(index="nms", columns="score", values=column)
        figure.add_heatmap(
            x=grid.columns.to_numpy(dtype=np.float64).round(4), y=grid.index.to_numpy(dtype=np.float64).round(4),
            z=grid.to_numpy(dtype=np.float64).round(4), zmin=low, zmax=high, colorscale=SCALE, row=place, col=1,
            showscale=place == 2,
            colorbar={"title": {"text": label, "side": "right"}, "thickness": 12},
            hovertemplate=f"score %{{x:.2f}}, NMS %{{y:.2f}}: {label} %{{z:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[float(best["score"])], y=[float(best["nms"])], mode="markers", col=1, row=2 if best["class_agnostic"] else 1,
        marker={"symbol": "star", "size": 16, "color": BEST, "line": {"color": "white", "width": 2}},
        name=f"best: {float(best[column]):.3f}", hovertemplate="best: score %{x:.2f}, NMS %{y:.2f}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(tickformat=".1f")
    figure.update_xaxes(title="score threshold", matches="x", row=2, col=1)
    figure.update_yaxes(title="NMS IoU", tickformat=".1f")
    return finish(figure, f"{opened.name}, {chosen.trial_id}: {name}, {label} by thresholds", height=500)


def plot_anchors(run: str | Path | OpenedRun, *, trial: str | None = None) -> go.Figure:
    """Width and height of training boxes after the resize, and of anchors.

    Args:
        run: a run folder.
        trial: the trial of the anchors; None means the winner. Those of the default are shown, too.

    Raises:
        RunError: it is not a run, has no such trial, or the file of boxes is missing, empty or damaged.
    """
    opened = open_run(run)
    chosen = chosen_trial(opened, trial)
    if not (opened.folder / BOXES_FILE).is_file():
        raise NothingToDrawError(opened, f"it has no {BOXES_FILE}; an older version wrote it")
    images, boxes = read_boxes(opened.folder)
    if not len(boxes):
        raise NothingToDrawError(opened, f"{BOXES_FILE} has no box")
    model = TrainConfig.from_flat(chosen.config).model
    sides = boxes * (resized_sizes(model, images) / images)
    some = sides[np.unique(np.linspace(0, len(sides) - 1, MOST_BOXES).astype(int))].astype(np.float32)
    figure = go.Figure()
    figure.add_scatter(
        x=some[:, 0].round(1), y=some[:, 1].round(1), mode="markers", name="boxes (training)",
        marker={"size": 4, "color": FAINT, "opacity": 0.4}, hovertemplate="box %{x} × %{y} px<extra></extra>",
    )  # fmt: skip
    colors = configuration_colors(opened.record)
    known = [(f"anchors of {chosen.trial_id}", model, "square", colors.get(chosen.config_hash, PLAIN), 11)]
    default = next((one for one in opened.record.trials.values() if one.baseline == "default"), None)
    if default is not None and default.trial_id != chosen.trial_id:
        theirs = TrainConfig.from_flat(default.config).model
        if not np.array_equal(anchors_of(theirs), anchors_of(model)):
            color = colors.get(default.config_hash, PLAIN)
            known.append(("anchors of the default", theirs, "diamond-open", color, 11))
    for name, one, symbol, color, size in known:
        shapes = anchors_of(one).reshape(-1, 4)
        figure.add_scatter(
            x=shapes[:, 2] - shapes[:, 0], y=shapes[:, 3] - shapes[:, 1], mode="markers", name=plain(name),
            marker={"symbol": symbol, "size": size, "color": color, "line": {"color": color, "width": 2}},
            hovertemplate="anchor %{x} × %{y} px<extra></extra>",
        )  # fmt: skip
    for axis, name in ((figure.layout.xaxis, "width"), (figure.layout.yaxis, "height")):
        values = np.concatenate([trace.x if name == "width" else trace.y for trace in figure.data])
        axis.update(title=f"{name} after the resize (px)", type="log", **log_ticks(values.min(), values.max()))
    return finish(figure, f"{opened.name}: anchors and box sizes", height=440)
