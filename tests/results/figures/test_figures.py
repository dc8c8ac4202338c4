"""Pictures say what the record says, and need nothing but a run folder."""

import html
import itertools
import json
import re
import shutil
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from told import HOSTILE, told_run

import results
from digits_core.errors import RunError, UsageError
from results import open_run
from results.figures.detection import plot_anchors, plot_thresholds
from results.figures.history import plot_history
from results.figures.settings import (
    importances,
    plot_contours,
    plot_importances,
    plot_parallel,
    plot_slices,
    scored_settings,
)
from results.figures.style import LINE_LETTERS, SCORE_TICKS, legend_name, log_ticks, plain
from results.figures.training import (
    curve_range,
    num_cut,
    plot_curves,
    plot_overfitting,
    plot_pareto,
)
from results.views.curves import configuration_colors
from results.views.slots import PARTS, time_parts, timeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return told_run(tmp_path_factory.mktemp("work") / "runs" / "told")


PICTURES = [name for name in results.__all__ if name.startswith("plot_")]


def test_every_exported_picture_is_a_figure_of_its_own_titled_after_the_run(folder):
    for name in PICTURES:
        figure = getattr(results, name)(folder)
        assert figure.layout.title.text.startswith("told"), name
        json.loads(figure.to_json())


def test_curves_name_the_best_and_keep_the_others_faint_in_one_trace(folder):
    record = open_run(folder).record
    figure = plot_curves(folder, top=3)
    leads = [lead.trial_id for lead in record.settings()][:3]
    assert [trace.name.split()[0] for trace in figure.data[-3:]] == leads
    best = record.trials[leads[0]]
    assert list(figure.data[-3].y) == [one["val_map"] for _, one in sorted(best.epochs.items())]
    assert len(figure.data) == 5  # stopped or failed, others, three leaders
    assert [shape.x0 for shape in figure.layout.shapes] == [1]  # the rung that run.json names


def searched_run(folder, qualities, **options):
    from searched import Searched

    made = Searched(folder)
    for number, quality in enumerate(qualities):
        made.trial(f"t{number:04d}", quality, **{"optim.lr": 0.001 * (number + 1)}, **options)
    return made.done()


def test_a_weak_trial_does_not_compress_the_curves_of_the_best(tmp_path):
    good = [0.95, 0.94, 0.93, 0.92, 0.91, 0.9]
    alone = open_run(searched_run(tmp_path / "runs" / "alone", good))
    joined = open_run(searched_run(tmp_path / "runs" / "joined", [*good, 0.05]))
    assert curve_range(joined, "val_map") == pytest.approx(curve_range(alone, "val_map"))
    assert (num_cut(alone, "val_map"), num_cut(joined, "val_map")) == (0, 1)
    figure = plot_curves(joined)
    assert list(figure.layout.yaxis.range) == curve_range(joined, "val_map")
    assert figure.layout.title.text.endswith("(1 line cut)")


def test_the_range_of_the_curves_leaves_out_a_weak_one_among_the_best(tmp_path):
    opened = open_run(searched_run(tmp_path / "runs" / "weak", [0.95, 0.94, 0.93, 0.92, 0.91, 0.05], epochs=1))
    scores = sorted(trial.epochs[1]["val_map"] for trial in opened.record.trials.values())
    low, high = curve_range(opened, "val_map")
    assert scores[0] < low < scores[1]
    assert high > scores[-1]


def test_curves_of_a_loss_have_no_cut_axis(folder):
    assert curve_range(open_run(folder), "train_loss") is None
    assert plot_curves(folder, metric="train_loss").layout.yaxis.range is None


def test_history_has_every_first_training_with_a_score_and_the_best_so_far(folder):
    opened = open_run(folder)
    record = opened.record
    expected = {
        number: record.value(trial)
        for number, trial in enumerate(record.trials.values())
        if trial.role == "search" and record.value(trial) is not None
    }
    figure = plot_history(opened)
    for row, axis in ((1, "x"), (2, "x2")):
        points = [trace for trace in figure.data if trace.xaxis == axis and trace.mode == "markers" and trace.text]
        assert sorted(y for trace in points for y in trace.y) == sorted(expected.values())
        if row == 1:
            assert {x: y for trace in points for x, y in zip(trace.x, trace.y, strict=True)} == expected
        [line] = [trace for trace in figure.data if trace.xaxis == axis and trace.mode == "lines"]
        assert list(line.y) == sorted(line.y)
        assert line.y[-1] == record.value(record.winner())
        assert list(line.x) == sorted(line.x)
    [line] = [trace for trace in figure.data if trace.xaxis == "x" and trace.mode == "lines"]
    assert dict(zip(line.x, line.y, strict=True)) == {
        number: max(score for other, score in expected.items() if other <= number) for number in expected
    }


def test_history_counts_time_from_the_start_of_the_run(tmp_path):
    folder = searched_run(tmp_path / "runs" / "timed", [0.5, 0.9])
    begin = open_run(folder).record.trials["t0000"].started_at - timedelta(minutes=5)
    about = json.loads((folder / "run.json").read_text()) | {"started_at": begin.strftime("%Y-%m-%dT%H:%M:%SZ")}
    (folder / "run.json").write_text(json.dumps(about))
    figure = plot_history(folder)
    times = [x for trace in figure.data if trace.xaxis == "x2" for x in trace.x if x is not None]
    last = max(epoch["reported_at"] for one in open_run(folder).record.trials.values() for epoch in one.epochs.values())
    assert min(times) >= 5
    assert max(times) == pytest.approx((last - begin.replace(microsecond=0)).total_seconds() / 60)


def test_a_history_without_a_score_says_so(tmp_path):
    from searched import Searched

    with pytest.raises(RunError, match="nothing to draw for run 'new': no trial has a score yet"):
        plot_history(Searched(tmp_path / "runs" / "new").done())


def test_the_pareto_front_does_not_depend_on_speed(tmp_path):
    opened = open_run(searched_run(tmp_path / "runs" / "front", [0.95, 0.6, 0.3]))
    trials = opened.record.trials
    for speed, trial in enumerate(trials.values()):
        for epoch in trial.epochs.values():
            epoch["images_per_second"] = 100.0 * (speed + 1)
    [front] = [trace for trace in plot_pareto(opened).data if trace.name == "Pareto front"]
    best = trials["t0000"].best("val_map")
    assert list(zip(front.x, front.y, strict=True)) == [(best["val_map"], best["val_number_accuracy"])]
    assert "images" not in front.hovertemplate


def test_a_configuration_has_the_same_colour_in_every_figure(folder):
    opened = open_run(folder)
    colors = configuration_colors(opened.record)
    named = {trial.trial_id: colors[trial.config_hash] for trial in opened.record.settings()[: len(colors)]}
    curves = {trace.name.split()[0]: trace.line.color for trace in plot_curves(opened).data[-len(colors) :]}
    assert curves == named
    for figure in (plot_history(opened), plot_pareto(opened), plot_slices(opened)):
        points = [trace for trace in figure.data if trace.text]
        seen = {
            text.split()[0].strip(",:"): color
            for trace in points
            for text, color in zip(trace.text, trace.marker.color, strict=True)
        }
        assert {name: seen.get(name) for name in named} == named


def test_panels_and_axes_have_the_name_of_the_parameter_that_they_show(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "named")
    for number in range(4):
        parameters = {
            "optim.lr": 0.001 * (number + 1),
            "augment.mirror": number < 2,
            "optim.momentum": 0.9 - number / 50,
        }
        made.trial(f"t{number:04d}", 0.9 - number / 10, **parameters)
    opened = open_run(made.done())
    configs = [opened.record.trials[f"t{number:04d}"].config for number in range(4)]
    figure = plot_slices(opened)
    shown = {}
    for place, trace in enumerate(figure.data, start=1):
        axis = figure.layout[f"xaxis{place}" if place > 1 else "xaxis"]
        shown[axis.title.text.replace("<br>", "")] = [str(value) for value in trace.x]
    assert shown == {
        name: [str(config[name]) for config in configs] for name in ("optim.lr", "augment.mirror", "optim.momentum")
    }
    parallel = plot_parallel(opened)
    line = next(trace for trace in parallel.data if trace.mode == "lines")
    assert [name.replace("<br>", "") for name in parallel.layout.xaxis.ticktext] == [
        name for name, _ in line.customdata
    ]


@pytest.mark.parametrize("distance", [step * 10.0**-power for power in (1, 2, 3, 4) for step in (1, 2, 5)])
def test_neighbouring_ticks_of_a_score_print_different_numbers(distance):
    [words] = [
        one["value"]
        for one in SCORE_TICKS
        if (one["dtickrange"][0] or 0) <= distance < (one["dtickrange"][1] or float("inf"))
    ]
    ticks = [0.7 + number * distance for number in range(8)]
    assert [float(format(tick, words)) for tick in ticks] == pytest.approx(ticks, abs=distance / 100)


@given(st.floats(1e-6, 1e4), st.floats(1.5, 1e6))
def test_ticks_of_a_logarithmic_axis_are_complete_numbers(low, factor):
    high = low * factor
    ticks = log_ticks(low, high)
    assert [float(text) for text in ticks["ticktext"]] == pytest.approx(ticks["tickvals"])
    inside = [value for value in ticks["tickvals"] if low <= value <= high]
    assert 1 <= len(inside) <= 8
    assert ticks["tickvals"][0] <= low
    assert ticks["tickvals"][-1] >= high


def test_logarithmic_figures_have_complete_numbers(folder):
    for axis in (
        plot_anchors(folder).layout.xaxis,
        plot_contours(folder).layout.yaxis,
        plot_slices(folder).layout.xaxis2,
    ):
        assert axis.type == "log"
        assert [float(text) for text in axis.ticktext] == pytest.approx(list(axis.tickvals))


def test_the_score_axis_of_parallel_coordinates_has_three_decimals(folder):
    figure = plot_parallel(folder)
    assert all(re.fullmatch(r"\d\.\d{3}", one.text) for one in figure.layout.annotations if one.x == 0)
    scores = [trial.value for trial in scored_settings(folder).study.get_trials(deepcopy=False)]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert [line.customdata[0][1] for line in lines] == [f"{score:.3f}" for score in scores]


def test_long_values_of_parameters_are_shortened_and_the_parallel_coordinates_get_as_wide_as_they_need(tmp_path):
    from searched import Searched

    stages = "50% augment.pipeline=color; 50% augment.mirror=true augment.pipeline=geometric"
    made = Searched(tmp_path / "runs" / "long")
    for number in range(7):
        parameters = {
            "optim.lr": 0.001 + number / 1000,
            "optim.stages": (stages, stages.replace("color", "none"))[number % 2],
        }
        made.trial(f"t{number:04d}", 0.9 - number / 10, **parameters, **{"optim.momentum": 0.5 + number / 100})
    opened = open_run(made.done())
    parallel, slices = plot_parallel(opened), plot_slices(opened)
    apart = (parallel.layout.meta["min_width"] - 120) / 3  # four axes
    assert 400 < parallel.layout.meta["min_width"] < 900
    assert all(len(html.unescape(one.text)) * 6 < apart for one in parallel.layout.annotations)
    [axis] = [axis for axis in slices.select_xaxes() if axis.type == "category"]
    assert len(axis.tickvals) == 2
    assert all(len(text) <= 15 for text in axis.ticktext)
    few = plot_parallel(told_run(tmp_path / "runs" / "few", trials=4))
    assert few.layout.meta["min_width"] < parallel.layout.meta["min_width"]


@given(st.text(max_size=150))
def test_names_in_a_legend_fit_into_a_narrow_window(text):
    assert all(len(html.unescape(line)) <= LINE_LETTERS for line in legend_name(text).split("<br>"))


def test_overfitting_is_the_difference_of_the_recorded_losses(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "gap")
    made.trial("t0000", 0.9)
    made.done()
    figure = plot_overfitting(tmp_path / "runs" / "gap")
    epochs = open_run(tmp_path / "runs" / "gap").record.trials["t0000"].epochs
    assert list(figure.data[0].y) == [one["val_loss"] - one["train_loss"] for _, one in sorted(epochs.items())]


def test_settings_are_compared_at_the_last_epoch_that_all_reached(folder):
    opened = open_run(folder)
    scored = scored_settings(opened)
    assert scored.epoch == 1
    values = {trial.value for trial in scored.study.trials}
    trials = [one for one in opened.record.settings() if one.status in ("finished", "stopped")]
    assert values == {one.epochs[1]["val_map"] for one in trials}


def test_settings_trained_alike_are_compared_at_their_best(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "alike")
    for number in range(4):
        made.trial(f"t{number:04d}", 0.9 - number / 10, **{"optim.lr": 10.0 ** -(number + 1) / 2})
    made.done()
    scored = scored_settings(tmp_path / "runs" / "alike")
    record = open_run(tmp_path / "runs" / "alike").record
    assert scored.epoch is None
    assert {trial.value for trial in scored.study.trials} == {record.value(trial) for trial in record.trials.values()}


def test_importance_is_shares_and_is_silent_on_few_settings(folder, tmp_path):
    found = importances(scored_settings(folder))
    assert set(found) == {"model.anchor_sizes", "optim.lr"}
    assert sum(found.values()) == pytest.approx(1)
    few = told_run(tmp_path / "runs" / "few", trials=4)
    with pytest.raises(RunError, match=r"for run 'few': needs 10 sampled configurations, this run has 3$"):
        plot_importances(few)
    assert plot_parallel(few).data
    assert plot_slices(few).data


def test_threshold_maps_hold_the_sweep_and_mark_its_best(folder):
    first, second = plot_thresholds(folder, task=1), plot_thresholds(folder, task=2)
    within, across, star = first.data
    assert np.array(within.z)[2, 0] == pytest.approx(0.8)
    assert np.array(across.z)[2, 0] == pytest.approx(0.7)
    assert (star.x[0], star.y[0], star.yaxis) == (0.1, 0.5, "y")
    star = second.data[2]
    assert (star.x[0], star.y[0], star.yaxis) == (0.6, 0.3, "y2")


def test_anchors_are_the_realised_ones_over_boxes_after_the_resize(folder):
    from digits_core.config.train_config import TrainConfig
    from digits_core.model.anchors import anchors_of

    figure = plot_anchors(folder, trial="t0003")
    config = TrainConfig.from_flat(open_run(folder).record.trials["t0003"].config)
    shapes = anchors_of(config.model).reshape(-1, 4)
    assert set(zip(figure.data[1].x, figure.data[1].y, strict=True)) == {
        (width, height) for width, height in (shapes[:, 2:] - shapes[:, :2]).tolist()
    }
    scale = config.model.min_size / 64  # images are 64 x 64
    assert set(figure.data[0].x) == {np.float32(10 * scale)}
    assert set(figure.data[0].y) == {np.float32(20 * scale)}


def test_a_trial_that_is_not_there_is_a_sentence(folder):
    with pytest.raises(RunError, match=r"run 'told' has no trial t0009x; did you mean"):
        plot_thresholds(folder, trial="t0009x")


@pytest.mark.parametrize("name", PICTURES)
def test_a_run_that_has_only_begun_has_nothing_to_draw_and_says_why(name, tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "new")
    made.done()
    with pytest.raises(RunError, match=r"run 'new'(: | has no trial with a score yet$)"):
        getattr(results, name)(tmp_path / "runs" / "new")


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_takes_text_paths_names_and_opened_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)  # its run folders are in runs/
    plot = getattr(results, name)
    figures = [plot(run).to_json() for run in (str(folder), folder.name, open_run(folder))]
    assert figures == [figures[0]] * 3


def test_a_score_or_a_task_that_is_not_there_is_a_sentence(folder):
    with pytest.raises(UsageError, match=r"metric val_mapp: the epochs have no such number; did you mean 'val_map'"):
        plot_curves(folder, metric="val_mapp")
    with pytest.raises(UsageError, match=r"task 3: must be 1 \(mAP\) or 2 \(numbers\)"):
        plot_thresholds(folder, task=3)


def test_a_run_without_a_sweep_or_boxes_says_which_is_missing(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    shutil.rmtree(bare / "thresholds")
    (bare / "boxes.parquet").unlink()
    with pytest.raises(RunError, match=r"for run 'bare': trial t\d+ has no threshold sweep$"):
        plot_thresholds(bare)
    with pytest.raises(RunError, match=r"for run 'bare': it has no boxes\.parquet"):
        plot_anchors(bare)


def test_the_slots_time_is_all_accounted_for(folder):
    record = open_run(folder).record
    parts = time_parts(record)
    lanes, bars = timeline(record)
    assert list(parts) == list(PARTS)
    assert all(seconds >= 0 for seconds in parts.values())
    assert parts["training"] == pytest.approx(
        sum(one["train_seconds"] for trial in record.trials.values() for one in trial.epochs.values())
    )
    for lane in range(lanes):
        mine = sorted((start, end) for at, start, end, _ in bars if at == lane)
        assert all(end <= start + 0.06 for (_, end), (start, _) in itertools.pairwise(mine))


@given(st.text(max_size=80))
def test_text_of_a_picture_holds_no_tag(text):
    assert "<" not in plain(text)
    assert len(plain(HOSTILE)) < 200


def test_baselines_are_no_sampled_configurations(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "begun")
    made.trial("t0000", 0.9, baseline="default", **{"optim.lr": 0.001})
    made.trial("t0001", 0.8, baseline="report A", **{"optim.lr": 0.002})
    with pytest.raises(RunError, match=r"needs 10 sampled configurations, this run has 0$"):
        plot_importances(made.done())


def test_curves_of_one_epoch_have_an_axis_with_one_tick(tmp_path):
    from searched import Searched

    made = Searched(tmp_path / "runs" / "short")
    made.trial("t0000", 0.9, epochs=1)
    made.trial("t0001", 0.8, epochs=1, **{"optim.lr": 0.002})
    folder = made.done()
    for draw in (plot_curves, plot_overfitting):
        axis = draw(folder).layout.xaxis
        assert (axis.dtick, axis.range) == (1, (0.5, 1.5))


def test_no_axis_of_the_threshold_maps_follows_itself(folder):
    figure = plot_thresholds(folder)
    assert figure.layout.xaxis.matches is None
    assert figure.layout.xaxis2.matches == "x"


def test_the_weakest_classes_have_a_colour_each_and_the_others_one_entry_in_the_legend():
    from results.figures.evaluation import NUM_WEAK, plot_precision_recall
    from results.figures.style import FAINT

    areas = {str(digit): (digit * 7 % 10 + 1) / 20 for digit in range(10)}
    precision = {name: [area] * 101 for name, area in areas.items()}
    found = {"precision_recall": {"recall": [at / 100 for at in range(101)], "precision": precision}}
    lines = plot_precision_recall(found).data
    assert len(lines) == len(areas)
    coloured = [line for line in lines if line.line.color != FAINT]
    assert len({line.line.color for line in coloured}) == len(coloured) == NUM_WEAK
    weakest = sorted(areas, key=areas.get)[:NUM_WEAK]
    assert {line.name for line in coloured} == {f"{name} ({areas[name]:.3f})" for name in weakest}
    assert sum(line.showlegend for line in lines) == NUM_WEAK + 1
    few = {"precision_recall": {"recall": [0.0, 1.0], "precision": {"<b>": [1.0, 0.5]}}}
    assert [line.name for line in plot_precision_recall(few).data] == ["&lt;b&gt; (0.750)"]
